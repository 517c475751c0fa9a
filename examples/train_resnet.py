"""Train the residual network for Fashion-MNIST and write its weights: about eight minutes on one core.

One thread and a fixed seed, so that one machine makes the same weights each time. It reads the 60,000 training
pictures; the test pictures are only used to print the accuracy at the end. Example::

    python -m examples.train_resnet
"""

import torch

from examples.fashion_mnist import pictures
from examples.npz_weights import save
from examples.resnet import WEIGHTS_FILE, model, untrained
from examples.training import Recipe, accuracy, train

__all__ = ["main"]


def main() -> None:
    """Train, write the weights and print the accuracy of what was written."""
    inputs, labels = pictures("train")
    network = untrained()
    train(network, torch.from_numpy(inputs), torch.from_numpy(labels), Recipe(epochs=4, augment=_flip))
    save(network, WEIGHTS_FILE)
    inputs, labels = pictures("t10k")
    reached = accuracy(model(), torch.from_numpy(inputs), torch.from_numpy(labels))
    print(f"accuracy on {len(inputs):,} test pictures: {reached:.2%}")


def _flip(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror about half of the pictures: clothes look the same in a mirror."""
    chosen = torch.rand(len(batch), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], batch.flip(-1), batch)


if __name__ == "__main__":
    main()
