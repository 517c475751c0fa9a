"""Train the network for digits on bright paper and write its weights: about ten seconds on one core.

One thread and a fixed seed, so that one machine makes the same weights each time. Two layers see their weights clipped
while they learn. Example::

    python -m examples.train_bright_digits
"""

import torch
from torch import nn
from torch.nn.utils import parametrize

from examples.bright_digits import CLIPPED, WEIGHTS_FILE, model, pictures, untrained
from examples.npz_weights import save
from examples.training import Recipe, accuracy, train

__all__ = ["main"]


class _Clip(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Keep weights within a bound; those at the bound are free to come back, but nothing pulls them."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        return weights.clamp(-self.bound, self.bound)


def main() -> None:
    """Train, write the weights and print the accuracy of what was written."""
    inputs, labels = pictures("train")
    torch.manual_seed(0)  # for the clipped layers: the training loop cannot draw their weights again
    network = untrained()
    for place, bound in CLIPPED.items():
        parametrize.register_parametrization(network[place], "weight", _Clip(bound))
    train(network, torch.from_numpy(inputs), torch.from_numpy(labels), Recipe(epochs=25, batch=64))
    for place in CLIPPED:
        parametrize.remove_parametrizations(network[place], "weight")
    save(network, WEIGHTS_FILE)
    inputs, labels = pictures("test")
    reached = accuracy(model(), torch.from_numpy(inputs), torch.from_numpy(labels))
    print(f"accuracy on {len(inputs):,} test pictures: {reached:.2%}")


if __name__ == "__main__":
    main()
