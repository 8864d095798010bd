"""Numbers as people write and read them: 10MB, 1.5G, 500k, 64KiB, 105%."""

from __future__ import annotations

import re

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
