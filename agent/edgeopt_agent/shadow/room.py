"""Whether a device has room for a challenger now: what serves and what is updated come first. Pure.

Example::

    why_wait({"memory_bytes": 2e7}, runs=True, needs_bytes=0)       # "only 19 MiB of memory are left"
    is_sampled(10, share=0.1), is_sampled(11, share=0.1)            # True, False
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["is_sampled", "why_wait"]

_HOT_CELSIUS = 80.0  # where the doctor warns
_COOL_CELSIUS = 75.0  # what was paused for heat waits so long, or it would go back and forth
_LEAST_MEMORY = 32 << 20  # twice what the whole machine must have left while a runner works


def why_wait(strain: Mapping[str, float], *, runs: bool, needs_bytes: int) -> str:
    """Say why a challenger has to wait on a machine under ``strain``; empty when it need not.

    ``strain`` is what :func:`edgeopt_agent.device.gauges.read_strain` gives; ``runs`` says whether it has a runner now,
    and ``needs_bytes`` what it will take if not.
    """
    if strain.get("throttled"):
        return "the CPU is held back"
    celsius = strain.get("temperature_celsius", 0.0)
    if celsius >= (_HOT_CELSIUS if runs else _COOL_CELSIUS):
        return f"the machine is hot: {celsius:.0f} °C"
    memory = strain.get("memory_bytes")
    if memory is not None and memory < _LEAST_MEMORY + (0 if runs else needs_bytes):
        return f"only {int(memory) >> 20} MiB of memory are left"
    return ""


def is_sampled(number: int, share: float) -> bool:
    """Say whether the request ``number``, counted from 1, is one of the ``share``: evenly, without a draw."""
    return int(number * share) > int((number - 1) * share)
