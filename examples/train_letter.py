"""Train the letter network and write its weights: under a minute on one core.

It reads the 16,000 training rows; the test rows are only used to print the accuracy at the end. Example::

    python -m examples.train_letter
"""

import torch

from examples.letter import WEIGHTS_FILE, model, rows, untrained
from examples.npz_weights import save
from examples.training import Recipe, accuracy, train

__all__ = ["main"]

_NOISE = 0.08


def main() -> None:
    """Train, write the weights and print the accuracy of what was written."""
    inputs, labels = rows("train")
    network = untrained()
    train(
        network,
        torch.from_numpy(inputs),
        torch.from_numpy(labels),
        Recipe(epochs=80, weight_decay=0.05, augment=_blurred),
    )
    save(network, WEIGHTS_FILE)
    inputs, labels = rows("test")
    reached = accuracy(model(), torch.from_numpy(inputs), torch.from_numpy(labels))
    print(f"accuracy on {len(inputs):,} test rows: {reached:.2%}")


def _blurred(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Add noise of about half a step: the columns are measurements rounded to whole numbers."""
    return batch + _NOISE * torch.randn(batch.shape, generator=generator)


if __name__ == "__main__":
    main()
