"""An answer of HTTP/1.1 as the bytes that leave."""

from __future__ import annotations

from onnxopt.splitting.endpoint import Answer
from onnxopt.splitting.http_head import END

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def answer_bytes(answer: Answer, keep_alive: bool, with_body: bool) -> bytes:
    """The answer as one piece, so that it leaves in one flush."""
    lines = [f"HTTP/1.1 {answer.status} {REASONS[answer.status]}"]
    headers = {**answer.message.headers, **answer.headers}
    if answer.status == 503:
        headers["Retry-After"] = "1"
    headers["Connection"] = "keep-alive" if keep_alive else "close"
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode("latin-1") + END
    return b"".join((head, answer.message.header, *answer.message.data)) if with_body else head
