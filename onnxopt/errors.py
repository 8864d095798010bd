"""The errors a user can meet: what happened, how to fix it, and the exit code of the command."""

from __future__ import annotations


class OnnxoptError(Exception):
    """Base of all errors that onnxopt raises on purpose.

    Args:
        what: one line that says what is wrong and where.
        fix: one line that says what to do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = " ".join(what.split())
        self.fix = " ".join(fix.split())

    def __str__(self) -> str:
        return f"{self.what} ({self.fix})" if self.fix else self.what


class CheckError(OnnxoptError):
    """A check, budget or verification failed; nothing was written. Exit code 1."""

    exit_code = 1


class UsageError(OnnxoptError):
    """The request itself makes no sense: unknown name, wrong option. Exit code 2."""

    exit_code = 2


class Interrupted(OnnxoptError):
    """The user interrupted a command (SIGINT). Exit code 130, as shells have it."""

    exit_code = 130


class BadModelError(OnnxoptError):
    """The model file is missing, unreadable or not a valid ONNX model. Exit code 3."""

    exit_code = 3


class UnverifiableError(OnnxoptError):
    """ONNX Runtime cannot run the model here, so equality cannot be shown. Exit code 4."""

    exit_code = 4


def told(error: BaseException) -> str:
    """An error that is not ours, for a person: its kind, and what it says, if anything."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")
