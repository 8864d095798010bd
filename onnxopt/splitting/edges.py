"""The edge that a URL names: by REST or, where that is installed, by gRPC."""

from __future__ import annotations

from onnxopt.splitting.edge import Edge
from onnxopt.splitting.edge_http import HttpEdge
from onnxopt.splitting.probing import Prober


def connect(url: str, *, split: str, connect_s: float) -> Edge:
    """An edge for this URL; nothing is sent before the first request.

    Args:
        split: see `folder.split_digest`; sent to an edge of ours, so that it can refuse.

    Raises:
        UsageError: it is no URL of an edge, or what it needs is not installed.
    """
    if url.startswith("grpc://"):
        from onnxopt.splitting.edge_grpc import GrpcEdge

        return GrpcEdge(url, split=split, connect_s=connect_s)
    return HttpEdge(url, split=split, connect_s=connect_s)


def prober(url: str, *, connect_s: float) -> Prober | None:
    """What probes the link to this URL; None where that speaks gRPC, which has nothing for it."""
    if url.startswith("grpc://"):
        return None
    return Prober(HttpEdge(url, connect_s=connect_s))
