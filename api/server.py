"""Run the service in the foreground (``loradar serve``) or in a thread (tests and the demo)."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import uvicorn

from ..errors import CannotServe
from ..registry import Registry
from ..sandbox.process_isolation import hide_from_workers
from ..settings import Settings
from .app import create_app
from .protocol import LARGEST_HEAD, Protocol

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOOPBACK = "127.0.0.1"
MAX_PORT = 65535


class Server(uvicorn.Server):
    """uvicorn on a given socket, with a callback once it accepts requests."""

    def __init__(self, settings: Settings, on_ready: Callable[[], None]) -> None:
        proxies = settings.trusted_proxies
        config = uvicorn.Config(
            create_app(settings),
            http=Protocol,
            ws="none",
            h11_max_incomplete_event_size=LARGEST_HEAD,
            log_level="warning",
            access_log=False,
            lifespan="on",
            # Stated explicitly: by default uvicorn trusts the headers of every client on this machine.
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies,
            server_header=False,
        )
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call ``on_ready``."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def serve(
    settings: Settings, host: str = LOOPBACK, port: int = 8000, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until interrupted.

    Args:
        settings: Which registry to serve.
        host: Address to listen on.
        port: 0 picks a free one.
        ready: Called with the URL once requests are accepted.

    Raises:
        DatabaseUnusable: If the registry cannot be opened; no port is opened then.
        CannotServe: If the host and port cannot be listened on.
    """
    with Registry.open(settings) as registry:
        registry.make()
    logging.basicConfig(format=LOG_FORMAT)  # does nothing where the program that calls this has set logging up
    with _listen(host, port) as listener:
        url = url_of(listener)
        hide_from_workers()
        with suppress(KeyboardInterrupt):  # uvicorn shuts down cleanly, then raises the signal again
            Server(settings, lambda: ready(url) if ready else None).run(sockets=[listener])


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
