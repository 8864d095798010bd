"""Sizes for dimensions that the model leaves open: which symbols there are, what to try."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from onnxopt.signature import Dim, Port

Slot: TypeAlias = tuple[str, int]
"""Name of an input and axis."""

Sizes: TypeAlias = dict[str, int]
"""Size by symbol."""

Role: TypeAlias = Literal["batch", "image", "channel", "length"]

LADDERS: dict[Role, tuple[int, ...]] = {
    "batch": (1, 2, 3, 4, 8),
    "image": (64, 224, 32, 128, 256, 96, 320, 512, 28, 416, 640, 48, 227, 300),
    "channel": (3, 1, 4, 8, 16, 32, 64),
    "length": (8, 64, 4, 512, 1, 2, 3, 16, 32, 256, 128, 5, 7, 10, 24, 80, 100, 224),
}

LONG = (1024, 2000, 4000, 16000)
"""Lengths to try for one symbol at a time only: all together could take much memory."""

_PLACEHOLDER = re.compile(r"|None|\?|-1|unk__\d+|N/?A|dynamic|unknown", re.IGNORECASE)
_BATCH = re.compile(r"batch.*|.*batch|.*batch_?size|n|b|bs", re.IGNORECASE)

RANKS_TO_TRY = (2, 1, 4, 3, 0)
"""For inputs whose rank the file does not say."""


@dataclass(frozen=True)
class Symbols:
    """The open dimensions of a model, those that must agree under one symbol.

    Attributes:
        shapes: the dimensions of each input, open ones by their symbol.
        roles: what each symbol probably counts.
        slots: where each symbol stands.
    """

    shapes: dict[str, tuple[int | str, ...]]
    roles: dict[str, Role]
    slots: dict[str, list[Slot]]

    def shape(self, name: str, sizes: Sizes) -> tuple[int, ...]:
        return tuple(
            d if isinstance(d, int) else max(_evaluate(d, sizes), 0) for d in self.shapes[name]
        )

    def label(self, symbol: str) -> str:
        """For a person: the symbol as the file has it, or the first place where it stands."""
        name, axis = self.slots[symbol][0]
        return f"{name}[{axis}]" if symbol.startswith("\0") else symbol


def find_symbols(ports: Sequence[Port], *, apart: bool, rank: int) -> Symbols:
    """The open dimensions of some inputs.

    Args:
        apart: placeholders ('None', '?', no name) are all different; otherwise those of the same
            axis are the same.
        rank: for inputs of unknown rank.
    """
    shapes: dict[str, tuple[int | str, ...]] = {}
    roles: dict[str, Role] = {}
    slots: dict[str, list[Slot]] = {}
    for port in ports:
        dims: tuple[Dim, ...] = port.dims if port.dims is not None else (None,) * rank
        symbols: list[int | str] = []
        for axis, dim in enumerate(dims):
            if isinstance(dim, int):
                symbols.append(dim)
                continue
            symbol = dim or ""
            if _PLACEHOLDER.fullmatch(symbol):
                symbol = f"\0{port.name}.{axis}" if apart else f"\0{axis}"
            symbols.append(symbol)
            for part in _parts(symbol):
                roles.setdefault(part, _role(part, axis, dims))
                slots.setdefault(part, []).append((port.name, axis))
        shapes[port.name] = tuple(symbols)
    return Symbols(shapes, roles, slots)


def has_placeholders(ports: Sequence[Port]) -> bool:
    """Whether trying placeholders apart makes a difference."""
    return any(
        not isinstance(dim, int) and _PLACEHOLDER.fullmatch(dim or "")
        for port in ports
        for dim in (port.dims if port.dims is not None else (None,))
    )


_NODES = (ast.Expression, ast.BinOp, ast.Name, ast.Load, ast.Constant)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv)


def _tree(symbol: str) -> ast.Expression | None:
    """A symbol such as 'past + length' or '2*n' taken apart; None if it is a plain name."""
    if symbol.startswith("\0") or symbol.isidentifier():
        return None
    try:
        tree = ast.parse(symbol, mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return None
    legal = all(isinstance(node, _NODES + _OPERATORS) for node in ast.walk(tree))
    return tree if legal else None


def _parts(symbol: str) -> list[str]:
    """The symbols that a symbol is computed from; usually itself."""
    tree = _tree(symbol)
    if tree is None:
        return [symbol]
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _evaluate(symbol: str, sizes: Sizes) -> int:
    tree = _tree(symbol)
    return sizes[symbol] if tree is None else _value(tree.body, sizes)


def _value(node: ast.expr, sizes: Sizes) -> int:
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, sizes), _value(node.right, sizes)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        return left * right if isinstance(node.op, ast.Mult) else left // max(right, 1)
    number = node.value if isinstance(node, ast.Constant) else 0
    return number if isinstance(number, int) else 0


def _role(name: str, axis: int, dims: Sequence[Dim]) -> Role:
    if len(dims) > 1 and (axis == 0 or _BATCH.fullmatch(name)):
        return "batch"
    if len(dims) < 4:
        return "length"
    if axis == 1 and dims[-1] not in (1, 2, 3, 4):
        return "channel"
    return "image"


def base_sizes(symbols: Symbols) -> Iterator[Sizes]:
    """Sizes to try, likeliest first, until the model runs."""
    roles = symbols.roles
    if not roles:
        yield {}
        return
    seen: set[tuple[int, ...]] = set()
    ladders = (_together(roles, 2), _sums(roles), _like_others(symbols), _together(roles, None))
    for sizes in itertools.chain(*ladders, _one_by_one(roles), _batches(roles)):
        key = tuple(sizes.values())
        if key not in seen:
            seen.add(key)
            yield sizes


def _together(roles: dict[str, Role], steps: int | None) -> Iterator[Sizes]:
    """All symbols of a role at the same size."""
    for step in range(steps or max(len(ladder) for ladder in LADDERS.values())):
        for batch in (1, 2):
            sizes = {symbol: _rung(role, step) for symbol, role in roles.items()}
            sizes.update((s, batch) for s, role in roles.items() if role == "batch")
            yield sizes


def _sums(roles: dict[str, Role]) -> Iterator[Sizes]:
    """One symbol the sum of two others: a length with a past and a present part."""
    lengths = [symbol for symbol, role in roles.items() if role == "length"]
    for total in lengths:
        for first, second in itertools.combinations([s for s in lengths if s != total], 2):
            sizes = {symbol: _rung(role, 0) for symbol, role in roles.items()}
            yield {**sizes, first: 3, second: 5, total: 8}


def _like_others(symbols: Symbols) -> Iterator[Sizes]:
    """Open dimensions as large as those of an input that has as many, all fixed."""
    fixed = [s for s in symbols.shapes.values() if all(isinstance(d, int) for d in s)]
    sizes = {symbol: _rung(role, 0) for symbol, role in symbols.roles.items()}
    for shape, other in itertools.product(symbols.shapes.values(), fixed):
        if len(shape) == len(other) and shape != other:
            pairs = zip(shape, other, strict=True)
            yield {**sizes, **{s: int(d) for s, d in pairs if isinstance(s, str) and s in sizes}}


def _one_by_one(roles: dict[str, Role]) -> Iterator[Sizes]:
    """All symbols at 1, or at the first rung, but one."""
    for chosen, role in roles.items():
        for size in LADDERS[role] + (LONG if role == "length" else ()):
            yield {s: size if s == chosen else 1 for s in roles}
            yield {s: size if s == chosen else _rung(r, 0) for s, r in roles.items()}


def _batches(roles: dict[str, Role]) -> Iterator[Sizes]:
    for batch, step in itertools.product((3, 4, 8), range(8)):
        sizes = {symbol: _rung(role, step) for symbol, role in roles.items()}
        sizes.update((s, batch) for s, role in roles.items() if role == "batch")
        yield sizes


def _rung(role: Role, step: int) -> int:
    if role == "channel":
        step //= 4
    ladder = LADDERS[role]
    return ladder[min(step, len(ladder) - 1)]


def other_sizes(base: int) -> tuple[int, ...]:
    """Sizes to try for a symbol that ran at `base`, until it ran at 1 and two others."""
    near = (base + 1, base + 32, 2 * base)
    ladder: tuple[int, ...] = (1, *near, 3, 2, base + 2, 5, 7, 16, 3 * base, 64, 256)
    if base < 4:
        ladder = (1, 2, 3, *ladder)
    return tuple(dict.fromkeys(size for size in ladder if size != base))
