"""What ONNX Runtime and onnx say of an error, in one line."""

from __future__ import annotations

import re

_NOISE = (
    (re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "), ""),
    (
        re.compile(r"(Fatal error|Exception during initialization|Load model from \S+ failed):\s*"),
        "",
    ),
    (re.compile(r"(?:/[\w.+-]+)*/?\b[\w.+-]+\.(?:cc|h|cpp|hpp):\d+\s+"), ""),
    (
        re.compile(r"(?:[\w:&*]+ )?onnxruntime::[\w:<>]+\([^()]*\)(?: const)?(?:::<lambda\(\)>)? "),
        "",
    ),
    (re.compile(r"Stacktrace:.*", re.DOTALL), ""),
    (re.compile(r"==> Context:.*", re.DOTALL), ""),
    (re.compile(r"Non-zero status code returned while running "), "running "),
    (re.compile(r"Name:'' Status Message: "), ""),
    (re.compile(r"This is an invalid model\. "), ""),
)

LONGEST_MESSAGE = 300


def clean_message(error: Exception) -> str:
    """One line of an error of ONNX Runtime or onnx: no codes, no source paths, no traces."""
    text = str(error)
    for pattern, replacement in _NOISE:
        text = pattern.sub(replacement, text)
    text = " ".join(text.split()).strip(" .")
    if len(text) > LONGEST_MESSAGE:
        text = text[: LONGEST_MESSAGE - 3] + "..."
    return text or type(error).__name__
