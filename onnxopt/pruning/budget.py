"""Budgets: what a pruned model may cost, as a share of the original or as a number."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from onnxopt.cost import Cost
from onnxopt.errors import UsageError
from onnxopt.pruning.costs import UNITS, Mode, measured
from onnxopt.quantities import bytes_text, count_text, parse_count


@dataclass(frozen=True)
class Budget:
    """What the pruned model may cost.

    Attributes:
        mode: FLOPs (twice the multiply-accumulates), parameters, memory (weights and
            activations, in bytes), or latency (the measured time of one run, in milliseconds).
        amount: a share of the original's cost if `relative`, else the cost itself.
    """

    mode: Mode
    amount: float
    relative: bool = True

    def __post_init__(self) -> None:
        if self.mode not in UNITS:
            raise UsageError(f"there is no budget of {self.mode}", f"use {', '.join(UNITS)}")
        if not 0 < self.amount < math.inf:
            raise UsageError(f"a budget of {self.amount:g} leaves nothing", "ask for more than 0")

    @classmethod
    def parse(
        cls,
        mode: Mode,
        text: str,
        option: str = "",
        *,
        may_be_whole: bool = False,
        is_share: bool = False,
    ) -> Budget:
        """Read 0.5 or 50% (what remains), -50% (what goes), or a cost such as 60M, 8MB or 12ms.

        Args:
            option: where it was given; by default --flops and so on.
            may_be_whole: 1 is a budget too, though there is nothing to do for it.
            is_share: a cost is none here.

        Raises:
            UsageError: it is none of these, or leaves nothing, or everything.
        """
        bare, option = text.strip(), option or f"--{mode}"
        legal = _SHARES if is_share else _LEGAL[mode]
        if match := re.fullmatch(r"(-?)([0-9]*\.?[0-9]+)(%?)", bare):
            sign, number, percent = match.groups()
            share = float(number) / 100 if percent else float(number)
            if sign and not percent:
                part = share if share <= 1 else share / 100
                raise UsageError(
                    f"{option} {bare} is less than nothing",
                    f"to remove {part:.4g}, say -{100 * part:.4g}%",
                )
            if percent or share <= 1 or "." in number:
                share = 1 - share if sign else share
                if not 0 < share < 1 and not (share == 1 and may_be_whole):
                    rest = "everything" if share >= 1 else "nothing"
                    raise UsageError(f"{option} {bare} leaves {rest}", legal)
                return cls(mode, share)
        if is_share:
            raise UsageError(f"{option} {bare!r} is no share of the {UNITS[mode]}", legal)
        return cls(mode, _cost(mode, bare, option), relative=False)

    def target(self, original: Cost) -> float:
        """What may remain, of a cost that the file tells."""
        assert self.mode != "latency"
        return self.of(measured(original, self.mode))

    def of(self, whole: float) -> float:
        """What may remain of a model that costs so much; of time in milliseconds."""
        return self.amount * whole if self.relative else self.amount

    def __str__(self) -> str:
        if self.relative:
            return f"{100 * self.amount:.4g}% of the {UNITS[self.mode]}"
        return cost_text(self.amount, self.mode)


_SHARES = "say what remains, such as 0.5 or 50%, or what goes, such as -30%"
_LEGAL: dict[Mode, str] = {
    "flops": f"{_SHARES}, or FLOPs, such as 60M",
    "params": f"{_SHARES}, or parameters, such as 500k",
    "memory": f"{_SHARES}, or bytes, such as 8MB",
    "latency": f"{_SHARES}, or a time, such as 12ms",
}


def _cost(mode: Mode, text: str, option: str) -> float:
    """A number such as 60M, 8MB or 12ms, in the unit of the mode."""
    if mode == "latency":
        return _milliseconds(text, option)
    try:
        amount = parse_count(text)
    except UsageError:
        raise UsageError(f"{option} {text!r} is no budget", _LEGAL[mode]) from None
    if mode != "memory" and text[-1] in "bB":
        raise UsageError(f"{option} {text} is a number of bytes", _LEGAL[mode])
    return float(amount)


_IN_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def _milliseconds(text: str, option: str) -> float:
    match = re.fullmatch(r"([0-9]*\.?[0-9]+) ?(us|ms|s)", text)
    if match is None:
        raise UsageError(f"{option} {text!r} is no budget", _LEGAL["latency"])
    return float(match[1]) * _IN_MS[match[2]]


def cost_text(amount: float, mode: Mode) -> str:
    """For a person: 60 M FLOPs, 8 MB."""
    if mode == "latency":
        return f"{amount:.4g} ms"
    if mode == "memory":
        return bytes_text(round(amount))
    return f"{count_text(round(amount))} {UNITS[mode]}"
