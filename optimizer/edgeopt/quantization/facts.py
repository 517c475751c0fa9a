"""What the choice of first recipes must know of a graph, read from it once.

It decides nothing: that is :mod:`edgeopt.quantization.candidates`. Example::

    recipes = first_recipes(facts_of(prepared.model), target)
"""

from __future__ import annotations

from edgeopt.graph import op_types
from edgeopt.layers import convolutions
from edgeopt.quantization.candidates import GraphFacts
from edgeopt.quantization.static import reducible_weights, weighted_layers

__all__ = ["facts_of"]


def facts_of(model: bytes) -> GraphFacts:
    """Return the facts of a prepared float ``model``."""
    return GraphFacts(
        op_types=op_types(model),
        convolutions=convolutions(model),
        reducible=reducible_weights(model),
        layers=weighted_layers(model),
    )
