"""Publishing a bundle: the manifest is announced, and only the blocks that the fleet lacks are sent.

It does not verify the bundle, which its caller has opened, nor sign it. Example::

    with FleetClient(load_access(Path("fleet/operator.json"))) as fleet:
        digest = publish_bundle(fleet, open_bundle(Path("digits-bundle")))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeopt.fleet_client import FleetClient
from edgeopt.fleet_http import Json
from edgeopt_contract.bundle import MANIFEST_NAME, Bundle
from edgeopt_contract.errors import BundleError, MessageError
from edgeopt_contract.values import digest_of

__all__ = ["publish_bundle"]

_ROUNDS = 3  # a block that another publisher's clean-up removed meanwhile is sent once more


def publish_bundle(
    fleet: FleetClient, bundle: Bundle, on_progress: Callable[[int, int], None] = lambda _sent, _total: None
) -> str:
    """Upload what the fleet lacks of ``bundle`` (already verified) and return its digest.

    ``on_progress(sent, total)`` hears of bytes. An interrupted upload goes on where it stopped when called again.
    Raises :class:`BundleError` when a file changed meanwhile.
    """
    manifest = (bundle.directory / MANIFEST_NAME).read_bytes()
    if digest_of(manifest) != bundle.digest:
        raise BundleError(f"{bundle.directory}: the manifest changed while it was being published; try again")
    places = _block_places(bundle)
    sent = total = 0
    for _ in range(_ROUNDS):
        missing = _missing_blocks(fleet.offer_bundle(manifest), places)
        if not missing:
            return bundle.digest
        total += sum(places[digest].size for digest in missing)
        on_progress(sent, total)
        for digest in missing:
            fleet.put_block(digest, _read_block(digest, places[digest]))
            sent += places[digest].size
            on_progress(sent, total)
    if not _missing_blocks(fleet.offer_bundle(manifest), places):
        return bundle.digest
    raise MessageError("the fleet still lacks blocks that it accepted; its log says more; try again")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a block lies: ``size`` bytes of ``path`` from ``offset``."""

    path: Path
    offset: int
    size: int


def _block_places(bundle: Bundle) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for entry in bundle.manifest.files:
        offset = 0
        for block in entry.blocks:
            places[block.sha256] = _Place(bundle.path_of(entry), offset, block.size)
            offset += block.size
    return places


def _missing_blocks(answer: Json, places: Mapping[str, _Place]) -> list[str]:
    missing = answer.get("missing_blocks")
    if not isinstance(missing, list):
        raise MessageError("the fleet did not say which blocks it lacks; update the older program")
    unknown = [digest for digest in missing if digest not in places]
    if unknown:
        raise MessageError(f"the fleet asks for a block that the bundle does not have: {str(unknown[0])[:80]!r}")
    return list(dict.fromkeys(missing))


def _read_block(digest: str, place: _Place) -> bytes:
    try:
        with place.path.open("rb") as file:
            file.seek(place.offset)
            data = file.read(place.size)
    except OSError as error:
        raise BundleError(f"{place.path} cannot be read any more ({error.strerror})") from error
    if digest_of(data) != digest:
        raise BundleError(
            f"{place.path}: bytes {place.offset}-{place.offset + place.size} are not the block that the manifest "
            "lists; build the bundle again"
        )
    return data
