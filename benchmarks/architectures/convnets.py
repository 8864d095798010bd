"""Convolutional networks in plain torch: the structures that users train, a few channels wide."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Case = tuple[nn.Module, dict[str, Tensor]]


class Block(nn.Sequential):
    """Convolution, normalization, activation."""

    def __init__(
        self,
        inp: int,
        out: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        act: Callable[[], nn.Module] | None = nn.ReLU,
        dilation: int = 1,
    ) -> None:
        padding = dilation * (kernel // 2)
        conv = nn.Conv2d(
            inp, out, kernel, stride, padding, groups=groups, dilation=dilation, bias=False
        )
        super().__init__(conv, nn.BatchNorm2d(out), act() if act else nn.Identity())


class Add(nn.Module):
    """The sum of branches that read the same."""

    def __init__(self, *branches: nn.Module, act: nn.Module | None = None) -> None:
        super().__init__()
        self.branches, self.act = nn.ModuleList(branches), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(sum(branch(x) for branch in self.branches))


class Cat(nn.Module):
    """The concatenation of branches that read the same."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, inner: int, gate: Callable[[], nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.down, self.up, self.gate = (
            nn.Conv2d(width, inner, 1),
            nn.Conv2d(inner, width, 1),
            gate(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


def head(width: int, classes: int = 10) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 60), nn.Tanh(), nn.Linear(60, 42), nn.Tanh(),
        nn.Linear(42, 10),
    )  # fmt: skip


def alexnet() -> nn.Module:
    """Without normalization, so that each convolution is followed by its activation alone."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
        nn.Conv2d(24, 48, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(48, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10),
    )  # fmt: skip


def vgg() -> nn.Module:
    return nn.Sequential(
        Block(3, 16), Block(16, 16), nn.MaxPool2d(2), Block(16, 32), Block(32, 32),
        nn.MaxPool2d(2), Block(32, 48), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48 * 16, 64),
        nn.ReLU(), nn.Dropout(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def resnext() -> nn.Module:
    def bottleneck(inp: int, out: int, stride: int) -> nn.Module:
        inner = out // 2
        same = stride == 1 and inp == out
        return Add(
            nn.Sequential(
                Block(inp, inner, 1),
                Block(inner, inner, 3, stride, groups=8),
                Block(inner, out, 1, act=None),
            ),
            nn.Identity() if same else Block(inp, out, 1, stride, act=None),
            act=nn.ReLU(),
        )

    blocks = [bottleneck(16, 64, 1), bottleneck(64, 64, 1), bottleneck(64, 96, 2)]
    return nn.Sequential(Block(3, 16), *blocks, *head(96))


def se_resnet() -> nn.Module:
    def basic(inp: int, out: int, stride: int) -> nn.Module:
        return Add(
            nn.Sequential(
                Block(inp, out, 3, stride), Block(out, out, act=None), SqueezeExcite(out, out // 4)
            ),
            nn.Identity() if inp == out else Block(inp, out, 1, stride, act=None),
            act=nn.ReLU(),
        )

    blocks = [basic(16, 16, 1), basic(16, 32, 2), basic(32, 32, 1)]
    return nn.Sequential(Block(3, 16), nn.MaxPool2d(3, 2, 1), *blocks, *head(32))


def preact_resnet() -> nn.Module:
    """Normalization before each convolution: it cannot be folded into one."""

    def unit(width: int) -> nn.Module:
        half = [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        rest = [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        return Add(nn.Sequential(*half, *rest), nn.Identity())

    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), unit(24), unit(24), nn.Conv2d(24, 40, 1, 2), unit(40),
        nn.BatchNorm2d(40), nn.ReLU(), *head(40),
    )  # fmt: skip


class CifarUnit(nn.Module):
    """A shortcut without weights: every other pixel, padded with channels of zeros."""

    def __init__(self, inp: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Block(inp, out, 3, stride), Block(out, out, act=None))
        self.stride, self.pad = stride, (out - inp) // 2

    def forward(self, x: Tensor) -> Tensor:
        short = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.pad:
            short = F.pad(short, (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(self.body(x) + short)


def cifar_resnet() -> nn.Module:
    units = [CifarUnit(16, 16, 1), CifarUnit(16, 32, 2), CifarUnit(32, 32, 1), CifarUnit(32, 64, 2)]
    return nn.Sequential(Block(3, 16), *units, *head(64))


class Res2(nn.Module):
    """Groups of channels, each of which reads the one before it."""

    def __init__(self, width: int, parts: int = 4) -> None:
        super().__init__()
        part = width // parts
        self.first, self.last = Block(width, width, 1), Block(width, width, 1, act=None)
        self.inner = nn.ModuleList(Block(part, part) for _ in range(parts - 1))

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.first(x).chunk(len(self.inner) + 1, 1)
        done = [first]
        for block, part in zip(self.inner, others, strict=True):
            done.append(block(part + done[-1] if len(done) > 1 else part))
        return F.relu(self.last(torch.cat(done, 1)) + x)


def res2net() -> nn.Module:
    return nn.Sequential(Block(3, 32, 3, 2), Res2(32), Block(32, 48, 3, 2), Res2(48), *head(48))


def densenet() -> nn.Module:
    def layer(width: int, growth: int = 12) -> nn.Module:
        return Cat(
            nn.Identity(),
            nn.Sequential(
                nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 24, 1, bias=False),
                nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, growth, 3, padding=1, bias=False),
            ),
        )  # fmt: skip

    return nn.Sequential(
        Block(3, 16, 3, 2), layer(16), layer(28), layer(40), nn.BatchNorm2d(52), nn.ReLU(),
        nn.Conv2d(52, 26, 1, bias=False), nn.AvgPool2d(2), layer(26), layer(38),
        nn.BatchNorm2d(50), nn.ReLU(), *head(50),
    )  # fmt: skip


def inception() -> nn.Module:
    def mixed(inp: int) -> nn.Module:
        return Cat(
            Block(inp, 16, 1),
            nn.Sequential(Block(inp, 12, 1), Block(12, 16)),
            nn.Sequential(Block(inp, 8, 1), Block(8, 12), Block(12, 12)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), Block(inp, 8, 1)),
        )

    stem = [Block(3, 16, 3, 2), Block(16, 24)]
    return nn.Sequential(*stem, mixed(24), nn.MaxPool2d(2), mixed(52), *head(52))


def squeezenet() -> nn.Module:
    def fire(inp: int, inner: int, out: int) -> list[nn.Module]:
        wide = nn.Conv2d(inner, out, 3, padding=1)
        return [
            nn.Conv2d(inp, inner, 1),
            nn.ReLU(),
            Cat(nn.Sequential(nn.Conv2d(inner, out, 1), nn.ReLU()), nn.Sequential(wide, nn.ReLU())),
        ]

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), *fire(16, 8, 16),
        *fire(32, 8, 16), nn.MaxPool2d(2), *fire(32, 12, 24), nn.Dropout(), nn.Conv2d(48, 10, 1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def mobilenet_v3() -> nn.Module:
    def inverted(inp: int, wide: int, out: int, stride: int, hard: bool, se: bool) -> nn.Module:
        act = nn.Hardswish if hard else nn.ReLU
        body = nn.Sequential(
            Block(inp, wide, 1, act=act),
            Block(wide, wide, 3 + 2 * se, stride, groups=wide, act=act),
            SqueezeExcite(wide, wide // 4, nn.Hardsigmoid) if se else nn.Identity(),
            Block(wide, out, 1, act=None),
        )
        return Add(body, nn.Identity()) if stride == 1 and inp == out else body

    return nn.Sequential(
        Block(3, 16, 3, 2, act=nn.Hardswish), inverted(16, 16, 16, 1, False, True),
        inverted(16, 48, 24, 2, False, False), inverted(24, 64, 24, 1, False, False),
        inverted(24, 64, 32, 2, True, True), inverted(32, 96, 32, 1, True, True),
        Block(32, 96, 1, act=nn.Hardswish), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(96, 64), nn.Hardswish(), nn.Dropout(), nn.Linear(64, 10),
    )  # fmt: skip


class Shuffle(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        grouped = x.view(n, self.groups, c // self.groups, h, w)
        return grouped.transpose(1, 2).reshape(n, c, h, w)


def shufflenet_v1() -> nn.Module:
    def unit(width: int, groups: int = 3) -> nn.Module:
        body = nn.Sequential(
            Block(width, width // 2, 1, groups=groups), Shuffle(groups),
            Block(width // 2, width // 2, groups=width // 2, act=None),
            Block(width // 2, width, 1, groups=groups, act=None),
        )  # fmt: skip
        return Add(nn.Identity(), body, act=nn.ReLU())

    def reduction(inp: int, out: int, groups: int = 3) -> nn.Module:
        inner = out // 4
        body = nn.Sequential(
            Block(inp, inner, 1, groups=groups), Shuffle(groups),
            Block(inner, inner, 3, 2, groups=inner, act=None),
            Block(inner, out - inp, 1, groups=groups, act=None),
        )  # fmt: skip
        return nn.Sequential(Cat(nn.AvgPool2d(3, 2, 1), body), nn.ReLU())

    return nn.Sequential(Block(3, 24, 3, 2), reduction(24, 48), unit(48), unit(48), *head(48))


class ShuffleUnit(nn.Module):
    """Half of the channels go through, the others past the convolutions; then both are mixed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.body = nn.Sequential(
            Block(half, half, 1), Block(half, half, groups=half, act=None), Block(half, half, 1)
        )
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        past, through = x.chunk(2, 1)
        return self.shuffle(torch.cat([past, self.body(through)], 1))


def shufflenet_v2() -> nn.Module:
    def reduction(inp: int, out: int) -> nn.Module:
        half = out // 2
        return nn.Sequential(
            Cat(
                nn.Sequential(Block(inp, inp, 3, 2, groups=inp, act=None), Block(inp, half, 1)),
                nn.Sequential(
                    Block(inp, half, 1),
                    Block(half, half, 3, 2, groups=half, act=None),
                    Block(half, half, 1),
                ),
            ),
            Shuffle(2),
        )

    units = [reduction(16, 32), ShuffleUnit(32), ShuffleUnit(32), reduction(32, 64)]
    return nn.Sequential(Block(3, 16, 3, 2), *units, ShuffleUnit(64), Block(64, 96, 1), *head(96))


class Ghost(nn.Module):
    """Some channels by a convolution, the others from these, channel by channel."""

    def __init__(self, inp: int, out: int, act: bool = True) -> None:
        super().__init__()
        half, kind = out // 2, nn.ReLU if act else None
        self.primary, self.cheap = (
            Block(inp, half, 1, act=kind),
            Block(half, half, 3, 1, half, kind),
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1)


def ghostnet() -> nn.Module:
    def unit(inp: int, wide: int, out: int, stride: int) -> nn.Module:
        move = Block(wide, wide, 3, stride, wide, None) if stride > 1 else nn.Identity()
        body = nn.Sequential(
            Ghost(inp, wide), move, SqueezeExcite(wide, wide // 4), Ghost(wide, out, False)
        )
        if stride == 1 and inp == out:
            return Add(body, nn.Identity())
        depthwise = Block(inp, inp, 3, stride, inp, None)
        return Add(body, nn.Sequential(depthwise, Block(inp, out, 1, act=None)))

    units = [unit(16, 24, 16, 1), unit(16, 48, 24, 2), unit(24, 64, 24, 1)]
    return nn.Sequential(Block(3, 16, 3, 2), *units, Block(24, 64, 1), *head(64))


class RepVgg(nn.Module):
    """A 3x3, a 1x1 and a normalized shortcut side by side, as in training."""

    def __init__(self, inp: int, out: int, stride: int) -> None:
        super().__init__()
        self.wide, self.narrow = (
            Block(inp, out, 3, stride, act=None),
            Block(inp, out, 1, stride, 1, None),
        )
        self.short = nn.BatchNorm2d(inp) if inp == out and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x) + self.narrow(x)
        return F.relu(y if self.short is None else y + self.short(x))


def repvgg() -> nn.Module:
    units = [RepVgg(3, 16, 2), RepVgg(16, 16, 1), RepVgg(16, 32, 2), RepVgg(32, 32, 1)]
    return nn.Sequential(*units, *head(32))


def convmixer() -> nn.Module:
    def layer(width: int) -> list[nn.Module]:
        depthwise = [nn.Conv2d(width, width, 5, groups=width, padding=2), nn.GELU()]
        mixing = [nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width)]
        past = Add(nn.Sequential(*depthwise, nn.BatchNorm2d(width)), nn.Identity())
        return [past, *mixing]

    stem = [nn.Conv2d(3, 32, 4, 4), nn.GELU(), nn.BatchNorm2d(32)]
    return nn.Sequential(*stem, *layer(32), *layer(32), *head(32))


def norms() -> nn.Module:
    """PReLU with a slope for each channel, and normalizations over groups of channels."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(16), nn.GroupNorm(4, 16), nn.Conv2d(16, 32, 3, 2),
        nn.InstanceNorm2d(32, affine=True), nn.PReLU(32), nn.Conv2d(32, 24, 3), nn.GroupNorm(1, 24),
        nn.PReLU(), nn.Conv2d(24, 24, 1), nn.GroupNorm(24, 24), nn.LeakyReLU(0.1), *head(24),
    )  # fmt: skip


IMAGES: dict[str, Callable[[], nn.Module]] = {
    "lenet": lenet,
    "alexnet": alexnet,
    "vgg": vgg,
    "resnext": resnext,
    "se_resnet": se_resnet,
    "preact_resnet": preact_resnet,
    "cifar_resnet": cifar_resnet,
    "res2net": res2net,
    "densenet": densenet,
    "inception": inception,
    "squeezenet": squeezenet,
    "mobilenet_v3": mobilenet_v3,
    "shufflenet_v1": shufflenet_v1,
    "shufflenet_v2": shufflenet_v2,
    "ghostnet": ghostnet,
    "repvgg": repvgg,
    "convmixer": convmixer,
    "norms": norms,
}


def images(make: Callable[[], nn.Module]) -> Case:
    return make(), {"input": torch.randn(2, 3, 32, 32)}


ARCHITECTURES: dict[str, Callable[[], Case]] = {
    name: partial(images, make) for name, make in IMAGES.items()
}
