"""Small networks that channels can, or cannot, be taken out of; all on pictures of 3 x 8 x 8, to 10 scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from edgeopt.pruning.plan import ChannelGroup, Removals, removal_steps
from edgeopt.samples import Sample


def samples(count: int = 24, seed: int = 1) -> list[Sample]:
    """Return random pictures with random classes."""
    random = np.random.default_rng(seed)
    pictures = random.standard_normal((count, 3, 8, 8)).astype(np.float32)
    return [Sample({"input": picture}, int(random.integers(10))) for picture in pictures]


def half(groups: Sequence[ChannelGroup]) -> Removals:
    """Return about half of the channels of each group, in blocks of eight."""
    return {one.layer: (steps := removal_steps([one], 8, 40))[(len(steps) - 1) // 2][one.layer] for one in groups}


def _ready(network: nn.Module) -> nn.Module:
    """Give BatchNorm statistics of its own, so that no channel is like another."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(16, 3, 8, 8))
    return network.eval()


class Residual(nn.Module):
    """Two blocks that add to the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 32, 3, padding=1))
        self.second = nn.Sequential(nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 32, 3, padding=1))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        x = self.stem(x)
        x = torch.relu(x + self.first(x))
        x = torch.relu(x + self.second(x))
        return self.head(x.mean((2, 3)))


class Concatenating(nn.Module):
    """Two branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 24, 3, padding=1)
        self.right = nn.Conv2d(3, 40, 3, padding=1)
        self.both = nn.Conv2d(64, 32, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], dim=1)
        return self.head(torch.relu(self.both(x)).mean((2, 3)))


class Scaled(nn.Module):
    """Parameters of its own, one for each channel of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 32).reshape(1, 32, 1, 1))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        return self.head(torch.relu(self.conv(x) * self.scale).mean((2, 3)))


class FixedWidth(nn.Module):
    """Its code knows the width of one convolution, and a buffer that of another."""

    def __init__(self) -> None:
        super().__init__()
        self.free = nn.Conv2d(3, 32, 3, padding=1)
        self.known = nn.Conv2d(32, 16, 3, padding=1)
        self.head = nn.Linear(16 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        x = torch.relu(self.known(torch.relu(self.free(x))))
        return self.head(x.reshape(-1, 16 * 64))


def residual() -> nn.Module:
    """Return the residual network."""
    torch.manual_seed(3)
    return _ready(Residual())


def depthwise() -> nn.Module:
    """Return pointwise and depthwise convolutions in turn."""
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 1),
        nn.BatchNorm2d(32),
        nn.ReLU6(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.BatchNorm2d(32),
        nn.ReLU6(),
        nn.Conv2d(32, 64, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip  (a block in a line)
    return _ready(network)


def grouped() -> nn.Module:
    """Return a network with a convolution of four groups."""
    torch.manual_seed(5)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, groups=4),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip  (a block in a line)
    return _ready(network)


def concatenating() -> nn.Module:
    """Return the network of two branches."""
    torch.manual_seed(6)
    return _ready(Concatenating())


def scaled() -> nn.Module:
    """Return the network with a parameter of its own."""
    torch.manual_seed(7)
    return _ready(Scaled())


def fixed_width() -> nn.Module:
    """Return the network whose code knows a width."""
    torch.manual_seed(8)
    return _ready(FixedWidth())


def single_layer() -> nn.Module:
    """Return a linear classifier: its only width is that of the outputs."""
    torch.manual_seed(9)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).eval()


PRUNABLE: dict[str, Callable[[], nn.Module]] = {
    "residual": residual,
    "depthwise": depthwise,
    "grouped": grouped,
    "concatenating": concatenating,
    "scaled": scaled,
}
