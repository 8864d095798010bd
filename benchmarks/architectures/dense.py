"""Networks in plain torch that make images, boxes or masks, and those of one or three axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from convnets import Add, Block, Case, Cat
from torch import Tensor, nn
from torch.nn import functional as F


class CrossStage(nn.Module):
    """C2f: half goes past, the other half through bottlenecks, and every step is kept."""

    def __init__(self, inp: int, out: int, depth: int = 1, add: bool = True) -> None:
        super().__init__()
        half = out // 2
        self.first = Block(inp, out, 1, act=nn.SiLU)
        self.last = Block(half * (2 + depth), out, 1, act=nn.SiLU)
        bodies = [
            nn.Sequential(Block(half, half, act=nn.SiLU), Block(half, half, act=nn.SiLU))
            for _ in range(depth)
        ]
        self.steps = nn.ModuleList(Add(x, nn.Identity()) if add else x for x in bodies)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for step in self.steps:
            parts.append(step(parts[-1]))
        return self.last(torch.cat(parts, 1))


class PoolPyramid(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Block(width, width // 2, 1, act=nn.SiLU)
        self.last = Block(width * 2, width, 1, act=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detect(nn.Module):
    """Boxes as distributions over bins, decoded around the centre of each cell, and classes."""

    def __init__(self, widths: list[int], strides: list[int], classes: int = 5, bins: int = 8):
        super().__init__()
        self.strides, self.classes, self.bins = strides, classes, bins
        self.box = nn.ModuleList(
            nn.Sequential(Block(w, 24, act=nn.SiLU), nn.Conv2d(24, 4 * bins, 1)) for w in widths
        )
        self.label = nn.ModuleList(
            nn.Sequential(Block(w, 16, act=nn.SiLU), nn.Conv2d(16, classes, 1)) for w in widths
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        rows = [
            torch.cat([box(x), label(x)], 1).flatten(2)
            for x, box, label in zip(maps, self.box, self.label, strict=True)
        ]
        boxes, labels = torch.cat(rows, 2).split([4 * self.bins, self.classes], 1)
        n, _, cells = boxes.shape
        shares = boxes.view(n, 4, self.bins, cells).transpose(1, 2).softmax(1)
        bins = torch.arange(self.bins, dtype=torch.float32).view(1, -1, 1, 1)
        low, high = (shares * bins).sum(1).chunk(2, 1)
        points, scale = self.points(maps)
        corners = (points - low, points + high)
        centres = torch.cat([(corners[0] + corners[1]) / 2, corners[1] - corners[0]], 1)
        return torch.cat([centres * scale, labels.sigmoid()], 1)

    def points(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        points, scales = [], []
        for x, stride in zip(maps, self.strides, strict=True):
            height, width = x.shape[2:]
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            points.append(torch.stack([x.flatten(), y.flatten()]) + 0.5)
            scales.append(torch.full((1, height * width), float(stride)))
        return torch.cat(points, 1), torch.cat(scales, 1)


class Yolo(nn.Module):
    """Backbone, a neck that goes up and down again, and a head on two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Block(3, 8, 3, 2, act=nn.SiLU), Block(8, 16, 3, 2, act=nn.SiLU))
        self.fine = nn.Sequential(
            CrossStage(16, 16), Block(16, 32, 3, 2, act=nn.SiLU), CrossStage(32, 32, 2)
        )
        self.coarse = nn.Sequential(
            Block(32, 48, 3, 2, act=nn.SiLU), CrossStage(48, 48), PoolPyramid(48)
        )
        self.up, self.merge_up = nn.Upsample(scale_factor=2), CrossStage(80, 32, add=False)
        self.down = Block(32, 32, 3, 2, act=nn.SiLU)
        self.merge_down = CrossStage(80, 48, add=False)
        self.detect = Detect([32, 48], [8, 16])

    def forward(self, input: Tensor) -> Tensor:
        fine = self.fine(self.stem(input))
        coarse = self.coarse(fine)
        fine = self.merge_up(torch.cat([self.up(coarse), fine], 1))
        return self.detect([fine, self.merge_down(torch.cat([self.down(fine), coarse], 1))])


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(Block(i, o), Block(o, o)) for i, o in [(3, 12), (12, 24), (24, 48)]
        )
        self.rise = nn.ModuleList(nn.ConvTranspose2d(i, i // 2, 2, 2) for i in (48, 24))
        self.up = nn.ModuleList(
            nn.Sequential(Block(i, i // 2), Block(i // 2, i // 2)) for i in (48, 24)
        )
        self.last = nn.Conv2d(12, 4, 1)

    def forward(self, input: Tensor) -> Tensor:
        x, skips = input, []
        for step in self.down[:-1]:
            x = step(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.down[-1](x)
        for rise, up in zip(self.rise, self.up, strict=True):
            x = up(torch.cat([skips.pop(), rise(x)], 1))
        return self.last(x)


class Pyramid(nn.Module):
    """Lateral convolutions, added from coarse to fine; one head shared by all scales."""

    def __init__(self) -> None:
        super().__init__()
        widths = [16, 24, 40]
        self.body = nn.ModuleList(
            Block(i, o, 3, 2) for i, o in zip([3, *widths], widths, strict=False)
        )
        self.side = nn.ModuleList(nn.Conv2d(width, 32, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in widths)
        self.head = nn.Sequential(nn.Conv2d(32, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 6, 1))

    def forward(self, input: Tensor) -> list[Tensor]:
        x, maps = input, []
        for block, side in zip(self.body, self.side, strict=True):
            x = block(x)
            maps.append(side(x))
        for at in (1, 0):
            maps[at] = maps[at] + F.interpolate(maps[at + 1], scale_factor=2.0, mode="nearest")
        return [self.head(smooth(x)) for smooth, x in zip(self.smooth, maps, strict=True)]


class GlobalPool(nn.Module):
    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Conv2d(inp, out, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])


class DeepLab(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Block(3, 16, 3, 2), Block(16, 32, 3, 2), Block(32, 48))
        rates = [Block(48, 16, 3, dilation=rate) for rate in (2, 4)]
        self.context = Cat(Block(48, 16, 1), *rates, GlobalPool(48, 16))
        self.head = nn.Sequential(
            Block(64, 32, 1), nn.Dropout(), Block(32, 24), nn.Conv2d(24, 5, 1)
        )

    def forward(self, input: Tensor) -> Tensor:
        x = self.head(self.context(self.body(input)))
        return F.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)


def espcn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), nn.Tanh(), nn.Conv2d(32, 24, 3, padding=1), nn.Tanh(),
        nn.Conv2d(24, 27, 3, padding=1), nn.PixelShuffle(3),
    )  # fmt: skip


def super_resolution() -> nn.Module:
    """EDSR: residual blocks without normalization, and two steps from depth to space."""

    def block(width: int) -> nn.Module:
        wide = [nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU()]
        return Add(nn.Sequential(*wide, nn.Conv2d(2 * width, width, 3, padding=1)), nn.Identity())

    def double(width: int) -> list[nn.Module]:
        return [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(width)]

    body = Add(nn.Sequential(block(16), block(16)), nn.Identity())
    first, last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 3, 1), first, body, *double(16), last)


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.BatchNorm2d(24),
        nn.ReLU(), nn.Flatten(), nn.Linear(24 * 64, 20), nn.ReLU(), nn.Linear(20, 24 * 64),
        nn.Unflatten(1, (24, 8, 8)), nn.ConvTranspose2d(24, 16, 4, 2, 1), nn.BatchNorm2d(16),
        nn.ReLU(), nn.ConvTranspose2d(16, 16, 3, 1, 1, groups=4), nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Sigmoid(),
    )  # fmt: skip


def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(8, 16, (1, 3, 3), padding=(0, 1, 1)), nn.ReLU(),
        nn.Conv3d(16, 16, (3, 1, 1), padding=(1, 0, 0)), nn.BatchNorm3d(16), nn.ReLU(),
        nn.Conv3d(16, 24, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        nn.Linear(24, 10),
    )  # fmt: skip


class Causal(nn.Module):
    """Convolutions that see only the past: padded on both sides, then cut at the end."""

    def __init__(self, inp: int, out: int, dilation: int) -> None:
        super().__init__()
        self.cut = 2 * dilation
        self.first = nn.Conv1d(inp, out, 3, padding=self.cut, dilation=dilation)
        self.second = nn.Conv1d(out, out, 3, padding=self.cut, dilation=dilation)
        self.short = nn.Conv1d(inp, out, 1) if inp != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x)[:, :, : -self.cut])
        return F.relu(F.relu(self.second(y)[:, :, : -self.cut]) + self.short(x))


class LastStep(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, -1]


def tcn() -> nn.Module:
    steps = [Causal(6, 24, 1), Causal(24, 24, 2), Causal(24, 32, 4)]
    return nn.Sequential(*steps, LastStep(), nn.Linear(32, 5))


class WaveNet(nn.Module):
    """Gates of two halves of one convolution, and sums of what each layer passes on."""

    def __init__(self, width: int = 24, layers: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, width, 1)
        self.wide = nn.ModuleList(
            nn.Conv1d(width, 2 * width, 3, padding=2**i, dilation=2**i) for i in range(layers)
        )
        self.onward = nn.ModuleList(nn.Conv1d(width, 2 * width, 1) for _ in range(layers))
        self.last = nn.Sequential(
            nn.ReLU(), nn.Conv1d(width, 16, 1), nn.ReLU(), nn.Conv1d(16, 8, 1)
        )

    def forward(self, input: Tensor) -> Tensor:
        x, total = self.first(input), None
        for wide, onward in zip(self.wide, self.onward, strict=True):
            value, gate = wide(x).chunk(2, 1)
            more, skip = onward(value.tanh() * gate.sigmoid()).chunk(2, 1)
            x, total = x + more, skip if total is None else total + skip
        return self.last(total)


class Siamese(nn.Module):
    """One network for two images: its weights are read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Block(3, 16, 3, 2), Block(16, 32, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(32, 24),
        )  # fmt: skip
        self.last = nn.Linear(24, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.last((self.body(left) - self.body(right)).abs())


def case(module: nn.Module, *shape: int) -> Case:
    return module, {"input": torch.randn(2, *shape)}


def siamese() -> Case:
    return Siamese(), {"left": torch.randn(2, 3, 32, 32), "right": torch.randn(2, 3, 32, 32)}


ARCHITECTURES: dict[str, Callable[[], Case]] = {
    "yolo": lambda: case(Yolo(), 3, 32, 32),
    "unet": lambda: case(UNet(), 3, 32, 32),
    "pyramid": lambda: case(Pyramid(), 3, 32, 32),
    "deeplab": lambda: case(DeepLab(), 3, 32, 32),
    "espcn": lambda: case(espcn(), 3, 16, 16),
    "super_resolution": lambda: case(super_resolution(), 3, 16, 16),
    "autoencoder": lambda: case(autoencoder(), 3, 32, 32),
    "conv3d": lambda: case(conv3d(), 3, 8, 16, 16),
    "tcn": lambda: case(tcn(), 6, 24),
    "wavenet": lambda: case(WaveNet(), 4, 24),
    "siamese": siamese,
}
