"""What kind of network a graph is, and which ways of making it smaller are sound for that kind.

Decided from the operators alone; what a recipe costs in accuracy and saves in time is then measured. Convolutional
networks and multilayer perceptrons get only what is asked for beside static int8, whose many choices
are the search's. Pure. Example::

    family = family_of(op_types(model))                              # Family.TRANSFORMER
    for recipe in family_recipes(family, target, dynamic_weights(model, recipe)):
        ...
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from enum import StrEnum

from edgeopt.recipe import Precision, Recipe
from edgeopt.targets import Target

__all__ = ["Family", "family_of", "family_recipes", "half_precisions"]

_RECURRENT = {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}
_ATTENTION = {"Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention"}
_NORMAL = {"LayerNormalization", "SkipLayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
_NORMAL_BY_HAND = {"ReduceMean", "Sqrt", "Div"}  # layer normalization before opset 17
_PRODUCTS = ("Gemm", "MatMul")


class Family(StrEnum):
    """A kind of network, as far as quantization is concerned."""

    CNN = "cnn"
    MLP = "mlp"
    TRANSFORMER = "transformer"
    RECURRENT = "recurrent"
    OTHER = "other"


def family_of(op_types: AbstractSet[str]) -> Family:
    """Return the family of a graph with these operators; the most delicate one wins when there are several.

    Softmax alone is no attention (classifiers end in it), nor is layer normalization alone (ConvNeXt has it).
    """
    if op_types & _RECURRENT:
        return Family.RECURRENT
    normal = bool(op_types & _NORMAL) or op_types >= _NORMAL_BY_HAND
    if op_types & _ATTENTION or ("Softmax" in op_types and normal):
        return Family.TRANSFORMER
    if op_types & {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv"}:
        return Family.CNN
    return Family.MLP if op_types & set(_PRODUCTS) else Family.OTHER


def family_recipes(
    family: Family, target: Target, weights: tuple[str, ...] = (), recurrent: tuple[str, ...] = ()
) -> tuple[Recipe, ...]:
    """Return the recipes that are sound for ``family`` on ``target``, the most promising first.

    ``weights``: the names of the weights that would be multiplied in int8
    (:func:`edgeopt.quantization.dynamic.dynamic_weights`); ``recurrent``: those of them that are of LSTMs. They give up
    range where products of u8 by s8 saturate: on x86 without VNNI (Intel SDM, VPMADDUBSW). There a dynamic recipe keeps
    as much of it as pairs of products allow.
    """
    saturates = target.arch == "x86_64" and not target.has_vnni
    integer = Recipe(
        precision=Precision.INT8,
        signed_activations=target.signed_activations,
        reduced_weights=weights if saturates else (),
    )
    dynamic = replace(
        integer, precision=Precision.INT8_DYNAMIC, signed_activations=False, pair_safe=bool(integer.reduced_weights)
    )
    lstm = dynamic
    if recurrent != weights:
        lstm = replace(dynamic, operators=("LSTM", "Gather"), reduced_weights=recurrent if saturates else ())
    learned = (replace(lstm, rounding_learned=True), lstm) if recurrent else ()
    stored = Recipe(precision=Precision.INT8_WEIGHTS)
    recipes = {
        # Softmax, layer normalization and GELU have ranges that one scale cannot hold: every operator in static int8
        # collapses. Matrix products alone hold; the embedding may go along, at one scale for the whole table.
        Family.TRANSFORMER: (
            dynamic,
            replace(integer, operators=_PRODUCTS),
            replace(integer, operators=("Gather", *_PRODUCTS)),
            stored,
        ),
        # An LSTM has an integer kernel for dynamic ranges only, a GRU has none: its weights are stored in int8. A state
        # that is fed back adds up its rounding errors, so that recipe must face the gate, and weights alone follow.
        # A small product behind it is no faster in int8, for its ranges take a pass of their own, and costs accuracy:
        # so the LSTM alone comes first, with learned rounding before nearest. Static int8 can serve what stands around
        # it, such as convolutions in front.
        Family.RECURRENT: (*learned, dynamic, stored, replace(integer, operators=("Conv", *_PRODUCTS))),
        # Convolutions and dense layers hold static int8 well, and run fastest in it; weights alone are the way out for
        # one that is no faster in int8, or too inaccurate: it is never slower than float.
        Family.CNN: (stored,),
        # A small perceptron is bound by the cost of calling it: rounding activations only adds calls.
        Family.MLP: (stored, dynamic),
        # Nothing is known of it, so only what computes in float is safe to propose.
        Family.OTHER: (stored,),
    }
    halves = (Recipe(precision=precision) for precision in half_precisions(target))
    return tuple(dict.fromkeys((*recipes[family], *halves)))


def half_precisions(target: Target) -> tuple[Precision, ...]:
    """Return the 16-bit float types in which ``target`` computes faster than in float32.

    That is fp16 on ARM cores that have its arithmetic (Armv8.2-A, FEAT_FP16). There is no bf16: ONNX Runtime has no
    kernels for it on CPUs, and a manifest cannot tell a device that OpenVINO shall compute a float32 file in it.
    """
    return (Precision.FP16,) if target.arch == "aarch64" and "fp16" in target.features else ()
