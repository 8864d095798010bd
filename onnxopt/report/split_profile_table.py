"""What `split profile` tells, as a terminal shows it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from onnxopt.profiling.document import Spread
from onnxopt.quantities import seconds_text
from onnxopt.report.table import plain_table
from onnxopt.splitting.profile_file import SplitProfile

LONGEST = 48
"""Characters of a name in a table."""


def split_profile_table(profile: SplitProfile) -> RenderableType:
    """The whole model, both sides of each cut beside it, codecs, and whether to trust it."""
    whole = profile.whole_us.median
    machine = profile.machine
    facts = [
        ("machine", f"{machine.processor}, {profile.settings.threads} of {machine.cores} cores"),
        ("whole model", f"{_us(whole)}, quartiles {_spread(profile.whole_us)}"),
        ("kernels placed", f"{profile.placed:.0%} of their time"),
        (
            "unfused layers",
            f"{_us(sum(profile.unfused_us))}, {sum(profile.unfused_us) / whole:.2f} of the whole",
        ),
    ]
    rows = []
    for cut in profile.cuts:
        sides = [side for side in (cut.prefix_us, cut.suffix_us) if side is not None]
        both = sum(side.median for side in sides)
        rows.append(
            (
                tensors_text(cut.tensors),
                *(_us(s.median) if s is not None else "-" for s in (cut.prefix_us, cut.suffix_us)),
                f"{both / whole:.3f}",
            )
        )
    codecs = [
        (
            entry.codec,
            f"{_us(entry.encode_us)} + {_us(entry.encode_us_per_mb)}/MB",
            f"{_us(entry.decode_us)} + {_us(entry.decode_us_per_mb)}/MB",
        )
        for entry in profile.codecs
    ]
    trust = "the machine was quiet" if profile.noise.trusted else f"noisy: {profile.noise.why}"
    lines = [Text(line, overflow="fold") for line in (*profile.notes, trust)]
    if not profile.noise.trusted:
        lines[-1].stylize("bold yellow")
    return Group(
        plain_table((profile.source or "model", ""), facts, left=2),
        plain_table(("cut at", "before", "behind", "both / whole"), rows),
        plain_table(("codec", "encode", "decode"), codecs),
        *lines,
    )


def tensors_text(names: tuple[str, ...], longest: int = LONGEST) -> str:
    """The tensors that cross, for a person."""
    if not names:
        return "-"
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    room = longest - len(more)
    first = names[0] if len(names[0]) <= room else "..." + names[0][3 - room :]
    return first + more


def _us(us: float) -> str:
    return seconds_text(us / 1e6)


def _spread(spread: Spread) -> str:
    return f"{_us(spread.low)} to {_us(spread.high)} in {spread.count} runs"
