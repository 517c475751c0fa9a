"""The routes of TUF metadata: what devices read, and what people hand in."""

from __future__ import annotations

from edgeopt_contract.codec import decode
from edgeopt_contract.tuf import TufMetadata
from tests.fleet.conftest import Api


async def test_metadata_are_public_and_the_same_as_on_the_topic(api: Api) -> None:
    """No key is needed, and the bytes are those that the broker retains."""
    api.kit.publish("1")
    answer = await api.client.get("/api/v1/tuf", headers={"Authorization": ""})
    assert (200, api.kit.outbox.metadata()) == (answer.status_code, answer.content)
    assert 1 == len(decode(TufMetadata, answer.content).roots)


async def test_what_is_to_be_signed_is_shown_to_operators(api: Api) -> None:
    """Root and targets in force, and no draft where the server signs by itself."""
    shown = await api.call("GET", "tuf/signing", 200)
    assert api.kit.metadata.root() == shown["root"]
    assert (None, None) == (shown["root_draft"], shown["targets_draft"])


async def test_what_is_handed_in_is_verified(api: Api) -> None:
    """Other roles, nonsense and the version in force are refused."""
    await api.call("PUT", "tuf/snapshot", 404, content=b"{}")
    await api.call("PUT", "tuf/targets", 422, content=b"{}")
    await api.call("PUT", "tuf/root", 409, content=api.kit.metadata.root().encode())
    await api.call("PUT", "tuf/root", 413, content=bytes(TufMetadata.MAX_BYTES + 1))


async def test_bundle_is_complete_for_operators_once_it_is_signed(api: Api) -> None:
    """``complete`` says that it can be rolled out."""
    digest = api.kit.publish("1")
    assert (await api.call("GET", f"bundles/{digest[:12]}", 200))["complete"] is True
