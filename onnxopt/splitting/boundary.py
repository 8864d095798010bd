"""From names to a cut: complete the boundary that a user names in part, or say why it is none."""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnxopt.errors import UsageError
from onnxopt.splitting.dag import Dag
from onnxopt.splitting.operators import Subject


@dataclass(frozen=True)
class Boundary:
    """A cut that a user named.

    Attributes:
        device: numbers of the operators on the device.
        crossing: names of all tensors that cross, in the order of the model.
        added: those of them that were not named.
    """

    device: frozenset[int]
    crossing: tuple[str, ...]
    added: tuple[str, ...]


@dataclass(frozen=True)
class _Named:
    """What a name stands for: operators that the device has, tensors of which one must cross."""

    name: str
    operators: frozenset[int]
    tensors: frozenset[int]


def complete(subject: Subject, names: Sequence[str]) -> Boundary:
    """The cut at which what was named crosses, with as few bytes beside it as possible.

    Args:
        names: of tensors or of nodes; of a node what it makes crosses.

    Raises:
        UsageError: a name that is unknown or cannot be cut at; several between which something
            would have to come back from the edge; or something that cannot be sent would have to
            cross.
    """
    dag = subject.dag
    named = [_find(subject, name) for name in names]
    least = before(dag, (o for item in named for o in item.operators))
    crossing = {*dag.crossing(least)}
    for item in named:
        if not item.tensors & crossing:
            raise _way_back(dag, item, least, [n for n in named if n is not item])
    tensors = {tensor for item in named for tensor in item.tensors}
    wider = _closed(dag, least, tensors)
    crossing = {*dag.crossing(wider)}
    exact = all(item.tensors & crossing for item in named)
    device = wider if exact else _cheapest(dag, least, tensors)
    for number in dag.crossing(device):
        tensor = dag.tensors[number]
        if tensor.why_not:
            raise UsageError(
                f"'{tensor.name}' would have to cross, but {tensor.why_not}",
                "`onnxopt split cuts` lists where the model can be cut",
            )
    crosses = tuple(dag.tensors[tensor].name for tensor in dag.crossing(device))
    known = {dag.tensors[tensor].name for item in named for tensor in item.tensors}
    return Boundary(device, crosses, tuple(name for name in crosses if name not in known))


def before(dag: Dag, operators: Iterable[int]) -> frozenset[int]:
    """The operators, and all those whose results they need."""
    found: set[int] = set()
    waiting = [*operators]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            producers = (dag.tensors[tensor].producer for tensor in dag.operators[number].reads)
            waiting += [producer for producer in producers if producer is not None]
    return frozenset(found)


def _find(subject: Subject, name: str) -> _Named:
    dag, graph = subject.dag, subject.proto.graph
    for number, tensor in enumerate(dag.tensors):
        if tensor.name == name:
            if not tensor.readers:
                raise UsageError(
                    f"nothing reads '{name}', so it never crosses: it is an output of the model",
                    "name a tensor that operators at the edge read",
                )
            made = () if tensor.producer is None else (tensor.producer,)
            return _Named(name, frozenset(made), frozenset((number,)))
    places = [place for place, node in enumerate(graph.node) if node.name == name]
    for number, operator in enumerate(dag.operators):
        if name and not set(places).isdisjoint(operator.nodes):
            made_here = {o for place in places for o in graph.node[place].output}
            made_names = [t for t in operator.makes if dag.tensors[t].readers]
            own = [t for t in made_names if dag.tensors[t].name in made_here] or made_names
            if not own:
                raise UsageError(
                    f"nothing reads what the node '{name}' makes: it gives outputs of the model",
                    "name a node that operators at the edge depend on",
                )
            return _Named(name, frozenset((number,)), frozenset(own))
    raise _unknown(subject, name, places)


def _unknown(subject: Subject, name: str, places: Sequence[int]) -> UsageError:
    """Why a name is no place to cut at."""
    dag, graph = subject.dag, subject.proto.graph
    weights = {t.name for t in graph.initializer}
    weights |= {s.values.name for s in graph.sparse_initializer}
    made = {o for place in places for o in graph.node[place].output} | {name}
    if name in weights or made & subject.constants:
        return UsageError(
            f"'{name}' depends on no input: it is copied to whichever side needs it, never sent"
        )
    for operator in dag.operators:
        inner = {o for place in operator.nodes for o in graph.node[place].output}
        if name in inner:
            return UsageError(
                f"'{name}' lies inside of the operators that stay with '{operator.name}'",
                f"cut at '{operator.name}'",
            )
    known = [t.name for t in dag.tensors if t.readers] + [o.name for o in dag.operators]
    if places or any(name in node.output for node in graph.node):
        return UsageError(f"no output of the model needs '{name}', so neither half has it")
    close = difflib.get_close_matches(name, dict.fromkeys(known), n=3)
    return UsageError(
        f"the model has no node or tensor '{name}'",
        "did you mean " + " or ".join(f"'{other}'" for other in close) + "?"
        if close
        else "`onnxopt split cuts MODEL --json` lists the tensors that can cross",
    )


def _way_back(
    dag: Dag, item: _Named, device: frozenset[int], others: Sequence[_Named]
) -> UsageError:
    """All that reads a named tensor is needed for another one: the path from it to that."""
    goals = {operator: other.name for other in others for operator in other.operators}
    came: dict[int, tuple[int | None, int]] = {}
    waiting: deque[int] = deque()
    for tensor in sorted(item.tensors):
        for reader in dag.tensors[tensor].readers:
            if reader not in came:
                came[reader] = (None, tensor)
                waiting.append(reader)
    while waiting:
        operator = waiting.popleft()
        if operator in goals:
            path = _path(dag, operator, came)
            return UsageError(
                f"'{item.name}' and '{goals[operator]}' cannot both be sent: what the edge makes "
                f"of '{item.name}' would have to come back to the device: "
                f"{' -> '.join(path)} -> '{goals[operator]}'",
                f"name '{item.name}' or '{goals[operator]}', not both",
            )
        for tensor in dag.operators[operator].makes:
            for reader in dag.tensors[tensor].readers:
                if reader in device and reader not in came:
                    came[reader] = (operator, tensor)
                    waiting.append(reader)
    raise AssertionError(item.name)


def _path(dag: Dag, operator: int, came: dict[int, tuple[int | None, int]]) -> list[str]:
    """Tensors and operators from where the search began, for a person."""
    path: list[str] = []
    at: int | None = operator
    while at is not None:
        described = dag.operators[at]
        at, tensor = came[at]
        path += [f"{described.op} '{described.name}'", f"'{dag.tensors[tensor].name}'"]
    return path[::-1]


def _closed(dag: Dag, least: frozenset[int], named: set[int]) -> frozenset[int]:
    """The smallest cut at which nothing else crosses; perhaps not all that is named, either."""
    device: set[int] = set()
    waiting = [*least]
    for number, tensor in enumerate(dag.tensors):
        if tensor.producer is None and number not in named:
            waiting += tensor.readers
    while waiting:
        number = waiting.pop()
        if number in device:
            continue
        device.add(number)
        operator = dag.operators[number]
        producers = (dag.tensors[tensor].producer for tensor in operator.reads)
        waiting += [producer for producer in producers if producer is not None]
        waiting += [r for t in operator.makes if t not in named for r in dag.tensors[t].readers]
    return frozenset(device)


def _cheapest(dag: Dag, least: frozenset[int], named: set[int]) -> frozenset[int]:
    """A cut with `least` on the device at which all that was named and can cross does.

    Operators that need nothing from beyond the cut may be on either side: each group of them that
    hangs together goes where fewer bytes cross.
    """
    beyond = {r for tensor in named for r in dag.tensors[tensor].readers if r not in least}
    for number, operator in enumerate(dag.operators):
        if any(dag.tensors[t].producer in beyond for t in operator.reads):
            beyond.add(number)
    free = [n for n in range(len(dag.operators)) if n not in least and n not in beyond]
    best = least
    for groups in (_groups(dag, free, by_source=False), _groups(dag, free, by_source=True), [free]):
        for group in groups:
            wider = best | frozenset(group)
            if _price(dag, wider) < _price(dag, best):
                best = wider
    return best


def _price(dag: Dag, device: frozenset[int]) -> tuple[int, int, int]:
    crossing = [dag.tensors[tensor] for tensor in dag.crossing(device)]
    return (
        sum(bool(tensor.why_not) for tensor in crossing),
        sum(tensor.size_bytes for tensor in crossing),
        len(crossing),
    )


def _groups(dag: Dag, operators: Sequence[int], *, by_source: bool) -> list[list[int]]:
    """Operators that hang together by what one makes and another reads.

    Args:
        by_source: or by what several read.
    """
    own = set(operators)
    found: dict[int, list[int]] = {number: [number] for number in operators}
    for tensor in dag.tensors:
        linked = [reader for reader in tensor.readers if reader in own]
        if tensor.producer in own:
            linked.append(tensor.producer)
        elif not by_source:
            continue
        for other in linked[1:]:
            first, second = found[linked[0]], found[other]
            if first is not second:
                first += second
                found.update((number, first) for number in second)
    return [group for number, group in found.items() if group[0] == number]
