"""What was done and what was not: Change, the atom of every report, and the Ledger granting it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Numerics = Literal["exact", "rounding", "lossy"]
"""exact: bit for bit. rounding: the same algebra in another order. lossy: another function."""


@dataclass(frozen=True)
class Change:
    """One rewrite that was made, or one that matched and was not made.

    Attributes:
        by: name of the rule or pass.
        site: the node or value it is about, as a person would name it.
        what: for a rewrite that was made: what became of the site. Otherwise the reason.
        numerics: what it does to the numbers.
        done: made, or declined.
    """

    by: str
    site: str
    what: str
    numerics: Numerics = "exact"
    done: bool = True


@dataclass
class Ledger:
    """Grants rewrites one at a time and keeps the books.

    Every rewrite asks `grant` first. That makes a run cut off after n rewrites repeatable, which is
    how the guilty one is found by bisection when verification fails.

    Attributes:
        fuel: how many rewrites may be made; None for no limit.
        withdrawn: (by, site) of rewrites that may not be made, with the reason; the site "*"
            stands for all of a rule or pass.
        changes: what was done, in order, then (see `declined`) what was not.
    """

    fuel: int | None = None
    withdrawn: dict[tuple[str, str], str] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    _declined: dict[tuple[str, str], Change] = field(default_factory=dict)

    def grant(self, by: str, site: str, what: str, numerics: Numerics = "exact") -> bool:
        """Whether this rewrite may be made now; if so it is booked as made."""
        reason = self.withdrawn.get((by, site)) or self.withdrawn.get((by, "*"))
        if reason is not None:
            self.decline(by, site, reason)
            return False
        if self.fuel is not None and len(self.changes) >= self.fuel:
            return False
        self.changes.append(Change(by, site, what, numerics))
        self._declined.pop((by, site), None)
        return True

    def decline(self, by: str, site: str, why: str) -> None:
        """Book a rewrite that matched and was not made; the last reason for a site is kept."""
        self._declined[by, site] = Change(by, site, why, done=False)

    @property
    def declined(self) -> list[Change]:
        return list(self._declined.values())

    @property
    def numerics(self) -> Numerics:
        """The weakest promise among the rewrites made."""
        return weakest(change.numerics for change in self.changes)


def weakest(kinds: Iterable[Numerics]) -> Numerics:
    found = set(kinds)
    if "lossy" in found:
        return "lossy"
    return "rounding" if "rounding" in found else "exact"
