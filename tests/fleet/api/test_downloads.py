"""Downloads by devices: who may, what they get, and which part of it."""

from __future__ import annotations

import pytest

from edgeopt_contract.bundle import Bundle, open_bundle
from edgeopt_contract.manifest import Role
from edgeopt_contract.values import digest_of
from tests.fleet.api.test_identities import enrol
from tests.fleet.conftest import Api
from tests.identity import DeviceKey


class Downloader:
    """A device that downloads."""

    def __init__(self, api: Api, bearer: str) -> None:
        self._api = api
        self._bearer = bearer

    async def get(self, path: str, expect: int = 200, **headers: str) -> tuple[bytes, dict[str, str]]:
        """GET ``/api/v1/<path>`` and return body and headers."""
        sent = {"Authorization": f"Bearer {self._bearer}", **{name.replace("_", "-"): v for name, v in headers.items()}}
        answer = await self._api.client.get(f"/api/v1/{path}", headers=sent)
        assert expect == answer.status_code, answer.text
        return answer.content, dict(answer.headers)


@pytest.fixture
async def device(api: Api) -> Downloader:
    """An enrolled device."""
    return Downloader(api, (await enrol(api, "cam-1", DeviceKey())).bearer)


@pytest.fixture
def bundle(api: Api) -> Bundle:
    """A published bundle."""
    api.kit.publish("1")
    return open_bundle(api.kit.directory / "bundle-1")


async def test_files_and_parts_of_them(device: Downloader, bundle: Bundle) -> None:
    """Whole, a part across blocks, an open end; the entity tag is the file's hash."""
    entry = max(bundle.manifest.files, key=lambda entry: entry.size)
    data = bundle.path_of(entry).read_bytes()
    path = f"bundles/{bundle.digest}/files/{entry.path}"
    whole, headers = await device.get(path)
    assert data == whole
    assert (f'"{entry.sha256}"', "bytes", str(len(data))) == (
        headers["etag"],
        headers["accept-ranges"],
        headers["content-length"],
    )
    middle = len(data) // 2
    part, headers = await device.get(path, 206, Range=f"bytes={middle}-{middle + 9}", If_Range=f'"{entry.sha256}"')
    assert data[middle : middle + 10] == part
    assert f"bytes {middle}-{middle + 9}/{len(data)}" == headers["content-range"]
    assert data[middle:] == (await device.get(path, 206, Range=f"bytes={middle}-"))[0]
    assert data == (await device.get(path, 200, Range="bytes=5-", If_Range='"another"'))[0]
    await device.get(path, 416, Range=f"bytes={len(data)}-")


async def test_blocks_and_manifests_by_their_hash(device: Downloader, bundle: Bundle) -> None:
    """What MQTT has as retained messages."""
    manifest = (bundle.directory / "manifest.json").read_bytes()
    assert manifest == (await device.get(f"blocks/{bundle.digest}"))[0]
    assert manifest[7:] == (await device.get(f"blocks/{bundle.digest}", 206, Range="bytes=7-"))[0]
    for entry in bundle.manifest.files:
        for block in entry.blocks:
            assert block.sha256 == digest_of((await device.get(f"blocks/{block.sha256}"))[0])


async def test_what_is_not_there_or_not_for_devices(device: Downloader, bundle: Bundle) -> None:
    """404 for unknown hashes and names, and evidence; 422 for what is no hash, or only the beginning of one."""
    evidence = next((e.path for e in bundle.manifest.files if e.role is Role.EVIDENCE), "report.json")
    for path in (
        f"blocks/{'0' * 64}",
        f"bundles/{bundle.digest}/files/none.onnx",
        f"bundles/{bundle.digest}/files/{evidence}",
    ):
        await device.get(path, 404)
    await device.get("blocks/nonsense", 422)
    await device.get(f"bundles/{bundle.digest[:12]}/files/{bundle.manifest.files[0].path}", 422)


async def test_only_devices_download(api: Api, bundle: Bundle) -> None:
    """Nobody without a bearer, nor with a wrong one, nor an operator."""
    operator = api.client.headers["Authorization"].removeprefix("Bearer ")
    for bearer in ("", "wrong", operator):
        await Downloader(api, bearer).get(f"blocks/{bundle.digest}", 401)
        await Downloader(api, bearer).get(f"bundles/{bundle.digest}/files/{bundle.manifest.files[0].path}", 401)
