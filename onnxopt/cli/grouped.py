"""Options of a command as the fields of a dataclass: one definition, however many commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints


def takes(**groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose parameters of these names are given as the options of these dataclasses.

    The types of the fields, annotated as those of parameters are, say how options are read.
    """

    def decorated(function: Callable[..., None]) -> Callable[..., None]:
        def command(**given: Any) -> None:
            for name, group in groups.items():
                values = {field.name: given.pop(field.name) for field in fields(group)}
                given[name] = group(**values)
            function(**given)

        made = [*_parameters(function, groups)]
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in made}
        return command

    return decorated


def _parameters(
    function: Callable[..., None], groups: dict[str, type]
) -> Iterator[inspect.Parameter]:
    """Those of the function, with the fields of a group in its place."""
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        group = groups.get(parameter.name)
        if group is None:
            yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        hints = get_type_hints(group, include_extras=True)
        for field in fields(group):
            yield inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_default(field),
                annotation=hints[field.name],
            )


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
