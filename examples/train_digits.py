"""Train the digits network and write its weights: under a minute on one core.

It reads the training pictures only, each time shifted, turned and smeared a little; the test pictures are used
once, to print the accuracy at the end. Example::

    python -m examples.train_digits
"""

import math

import torch
from torch import nn

from examples.digits import WEIGHTS_FILE, model, pictures, untrained
from examples.npz_weights import save
from examples.training import Recipe, accuracy, train

__all__ = ["main"]

_TURN = math.radians(12)
_SHIFT = 0.12  # of half a picture's width
_STRETCH = 0.12
_NOISE = 0.05


def main() -> None:
    """Train, write the weights and print the accuracy of what was written."""
    inputs, labels = pictures("train")
    network = untrained()
    recipe = Recipe(epochs=60, batch=32, peak_rate=0.004, augment=_moved)
    train(network, torch.from_numpy(inputs), torch.from_numpy(labels), recipe)
    save(network, WEIGHTS_FILE)
    inputs, labels = pictures("test")
    reached = accuracy(model(), torch.from_numpy(inputs), torch.from_numpy(labels))
    print(f"accuracy on {len(inputs):,} test pictures: {reached:.2%}")


def _moved(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn, stretch and shift each picture a little, and add noise: writers differ in just that."""
    draws = torch.rand(5, len(batch), generator=generator) * 2 - 1
    angle, shift = draws[0] * _TURN, draws[1:3] * _SHIFT
    wide, high = 1 + draws[3:5] * _STRETCH
    rows = (wide * angle.cos(), -angle.sin(), shift[0], angle.sin(), high * angle.cos(), shift[1])
    grid = nn.functional.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(batch.shape), align_corners=False)
    moved = nn.functional.grid_sample(batch, grid, align_corners=False)
    return (moved + _NOISE * torch.randn(moved.shape, generator=generator)).clamp(0, 1)


if __name__ == "__main__":
    main()
