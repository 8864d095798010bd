"""What a pass is: a frozen dataclass whose fields are its options."""

from __future__ import annotations

from typing import ClassVar, Protocol

from onnxopt.changes import Ledger, Numerics
from onnxopt.model import Model


class Pass(Protocol):
    """Edits a working copy of the model and books each change with the ledger.

    Attributes:
        name: what `--skip` and `--only` call it.
        numerics: the weakest promise among its changes.
    """

    name: ClassVar[str]
    numerics: ClassVar[Numerics]

    def __call__(self, model: Model, ledger: Ledger) -> None: ...
