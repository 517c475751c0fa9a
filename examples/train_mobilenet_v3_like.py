"""Train the network like MobileNetV3 and write its weights: about four minutes on one core.

One thread and a fixed seed, so that one machine makes the same weights each time. It reads the 60,000 training
pictures; the test pictures are only used to print the accuracy at the end. Example::

    python -m examples.train_mobilenet_v3_like
"""

import torch

from examples.fashion_mnist import pictures
from examples.mobilenet_v3_like import WEIGHTS_FILE, model, untrained
from examples.npz_weights import save
from examples.training import Recipe, accuracy, train

__all__ = ["main"]


def main() -> None:
    """Train, write the weights and print the accuracy of what was written."""
    inputs, labels = pictures("train")
    network = untrained()
    train(network, torch.from_numpy(inputs), torch.from_numpy(labels), Recipe(epochs=6))
    save(network, WEIGHTS_FILE)
    inputs, labels = pictures("t10k")
    reached = accuracy(model(), torch.from_numpy(inputs), torch.from_numpy(labels))
    print(f"accuracy on {len(inputs):,} test pictures: {reached:.2%}")


if __name__ == "__main__":
    main()
