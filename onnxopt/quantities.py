"""Numbers as people write and read them: 10MB, 1.5G, 64KiB, 105%, 50ms, 5.85Mbit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from onnxopt.errors import UsageError

_PREFIXES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_NUMBER = re.compile(
    r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?|\.[0-9]+)\s*([kmgt]?)(i?)(b?)\s*", re.IGNORECASE
)


def parse_count(text: str) -> int:
    """A count or a number of bytes: k, M, G and T are powers of 1000, Ki and so on of 1024.

    Raises:
        UsageError: it is not such a number.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or (match[3] and not match[2]):
        raise UsageError(f"'{text}' is not a number", "write it like 500, 500k, 1.5G, 10MB, 64KiB")
    number, prefix, binary, _ = match.groups()
    base = 1024 if binary else 1000
    factor: int = base ** _PREFIXES[prefix.lower()]
    return round(float(re.sub("[_,]", "", number)) * factor)


def parse_percent(text: str) -> float:
    """A fraction, written as `10%`, or plainly as `0.1` (then at most 1: `10` is a slip).

    Raises:
        UsageError: it is neither.
    """
    bare = text.strip()
    is_percent = bare.endswith("%")
    try:
        value = float(bare.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf") or (value > 1 and not is_percent):
        raise UsageError(f"'{text}' is not a percentage", "write it like 10%")
    return value / 100 if is_percent else value


_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_ENERGIES = {"mj": 1e-3, "j": 1.0, "kj": 1e3}
_RATES = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_WITH_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-z]+)(?:/s)?\s*", re.IGNORECASE)


def parse_seconds(text: str) -> float:
    """A time with its unit: 50ms, 1.5s, 800us.

    Raises:
        UsageError: it is not such a time.
    """
    return _parsed(text, _TIMES, "time", "50ms, 1.5s or 800us")


def parse_joules(text: str) -> float:
    """An energy with its unit: 2J, 350mJ.

    Raises:
        UsageError: it is not such an energy.
    """
    return _parsed(text, _ENERGIES, "energy", "2J or 350mJ")


def parse_bits(text: str) -> float:
    """A bandwidth with its unit, in bits per second: 5.85Mbit, 1Gbit/s, 500kbit.

    Raises:
        UsageError: it is not such a bandwidth, or it is 0.
    """
    found = _parsed(text, _RATES, "bandwidth", "5.85Mbit, 1Gbit or 500kbit")
    if not found:
        raise UsageError("a bandwidth is above 0", "write it like 5.85Mbit")
    return found


def _parsed(text: str, units: Mapping[str, float], what: str, examples: str) -> float:
    match = _WITH_UNIT.fullmatch(text)
    factor = units.get(match[2].lower()) if match is not None else None
    if match is None or factor is None:
        raise UsageError(f"'{text}' is no {what}", f"write it like {examples}")
    return float(match[1]) * factor


def parse_between(text: str, parse: Callable[[str], float]) -> tuple[float, float]:
    """Two numbers with `..` between them, the smaller one first; or one for both.

    Raises:
        UsageError: it is neither.
    """
    first, dots, last = text.partition("..")
    low, high = parse(first), parse(last if dots else first)
    if low > high:
        raise UsageError(f"'{text}' ends before it begins", "write the smaller one first")
    return low, high


def seconds_text(seconds: float) -> str:
    """For a person: 812 us, 3.81 ms, 1.2 s."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def bits_text(bits: float) -> str:
    """For a person: 5.85 Mbit/s."""
    return f"{_scaled(round(bits), 'bit/s')}"


def count_text(count: int) -> str:
    """For a person: 812, 4.09 G."""
    return _scaled(count, "")


def bytes_text(size_bytes: int) -> str:
    """For a person: 812 B, 3.81 MB."""
    return _scaled(size_bytes, "B")


def _scaled(number: int, unit: str) -> str:
    value, prefixes = float(number), ["", "k", "M", "G", "T"]
    while abs(value) >= 999.5 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    digits = str(number) if not prefixes[0] else f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
    return f"{digits} {prefixes[0]}{unit}".rstrip()


def change_text(before: int, after: int) -> str:
    """How much it grew or shrank, in percent; empty if it did neither."""
    if before == after:
        return ""
    if not before:
        return "new"
    percent = 100 * (after - before) / before
    return f"{percent:+.1f}%" if abs(percent) >= 0.05 else f"{after - before:+,}"
