"""`python -m onnxopt` is the command `onnxopt`."""

from onnxopt.cli import main

main()
