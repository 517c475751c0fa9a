"""Which hardware class a device is of: devices of one class run the same kernels of a model.

Pure. A rollout can take one class after the other, and the gate judges each for itself. The tag ``hardware`` names a
class by hand, where a fleet knows better (two boards with the same processor, one with a fan). Example::

    >>> hardware_class({}, "x86_64", ("avx2", "avx512_vnni", "vnni"))
    'x86_64-vnni'
    >>> hardware_class({"hardware": "pi-5"}, "aarch64", ("dotprod",))
    'pi-5'
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

__all__ = ["HARDWARE_TAG", "hardware_class"]

HARDWARE_TAG = "hardware"
_TIERS = ("amx_int8", "vnni", "avx512f", "avx2", "i8mm", "dotprod", "neon")  # the fastest int8 kernels first


def hardware_class(tags: Mapping[str, str], arch: str, features: Collection[str]) -> str:
    """Return the class: the tag if there is one, else the architecture and the best of its int8 instructions."""
    if tags.get(HARDWARE_TAG):
        return tags[HARDWARE_TAG]
    best = next((tier for tier in _TIERS if tier in features), None)
    return arch if best is None else f"{arch}-{best}"
