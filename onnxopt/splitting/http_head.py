"""The head of a request of HTTP/1.1: read strictly, since whatever is ambiguous is an attack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from onnxopt.splitting.protocol import JSON_LENGTH
from onnxopt.splitting.tensors import ProtocolError

END = b"\r\n\r\n"

_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,2000}) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~\t\x80-\xff]*?)[ \t]*")
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Head:
    """Request line and headers.

    Attributes:
        path: without query.
        length: of the body in bytes.
        json_length: of the JSON object in the body; None if the head does not say.
        keep_alive: the client may send another request over this connection.
        expects_continue: it waits for a word before it sends the body.
    """

    method: str
    path: str
    length: int
    json_length: int | None
    keep_alive: bool
    expects_continue: bool


def parse_head(raw: bytes) -> Head:
    """Read a head, which ends before `END`.

    Raises:
        ProtocolError: it is none, or asks for something that this server does not do.
    """
    lines = raw.split(b"\r\n")
    request = _LINE.fullmatch(lines[0])
    if request is None:
        raise ProtocolError("that is no request of HTTP/1.1")
    fields = _fields(lines[1:])
    _refuse_codings(fields)
    minor = request[3]
    connection = fields.get("connection", "").lower()
    keep_alive = connection != "close" and (minor == b"1" or connection == "keep-alive")
    length = _number(fields, "content-length")
    json_length = _number(fields, JSON_LENGTH.lower())
    if length is None and request[1] == b"POST":
        raise ProtocolError("the request has no Content-Length", status=411)
    if json_length is not None and json_length > (length or 0):
        raise ProtocolError(f"{JSON_LENGTH} is {json_length}, but the body has {length or 0} bytes")
    return Head(
        request[1].decode(),
        request[2].partition(b"?")[0].decode(),
        length or 0,
        json_length,
        keep_alive,
        fields.get("expect", "").lower() == "100-continue",
    )


def _fields(lines: list[bytes]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise ProtocolError("the request has a header that is none")
        name = field[1].decode().lower()
        if name in fields and name in ("content-length", JSON_LENGTH.lower(), "transfer-encoding"):
            raise ProtocolError(f"the request has two headers {name}")
        fields[name] = field[2].decode("latin-1")
    return fields


def _refuse_codings(fields: Mapping[str, str]) -> None:
    if "transfer-encoding" in fields:
        raise ProtocolError("a body in chunks is not taken; send its Content-Length", status=411)
    if fields.get("content-encoding", "identity").lower() != "identity":
        raise ProtocolError("a compressed body is not taken", status=415)


def _number(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise ProtocolError(f"the header {name} is no number of bytes")
    return int(text)
