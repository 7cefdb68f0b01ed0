"""``loradar serve``: the REST service."""

from typing import Annotated

import typer

from .output import show


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    as_json: Annotated[bool, typer.Option("--json", help="Print where it serves as JSON.")] = False,
) -> None:
    """Serve the registry over REST until interrupted."""
    from ..api import serve as serve_api
    from ..settings import Settings

    serve_api(Settings.from_environment(), host, port, _print_json if as_json else _say_where)


def _print_json(url: str) -> None:
    show.print_json({"url": url})


def _say_where(url: str) -> None:
    typer.echo(f"Serving on {url} (described at {url}/openapi.json). Stop with Ctrl-C.")
