"""Which variant of a bundle this device runs: the first that fits it and has not been found unsuitable here.

A runtime may be installed and yet not work on this very board. What was found out by trying is kept in a small file, so
that it is not tried again after a restart. Example::

    variants = Variants(capabilities, Path("/var/lib/edgeopt/slots/unsuitable.json"))
    variant = variants.choose(digest, manifest)
    variants.exclude(digest, manifest, variant.name, "it ended (signal 11)")     # True: there is another
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from edgeopt_agent.log import log_event
from edgeopt_contract.errors import BundleError
from edgeopt_contract.manifest import Capabilities, Manifest, Variant
from edgeopt_contract.storage import write_atomically

__all__ = ["Variants"]

_BUNDLES_KEPT = 8


class Variants:
    """See the module. Blocking, but small."""

    def __init__(self, capabilities: Capabilities, path: Path) -> None:
        self._capabilities = capabilities
        self._path = path
        self._unsuitable = _read(path)

    def choose(self, digest: str, manifest: Manifest) -> Variant:
        """Return the variant to run of the bundle ``digest``. Raises :class:`BundleError` saying what is lacking."""
        unsuitable = self._unsuitable.get(digest, {})
        for variant in manifest.variants:
            if variant.name not in unsuitable and variant.missing_from(self._capabilities) is None:
                return variant
        if not unsuitable:
            return manifest.variant_for(self._capabilities)  # says for each what it lacks
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unsuitable.items())
        raise BundleError(f"no other variant of {manifest.name} {manifest.version} runs here ({reasons})")

    def exclude(self, digest: str, manifest: Manifest, name: str, reason: str) -> bool:
        """Take the variant ``name`` of a bundle no more, if there is another; say whether there is.

        Raises :class:`~edgeopt_contract.errors.StorageError`.
        """
        excluded = self._unsuitable.get(digest, {}) | {name: reason}
        fitting = [v.name for v in manifest.variants if v.missing_from(self._capabilities) is None]
        if set(fitting) <= set(excluded):
            return False
        others = {known: reasons for known, reasons in self._unsuitable.items() if known != digest}
        kept = dict(list(others.items())[1 - _BUNDLES_KEPT :]) | {digest: excluded}
        write_atomically(self._path, msgspec.json.encode(kept))
        self._unsuitable = kept
        return True


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, str]])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:  # it would be found out once more
        log_event("unsuitable_variants_forgotten", level=logging.ERROR, reason=error)
        return {}
