"""Run the service in the foreground (``loradar serve``) or in a thread (tests and the demo)."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import ceil
from multiprocessing.connection import Connection
from threading import Event, Thread, Timer
from types import FrameType

import uvicorn

from ..errors import CannotServe
from ..registry import Registry
from ..sandbox.process_isolation import hide_from_workers
from ..settings import Settings
from .app import create_app
from .pages.warming import warm_up
from .process.descriptors import Descriptors
from .process.logs import set_up_logs
from .process.slow_readers import SlowReaders
from .process.supervisor import Supervisor, end_with_supervisor
from .protocol import Protocol, ServiceConfig

LOGGER = logging.getLogger("loradar.api")

AT_ONCE = 64
"""Connections that the event loop accepts before it looks at the first: beyond the limit they are turned away then."""

BACKLOG = 2048
"""Connections that the kernel keeps until they are accepted."""

GRACE_SECONDS = 10
"""Time for the responses in progress after the service was told to stop."""

END_SECONDS = 30.0
"""Time after which the process ends whatever it waits for."""

LOOPBACK = "127.0.0.1"
MAX_PORT = 65535


class Server(uvicorn.Server):
    """uvicorn on a given socket, with a callback once it accepts requests, and an end in bounded time."""

    def __init__(self, settings: Settings, on_ready: Callable[[], None]) -> None:
        proxies = settings.trusted_proxies
        self.app = create_app(settings)
        self._config = ServiceConfig(
            self.app,
            Descriptors(self.app.state.metrics.turned_away.inc),
            http=Protocol,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="on",
            # Stated explicitly: by default uvicorn trusts the headers of every client on this machine.
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies,
            server_header=False,
            backlog=AT_ONCE,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(self._config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call ``on_ready``."""
        asyncio.get_running_loop().set_exception_handler(self._config.descriptors.handle)
        await super().startup(sockets)
        if self.started:
            for listener in sockets or ():
                listener.listen(BACKLOG)
            self._readers = SlowReaders(self.server_state.connections)  # type: ignore[arg-type]  # all are our Protocol
            self._watch = asyncio.create_task(self._readers.watch())
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: whoever has not read the rest of a response shortly before the end is cut off."""
        self._watch.cancel()
        asyncio.get_running_loop().call_later(GRACE_SECONDS * 0.8, self._readers.end_all)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, and make sure of the end: a thread that waits for a frozen database cannot be stopped."""
        if not self.should_exit:
            timer = Timer(END_SECONDS, _end_by_force)
            timer.daemon = True
            timer.start()
        super().handle_exit(sig, frame)


def _end_by_force() -> None:
    LOGGER.error("the service did not stop within %g s, and is ended", END_SECONDS)
    os._exit(1)


def serve(
    settings: Settings,
    host: str = LOOPBACK,
    port: int = 8000,
    ready: Callable[[str], None] | None = None,
    processes: int = 1,
) -> None:
    """Serve until interrupted.

    Args:
        settings: Which registry to serve.
        host: Address to listen on.
        port: 0 picks a free one.
        ready: Called with the URL once requests are accepted.
        processes: Processes that share the socket, the scan workers and the metrics; each has rate limits of its own.

    Raises:
        DatabaseUnusable: If the registry cannot be opened; no port is opened then.
        CannotServe: If the host and port cannot be listened on, or a process does not start.
    """
    with Registry.open(settings) as registry:
        registry.make()
    set_up_logs(settings)
    with _listen(host, port) as listener:
        url = url_of(listener)
        hide_from_workers()

        def announce() -> None:
            if ready:
                ready(url)

        if processes > 1:
            share = replace(settings, workers=ceil(settings.workers / processes))
            Supervisor(_serve_beside_others, (share, listener), processes).run(announce)
            return
        _run(settings, listener, announce)


def _run(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Serve until interrupted; the pages are prepared beside the first requests."""

    def prepare() -> None:
        announce()
        Thread(target=warm_up, args=(server.app,), name="loradar-pages", daemon=True).start()

    server = Server(settings, prepare)
    with suppress(KeyboardInterrupt):  # uvicorn shuts down cleanly, then raises the signal again
        server.run(sockets=[listener])


def _serve_beside_others(argument: tuple[Settings, socket.socket], ready: Connection) -> None:
    """Serve in one of several processes."""
    settings, listener = argument
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    set_up_logs(settings)
    hide_from_workers()
    end_with_supervisor()
    _run(settings, listener, lambda: ready.send("ready"))


@contextmanager
def running(settings: Settings, host: str = LOOPBACK, port: int = 0) -> Iterator[str]:
    """Serve in a thread while the context lasts, and yield the URL.

    Raises:
        CannotServe: If the host and port cannot be listened on.
    """
    settled = Event()
    with _listen(host, port) as listener:
        server = Server(settings, settled.set)

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:
                settled.set()

        thread = Thread(target=run, name="loradar-api", daemon=True)
        thread.start()
        try:
            settled.wait()
            if not server.started:
                message = "The service did not start; the cause is in its log."
                raise CannotServe(message, url=url_of(listener))
            yield url_of(listener)
        finally:
            server.should_exit = True
            thread.join()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= MAX_PORT:
        raise _cannot_listen(host, port, f"a port is from 0 to {MAX_PORT}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise _cannot_listen(host, port, error.strerror or str(error)) from error
    # asyncio sets this on its own sockets only; without it, a response's body waits 40 ms for the ACK of its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _cannot_listen(host: str, port: int, reason: str) -> CannotServe:
    message = f"Cannot listen on {host!r}, port {port}: {reason}. Choose another; port 0 picks a free one."
    return CannotServe(message, host=host, port=port)


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
