"""Train the transformer on letters and write its weights: about seven minutes on one core.

It reads the 16,000 training rows; the test rows are only used to print the accuracy at the end. Example::

    python -m examples.train_transformer
"""

import torch

from examples.npz_weights import save
from examples.training import Recipe, accuracy, train
from examples.transformer import WEIGHTS_FILE, model, tokens, untrained

__all__ = ["main"]


def main() -> None:
    """Train, write the weights and print the accuracy of what was written."""
    inputs, labels = tokens("train")
    network = untrained()
    recipe = Recipe(epochs=16, batch=64, peak_rate=0.002, weight_decay=0.1, augment=_nudged)
    train(network, torch.from_numpy(inputs), torch.from_numpy(labels), recipe)
    save(network, WEIGHTS_FILE)
    inputs, labels = tokens("test")
    reached = accuracy(model(), torch.from_numpy(inputs), torch.from_numpy(labels))
    print(f"accuracy on {len(inputs):,} test rows: {reached:.2%}")


def _nudged(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move a tenth of the values by one step: words of neighbouring values must mean nearly the same."""
    chosen = torch.rand(batch.shape, generator=generator) < 0.1
    steps = 2 * torch.randint(0, 2, batch.shape, generator=generator) - 1
    return torch.where(chosen, (batch + steps).clamp(0, 15), batch)


if __name__ == "__main__":
    main()
