"""What a fleet that downloads asks for most, answered before the framework looks at the request.

Blocks, files and metadata that are in memory are sent at once: routing and validating cost more than all else about
such an answer. Whatever is not plain (another method, a query, something that is not in memory) is left to the routes,
which give the same answers. Who asks has been let in before. Example::

    answer = await direct.answer(scope, operation)       # None: ask the routes
"""

from __future__ import annotations

from fastapi import Response
from starlette.types import Scope

from edgeopt_fleet.api.downloads import block_answer, file_answer
from edgeopt_fleet.api.reads import DeviceReads
from edgeopt_fleet.api.tuf import metadata_answer
from edgeopt_fleet.store.downloads import Downloads

__all__ = ["Direct", "header_of"]


class Direct:
    """Answers from memory."""

    def __init__(self, downloads: Downloads, reads: DeviceReads) -> None:
        self._downloads = downloads
        self._reads = reads

    async def answer(self, scope: Scope, operation: str | None) -> Response | None:
        """Return the answer to a request for ``operation``, an entry of the table of rights; None without one here.

        Raises :class:`RangeError`, and :class:`StorageError` when metadata cannot be read.
        """
        if scope["method"] != "GET" or scope["query_string"]:
            return None
        if operation == "GET /api/v1/blocks/{sha256}":
            sha256 = scope["path"].rsplit("/", 1)[1]
            data = self._downloads.kept(sha256)
            return None if data is None else block_answer(sha256, data, header_of(scope, b"range"))
        if operation == "GET /api/v1/bundles/{digest}/files/{path}":
            digest, _, path = scope["path"].split("/")[4:]
            found = self._downloads.kept_file(digest, path)
            conditions = header_of(scope, b"range"), header_of(scope, b"if-range")
            return None if found is None else file_answer(*found, *conditions)
        if operation == "GET /api/v1/tuf":
            return metadata_answer(await self._reads.metadata())
        return None


def header_of(scope: Scope, name: bytes) -> str | None:
    """Return the first header of that name, which is in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return None
