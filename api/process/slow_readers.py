"""End connections whose clients do not read the response: each holds memory, a descriptor and an open file."""

import asyncio
import logging
from collections.abc import Set as AbstractSet
from typing import Protocol

LOGGER = logging.getLogger("loradar.api")

EVERY = 30.0
"""Seconds between two looks at what is unsent."""

LEAST = 16 << 10
"""Bytes that a client has to read between two looks, if so many wait for it."""


class Connection(Protocol):
    """The state of a connection that is watched.

    Attributes:
        transport: Has the bytes that the client's machine did not take yet.
        drained: Times that it took so many that more could be sent.
    """

    transport: asyncio.Transport
    drained: int


class SlowReaders:
    """A watch over the unsent bytes of connections, open ones and those that are closed once all is sent.

    Args:
        connections: The connections, which come and go.
    """

    def __init__(self, connections: AbstractSet[Connection]) -> None:
        self._connections = connections
        self._unsent: dict[Connection, tuple[int, int]] = {}

    async def watch(self) -> None:
        """Look at the connections until the task is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            self.end_stalled()

    def end_all(self) -> None:
        """End the connections with unsent bytes."""
        for connection in list(self._connections):
            if connection.transport.get_write_buffer_size():
                connection.transport.abort()

    def end_stalled(self) -> None:
        """End the connections whose clients have read next to nothing since the last look."""
        before, self._unsent, ended = self._unsent, {}, 0
        for connection in list(self._connections):
            size = connection.transport.get_write_buffer_size()
            if not size:
                continue
            drained, unsent = before.get(connection, (-1, 0))
            if connection.drained == drained and size > unsent - LEAST:
                connection.transport.abort()
                ended += 1
            else:
                self._unsent[connection] = connection.drained, size
        if ended:
            LOGGER.warning("ended %d connections whose clients read nothing for %g s", ended, EVERY)
