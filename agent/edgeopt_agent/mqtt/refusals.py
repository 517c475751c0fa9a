"""Why a broker did not let this device in, heard from the MQTT library's log.

With TLS 1.3 a broker says that it does not take a certificate after the handshake (RFC 8446, section 4.4.2.4), when
paho has begun to wait for CONNACK; it logs the alert and aiomqtt goes on waiting. This puts the two together.
Example::

    refusal = Refusal()
    client = aiomqtt.Client(…, logger=refusal.logger)
    await refusal.or_done(client.__aenter__())      # raises UnreachableError as soon as there is an alert
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine
from typing import Any

from aiomqtt.exceptions import MqttConnectError

from edgeopt_contract.errors import UnreachableError

__all__ = ["Refusal"]

_ALERT = re.compile(r"alert ([a-z ]+)")
_NOT_LET_IN = {4, 5, 134, 135}  # CONNACK: bad user name or password, not authorized; in MQTT 3.1.1 and as paho has them
_MEANINGS = {
    "certificate expired": "this device's certificate has expired; it is being renewed",
    "certificate revoked": "this device's certificate was revoked; only a new token lets it back in",
    "unknown ca": "the broker takes certificates of another CA: is it the fleet's?",
    "certificate required": "the broker wants a certificate, and this device has shown none",
    "bad certificate": "the broker does not take this device's certificate: expired, or is the broker's clock wrong?",
}


class Refusal(logging.Handler):
    """Listens to the library's log of one connection; says nothing itself."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.logger = logging.Logger("mqtt", logging.ERROR)  # noqa: LOG001  # of this connection alone
        self.logger.addHandler(self)
        self._heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def emit(self, record: logging.LogRecord) -> None:
        """Note an alert of TLS; everything else arrives as an exception."""
        text = record.getMessage()
        if "SSL" in text and not self._heard.done():
            self._heard.set_result(text)

    async def or_done(self, connecting: Coroutine[Any, Any, Any]) -> None:
        """Await ``connecting``. Raises :class:`UnreachableError` as soon as the broker has refused this device."""
        task = asyncio.ensure_future(connecting)
        either: set[asyncio.Future[Any]] = {task, self._heard}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
                return
            text = self._heard.result()
            match = _ALERT.search(text)
            alert = "" if match is None else match[1].strip()
            raise UnreachableError(_MEANINGS.get(alert, f"the broker ended the TLS connection: {text}"))
        except MqttConnectError as error:  # the broker's own word, in CONNACK
            if getattr(error.rc, "value", error.rc) not in _NOT_LET_IN:
                raise
            raise UnreachableError(
                f"the broker does not let this device in ({error}): it was revoked, or enrolled at another fleet"
            ) from error
        finally:
            task.cancel()
