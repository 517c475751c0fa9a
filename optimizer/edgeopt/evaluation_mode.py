"""A torch module in evaluation mode for as long as it is needed, and then as its owner had it.

A factory may give the very module that its owner goes on to train. Example::

    with evaluating(module), torch.no_grad():
        module(pictures)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["evaluating"]


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Put ``module`` (a ``torch.nn.Module``) and all in it into evaluation mode; an exported program has no modes."""
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
    except NotImplementedError:  # what torch.export gives: the mode is part of the graph
        yield
        return
    try:
        yield
    finally:
        module.train(modes.get(module, False))  # a module of one's own may do more in it than set a flag
        for part, mode in modes.items():
            part.training = mode
