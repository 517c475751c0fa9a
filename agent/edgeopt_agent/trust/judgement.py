"""Whether a bundle that was signed may be installed beside what runs: downgrades need a signed permission.

Pure. Rules:

1. The counter of what runs is a floor: a bundle signed later may always be installed.
2. A bundle that was signed earlier may be installed only if what was signed about the *running* bundle names it. So the
   fleet server can recall a bundle without the targets keys, but only to where they allowed it to go.

Example::

    refusal(wanted, running)         # None, or "… was signed before …"
"""

from __future__ import annotations

from edgeopt_contract.tuf import BundleTarget

__all__ = ["refusal"]


def refusal(wanted: BundleTarget, running: BundleTarget | None) -> str | None:
    """Say why ``wanted`` must not take the place of ``running``, or None."""
    if running is None or wanted.counter >= running.counter or wanted.digest in running.rollback:
        return None
    return (
        f"downgrade: bundle {wanted.digest[:12]} ({wanted.name} {wanted.version}, counter {wanted.counter}) was signed "
        f"before {running.digest[:12]} ({running.name} {running.version}, counter {running.counter}), which runs here "
        "and does not permit going back to it; sign that: edgeopt sign --allow-rollback"
    )
