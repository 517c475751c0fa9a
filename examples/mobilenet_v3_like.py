"""Fashion-MNIST by a network like MobileNetV3: 61 thousand parameters, 91.8 % right, and slower in int8.

Hard-swish, squeeze-and-excite, depthwise convolutions and residual sums (Howard et al. 2019, "Searching for
MobileNetV3"), so small that the sums of a layer cost less than its bookkeeping: a trap for every quantizer. ``data``
yields the 10,000 test pictures, of which training saw none. It does not train: that is
``train_mobilenet_v3_like.py``. Example::

    edgeopt quantize examples.mobilenet_v3_like:model --data examples.mobilenet_v3_like:data --max-drop 1% -o build/v3
"""

import torch
from torch import nn

from examples.fashion_mnist import data
from examples.npz_weights import WEIGHTS, load

__all__ = ["WEIGHTS_FILE", "data", "model", "untrained"]

WEIGHTS_FILE = WEIGHTS / "mobilenet_v3_like.npz"


def untrained() -> nn.Sequential:
    """Return the network with random weights: float32 N x 1 x 28 x 28 in [0, 1] to N x 10 logits."""
    return nn.Sequential(
        *_convolution(1, 16, kernel=3, stride=2),
        nn.Hardswish(),
        _Bottleneck(16, 16, 16, excited=True, activation=nn.ReLU),
        _Bottleneck(16, 64, 24, stride=2, activation=nn.ReLU),
        _Bottleneck(24, 80, 24, activation=nn.ReLU),
        _Bottleneck(24, 96, 40, kernel=5, excited=True),
        _Bottleneck(40, 120, 40, kernel=5, excited=True),
        *_convolution(40, 160, kernel=1),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(160, 64),
        nn.Hardswish(),
        nn.Linear(64, 10),
    )


def model() -> nn.Module:
    """Return the trained network."""
    return load(untrained(), WEIGHTS_FILE)


class _Bottleneck(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Widen, filter each channel, weigh the channels if ``excited``, narrow; the input is added where shapes agree."""

    def __init__(  # noqa: PLR0913  (the table of the paper has this many columns)
        self,
        inputs: int,
        wide: int,
        outputs: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        excited: bool = False,
        activation: type[nn.Module] = nn.Hardswish,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(inputs, wide, kernel=1),
            activation(),
            *_convolution(wide, wide, kernel=kernel, stride=stride, groups=wide),
            activation(),
            _Excitation(wide) if excited else nn.Identity(),
            *_convolution(wide, outputs, kernel=1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.layers(inputs)
        return inputs + outputs if self.residual else outputs


class _Excitation(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Squeeze-and-excite: each channel times a factor in [0, 1] that follows from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factors = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * self.factors(inputs)


def _convolution(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> tuple[nn.Module, ...]:
    """Return a convolution that keeps the size (but for its stride) and its BatchNorm."""
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )
