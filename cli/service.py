"""``loradar serve``, ``mcp`` and ``token``: run the REST service, or an MCP server; manage the tokens of writes."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from ..domain.identities import TOKEN_ROLES
from ..errors import InvalidRequest, quoted
from ..schema import to_json
from .backend import open_backend
from .options import TOKEN_VARIABLE, AsJson, Number, Secret, Url
from .output import print_json

MOST_PROCESSES = 64

token_group = typer.Typer(name="token", help="Create, list and revoke tokens, which writes need.", no_args_is_help=True)


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8000,
    workers: Annotated[
        int, typer.Option(min=1, max=MOST_PROCESSES, help="Processes that serve; each has rate limits of its own.")
    ] = 1,
    root_path: Annotated[
        str | None,
        typer.Option(help="Prefix of the paths at the proxy, such as /loradar; if not given, LORADAR_ROOT_PATH."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve the registry over REST until interrupted."""
    from ..api import serve as serve_api
    from ..settings import Settings, parse_root_path

    settings = Settings.from_environment()
    if root_path is not None:
        settings = replace(settings, root_path=parse_root_path(root_path, "--root-path"))

    def print_url(url: str) -> None:
        if as_json:
            print_json({"url": url})
        else:
            typer.echo(f"Serving on {url} (described at {url}/openapi.json). Stop with Ctrl-C.")

    serve_api(settings, host, port, print_url, workers)


def serve_agents() -> None:
    """Serve lookup, scan, explain, check and plan as tools for agents, by MCP on standard input and output."""
    from ..extras import require

    require("mcp", "mcp")
    from .agents import make_server

    make_server().run("stdio")


@token_group.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its owner.")],
    *,
    role: Annotated[str, typer.Option(help="contributor, reviewer or admin.")],
    expires: Annotated[
        int | None, typer.Option(min=1, max=99_999, help="Days until it expires; never if not given.")
    ] = None,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Create a token, and print only its secret on standard output: it is shown once."""
    checked: Any = role
    if role not in TOKEN_ROLES:
        message = f"Unknown role {role!r}. Roles: {quoted(TOKEN_ROLES)}."
        raise InvalidRequest(message, role=role)
    with open_backend(url, secret, needs_token=bool(url)) as backend:
        token, created = backend.create_token(name, checked, expires)
    if as_json:
        print_json({"token": to_json(token), "secret": created})
        return
    typer.echo(created)
    until = f"until {token.expires_at}" if token.expires_at else "until it is revoked"
    article = "an" if token.role == "admin" else "a"
    typer.echo(
        f"Token {token.id}: {token.name} is {article} {token.role} {until}. It is shown once: keep it.", err=True
    )
    typer.echo(f"Use it with: export {TOKEN_VARIABLE}=...", err=True)


@token_group.command("list")
def list_tokens(*, url: Url = None, secret: Secret = None, as_json: AsJson = False) -> None:
    """List the tokens, without their secrets."""
    with open_backend(url, secret, needs_token=bool(url)) as backend:
        tokens = backend.tokens()
    if as_json:
        print_json({"tokens": [to_json(token) for token in tokens]})
        return
    for token in tokens:
        used = f"used {token.last_used_at}" if token.last_used_at else "never used"
        ends = f"revoked {token.revoked_at}" if token.revoked_at else f"until {token.expires_at or 'revoked'}"
        typer.echo(f"{token.id:>4}  {token.name:<16}  {token.role:<11}  {token.prefix}...  {ends}, {used}")
    if not tokens:
        typer.echo("No tokens. Create one with: loradar token create NAME --role ROLE")


@token_group.command()
def revoke(token_id: Number, *, url: Url = None, secret: Secret = None, as_json: AsJson = False) -> None:
    """Revoke a token."""
    with open_backend(url, secret, needs_token=bool(url)) as backend:
        token = backend.revoke_token(token_id)
    if as_json:
        print_json(to_json(token))
    else:
        typer.echo(f"Token {token.id} of {token.name} is revoked.")
