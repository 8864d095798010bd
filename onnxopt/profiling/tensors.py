"""Types and shapes of what kernels read and make, as short texts: float[1,16,32,32]."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod

_TEXT = re.compile(r"(\w+)\[([\d,]*)\]")

_ITEM_BYTES = {"float": 4, "double": 8, "float16": 2, "bfloat16": 2, "bool": 1}


def tensor_text(kind: str, dims: Sequence[int]) -> str:
    return f"{kind}[{','.join(map(str, dims))}]"


def texts_of(shapes: Sequence[Mapping[str, Sequence[int]]]) -> tuple[str, ...]:
    """What ONNX Runtime's profile writes as [{"float": [1, 16]}, ...]."""
    return tuple(tensor_text(kind, dims) for entry in shapes for kind, dims in entry.items())


@lru_cache(maxsize=4096)
def dims_of(text: str) -> tuple[int, ...]:
    """The shape; empty for what is no such text."""
    match = _TEXT.fullmatch(text)
    return tuple(int(d) for d in match[2].split(",") if d) if match else ()


def kind_of(text: str) -> str:
    return text.partition("[")[0]


def bytes_of(text: str) -> int:
    """Memory of such a tensor; the type's name tells the size of an element."""
    kind = kind_of(text)
    bits = re.sub(r"\D", "", kind)
    each = _ITEM_BYTES.get(kind) or (max(int(bits) // 8, 1) if bits else 4)
    return each * prod(dims_of(text))
