"""``loradar serve``: run the REST service."""

from typing import Annotated

import typer

from .options import AsJson
from .output import show


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.")] = 8000,
    as_json: AsJson = False,
) -> None:
    """Serve the registry over REST until interrupted."""
    from ..api import serve as serve_api
    from ..settings import Settings

    def print_url(url: str) -> None:
        if as_json:
            show.print_json({"url": url})
        else:
            typer.echo(f"Serving on {url} (described at {url}/openapi.json). Stop with Ctrl-C.")

    serve_api(Settings.from_environment(), host, port, print_url)
