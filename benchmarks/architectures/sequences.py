"""Recurrent networks, attention and perceptrons in plain torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from convnets import Block, Case
from torch import Tensor, nn
from torch.nn import functional as F


class Recurrent(nn.Module):
    """A recurrent layer, and a head on what it says at each step."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer
        width = layer.hidden_size * (2 if layer.bidirectional else 1)
        self.head = nn.Sequential(nn.Linear(width, 24), nn.ReLU(), nn.Linear(24, 5))

    def forward(self, input: Tensor) -> Tensor:
        return self.head(self.layer(input)[0])


class ReadText(nn.Module):
    """CRNN: columns of an image, read by recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Block(1, 16), nn.MaxPool2d(2), Block(16, 24), nn.MaxPool2d((2, 1)), Block(24, 32)
        )
        self.layer = nn.LSTM(32 * 4, 24, bidirectional=True, batch_first=True)
        self.last = nn.Linear(48, 11)

    def forward(self, input: Tensor) -> Tensor:
        columns = self.body(input).permute(0, 3, 1, 2).flatten(2)
        return self.last(self.layer(columns)[0]).log_softmax(-1)


class Attention(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, input: Tensor) -> Tensor:
        return self.last(self.norm(input + self.attention(input, input, input)[0]))


class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, kdim=24, vdim=20, batch_first=True)
        self.last = nn.Linear(32, 6)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        told, weights = self.attention(query, key, value)
        return self.last(told), weights


class MixerLayer(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Sequential(nn.Linear(tokens, 24), nn.GELU(), nn.Linear(24, tokens))
        self.along = nn.Sequential(nn.Linear(width, 80), nn.GELU(), nn.Linear(80, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(self.first(x).transpose(1, 2)).transpose(1, 2)
        return x + self.along(self.second(x))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 40, 8, 8)
        self.layers = nn.Sequential(MixerLayer(16, 40), MixerLayer(16, 40), nn.LayerNorm(40))
        self.last = nn.Linear(40, 10)

    def forward(self, input: Tensor) -> Tensor:
        return self.last(self.layers(self.patch(input).flatten(2).transpose(1, 2)).mean(1))


class PointNet(nn.Module):
    """A maximum over points, told to each of them again."""

    def __init__(self) -> None:
        super().__init__()
        self.local = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv1d(16, 48, 1), nn.BatchNorm1d(48), nn.ReLU())
        self.head = nn.Sequential(nn.Conv1d(64, 32, 1), nn.ReLU(), nn.Conv1d(32, 5, 1))

    def forward(self, input: Tensor) -> Tensor:
        local = self.local(input)
        common = self.wide(local).max(2, keepdim=True)[0].expand(-1, -1, local.shape[2])
        return self.head(torch.cat([local, common], 1))


class Recommender(nn.Module):
    """DLRM: numbers and categories as vectors, the products of which go into a perceptron."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.numbers = nn.Sequential(nn.Linear(7, 24), nn.ReLU(), nn.Linear(24, width), nn.ReLU())
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in (20, 30, 40))
        self.head = nn.Sequential(nn.Linear(width + 16, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        first = self.numbers(numbers)
        found = [table(categories[:, i]) for i, table in enumerate(self.tables)]
        rows = torch.stack([first, *found], 1)
        return self.head(torch.cat([first, (rows @ rows.transpose(1, 2)).flatten(1)], 1))


class GraphConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 24, bias=False), nn.Linear(24, 16, bias=False)
        self.offset, self.last = nn.Parameter(torch.zeros(24)), nn.Linear(16, 4)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        x = F.relu(edges @ self.first(nodes) + self.offset)
        return self.last(F.elu(edges @ self.second(x)))


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 64), nn.GLU(),
        nn.Linear(32, 32), nn.LayerNorm(32), nn.SELU(), nn.Linear(32, 3), nn.Softmax(1),
    )  # fmt: skip


def encoder(norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        32, 4, 64, activation="gelu", batch_first=True, norm_first=norm_first
    )
    return nn.TransformerEncoder(layer, 2, nn.LayerNorm(32), enable_nested_tensor=False)


def case(module: nn.Module, *shape: int, name: str = "input") -> Case:
    return module, {name: torch.randn(2, *shape)}


def steps(layer: nn.RNNBase) -> Case:
    return case(Recurrent(layer), 8, 12)


def cross_attention() -> Case:
    shapes = {"query": (2, 6, 32), "key": (2, 9, 24), "value": (2, 9, 20)}
    return CrossAttention(), {name: torch.randn(shape) for name, shape in shapes.items()}


def transformer() -> Case:
    module = nn.Transformer(32, 4, 1, 1, 48, batch_first=True)
    return module, {"src": torch.randn(2, 9, 32), "tgt": torch.randn(2, 6, 32)}


def recommender() -> Case:
    return Recommender(), {
        "numbers": torch.randn(2, 7),
        "categories": torch.randint(0, 20, (2, 3)),
    }


def graph_convolution() -> Case:
    return GraphConvolution(), {"nodes": torch.randn(2, 9, 10), "edges": torch.rand(2, 9, 9) / 4}


ARCHITECTURES: dict[str, Callable[[], Case]] = {
    "lstm": lambda: steps(nn.LSTM(12, 32, batch_first=True)),
    "bilstm": lambda: steps(nn.LSTM(12, 24, 2, batch_first=True, bidirectional=True)),
    "gru": lambda: steps(nn.GRU(12, 32, 2, batch_first=True)),
    "rnn": lambda: steps(nn.RNN(12, 32, batch_first=True)),
    "crnn": lambda: case(ReadText(), 1, 16, 32),
    "attention": lambda: case(Attention(), 9, 32),
    "cross_attention": cross_attention,
    "transformer_encoder": lambda: case(encoder(False), 9, 32, name="src"),
    "transformer_encoder_prenorm": lambda: case(encoder(True), 9, 32, name="src"),
    "transformer": transformer,
    "mixer": lambda: case(Mixer(), 3, 32, 32),
    "perceptron": lambda: case(perceptron(), 20),
    "pointnet": lambda: case(PointNet(), 3, 20),
    "recommender": recommender,
    "graph_convolution": graph_convolution,
}
