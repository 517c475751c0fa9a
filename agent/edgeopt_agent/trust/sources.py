"""Where the fleet's metadata come from: the retained message at the broker, or the same bytes over HTTP.

Each way gives bytes and judges nothing. Two ways are better than one: what a broker withholds comes over HTTP.
Example::

    metadata = await MqttMetadata(link).obtain()          # raises UnreachableError
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from edgeopt_agent.delivery.http_download import HttpAccess, HttpDownload
from edgeopt_agent.mqtt.link import Arrival
from edgeopt_contract.errors import UnreachableError
from edgeopt_contract.topics import Topics
from edgeopt_contract.tuf import TufMetadata

__all__ = ["HttpMetadata", "MetadataSource", "MqttMetadata", "RetainedMessages"]

_SECONDS = 10.0
_LONGEST_SECONDS = 120.0  # half a megabyte at 35 kbit/s


class MetadataSource(Protocol):
    """One way by which metadata come."""

    async def obtain(self) -> bytes:
        """Return the payload of a TufMetadata message. Raises :class:`UnreachableError`."""
        ...


class RetainedMessages(Protocol):
    """What gives retained messages; :class:`edgeopt_agent.mqtt.link.Link` does."""

    async def wait_until_connected(self) -> None:
        """Return when there is a connection."""
        ...

    async def fetch(self, topic: str, patience_seconds: float) -> Arrival:
        """Return what is published on ``topic``, or raise :class:`UnreachableError`."""
        ...


class MqttMetadata:
    """The topic ``tuf``, asked for when it is needed: an idle device pays nothing for daily timestamps."""

    def __init__(self, link: RetainedMessages, patience_seconds: float = _SECONDS) -> None:
        self._link = link
        self._patience = patience_seconds

    async def obtain(self) -> bytes:
        """Return what is retained. Raises :class:`UnreachableError` without a connection or a message."""
        try:
            async with asyncio.timeout(self._patience):
                await self._link.wait_until_connected()
        except TimeoutError as error:
            raise UnreachableError("there is no connection to the broker") from error
        return (await self._link.fetch(Topics.TUF, self._patience)).payload


class HttpMetadata:
    """``GET /api/v1/tuf``."""

    def __init__(self, access: Callable[[], HttpAccess], longest_seconds: float = _LONGEST_SECONDS) -> None:
        self._access = access
        self._longest = longest_seconds

    async def obtain(self) -> bytes:
        """Return what the server gives; stops reading beyond the limit. Raises :class:`UnreachableError`."""
        try:
            async with asyncio.timeout(self._longest):
                return await self._download()
        except TimeoutError as error:  # a byte now and then is no answer either
            raise UnreachableError(f"the metadata did not come within {self._longest:g} s") from error

    async def _download(self) -> bytes:
        data = bytearray()
        async with HttpDownload(self._access()) as download, download.get("tuf") as pieces:
            async for piece in pieces:
                data += piece
                if len(data) > TufMetadata.MAX_BYTES:
                    raise UnreachableError(f"expected at most {TufMetadata.MAX_BYTES} bytes of metadata, got more")
        return bytes(data)
