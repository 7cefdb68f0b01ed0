"""A server that answers as it is told to, and notes what it is asked."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Scripted = tuple[int, dict[str, str], bytes] | None
"""Status, headers and body; ``None`` breaks the connection."""


class ScriptedServer:
    """A server on loopback.

    Attributes:
        url: Its URL.
        answers: What it answers, in order; the last one is repeated.
        reached: Whether it was asked.
        held: Whether answers may be sent.
        files: Folder whose files it answers with instead, as a file server does.
        asked: Path and headers of each request, their names in lower case.
    """

    def __init__(self) -> None:
        self.answers: list[Scripted] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.reached, self.held = threading.Event(), threading.Event()
        self.held.set()
        self.files: Path | None = None
        owner = self

        class Handler(BaseHTTPRequestHandler):
            """Answers from the script."""

            def do_GET(self) -> None:
                """Note the request and answer."""
                if owner.files is not None:
                    owner.answers = [owner.find_file(self.path.partition("?")[0])]
                owner.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                owner.reached.set()
                owner.held.wait()
                answer = owner.answers.pop(0) if len(owner.answers) > 1 else owner.answers[0]
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, body = answer
                self.send_response_only(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 - the name that http.server calls

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def hold(self) -> None:
        """Answer nothing before ``go_on``."""
        self.answers = [None]
        self.held.clear()

    def go_on(self) -> None:
        """Answer again."""
        self.held.set()

    def find_file(self, path: str) -> Scripted:
        """Return the answer of a file server."""
        file = self.files / path.lstrip("/")
        return (200, {}, file.read_bytes()) if file.is_file() else (404, {}, b"<html>no such file</html>")

    @contextmanager
    def running(self) -> Iterator["ScriptedServer"]:
        """Answer in a thread as long as the context lasts."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
