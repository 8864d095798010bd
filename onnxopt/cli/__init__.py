"""The command line: one file a command; each reads its options, calls the library and prints."""

from onnxopt.cli.main import main

__all__ = ["main"]
