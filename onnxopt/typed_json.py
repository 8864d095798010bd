"""Read what JSON gives as typed objects: what is missing, unknown or of another type is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def typed(kind: Any, value: object, where: str) -> Any:
    """The value as an object of this type.

    Args:
        kind: a dataclass, Literal, tuple[X, ...], Mapping[str, X], X | None, bool, int, float or
            str.
        where: its place in the file, for a person.

    Raises:
        ValueError: it is of another type, or a dataclass has a field too many or too few.
        OverflowError: a whole number is too large for a float.
    """
    if is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        return _one_of(arguments, value, where)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(typed(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {name: typed(arguments[1], item, f"{where}.{name}") for name, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise ValueError(f"{where} is {_other_than(kind)}")


def _one_of(arguments: tuple[Any, ...], value: object, where: str) -> Any:
    """Of `X | None`, or of plain types such as `int | str | None`."""
    if type(value) in arguments:
        return value
    kinds = [kind for kind in arguments if kind is not NoneType]
    if len(kinds) == 1:
        return typed(kinds[0], value, where)
    raise ValueError(f"{where} is none of {', '.join(kind.__name__ for kind in kinds)}")


def _object(kind: type, value: object, where: str) -> Any:
    hints, names = get_type_hints(kind), {field.name for field in fields(kind)}
    if not isinstance(value, dict):
        raise ValueError(f"{where} holds no fields")
    for wrong in sorted(names ^ value.keys()):
        raise ValueError(f"{where} has {'no' if wrong in names else 'an unknown'} '{wrong}'")
    return kind(**{name: typed(hints[name], value[name], f"{where}.{name}") for name in names})


def _other_than(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return f"none of {', '.join(map(str, get_args(kind)))}"
    named = {tuple: "list", Mapping: "object", int: "whole number", float: "number", str: "text"}
    return f"no {named.get(origin or kind, 'truth value')}"
