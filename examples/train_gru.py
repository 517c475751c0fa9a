"""Train the GRU on Fashion-MNIST and write its weights: about three minutes on one core.

It reads the 60,000 training pictures; the test pictures are only used to print the accuracy at the end. Example::

    python -m examples.train_gru
"""

import torch

from examples.gru import WEIGHTS_FILE, model, sequences, untrained
from examples.npz_weights import save
from examples.training import Recipe, accuracy, train

__all__ = ["main"]


def main() -> None:
    """Train, write the weights and print the accuracy of what was written."""
    inputs, labels = sequences("train")
    network = untrained()
    train(network, torch.from_numpy(inputs), torch.from_numpy(labels), Recipe(epochs=3, peak_rate=0.004))
    save(network, WEIGHTS_FILE)
    inputs, labels = sequences("t10k")
    reached = accuracy(model(), torch.from_numpy(inputs), torch.from_numpy(labels))
    print(f"accuracy on {len(inputs):,} test pictures: {reached:.2%}")


if __name__ == "__main__":
    main()
