"""``loradar token``: who may write, told by tokens."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..domain.identities import TOKEN_ROLES
from ..domain.schema import to_json
from ..errors import InvalidRequest, quoted
from .contributions.backend import open_desk
from .options import TOKEN_VARIABLE, AsJson, Number, Secret, Url
from .output import show

if TYPE_CHECKING:
    from ..domain.identities import Token

app = typer.Typer(name="token", help="Say who may write: make, list and revoke tokens.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    *,
    role: Annotated[str, typer.Option(help="contributor, reviewer or admin.")],
    expires: Annotated[int | None, typer.Option(min=1, max=99_999, help="Days it works; else for ever.")] = None,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Make a token, and print it alone on standard output: it is shown once."""
    checked: Any = role
    if role not in TOKEN_ROLES:
        message = f"There is no role {role!r}. Roles: {quoted(TOKEN_ROLES)}."
        raise InvalidRequest(message, role=role)
    with open_desk(url, secret, writes=bool(url)) as desk:
        token, made = desk.create_token(name, checked, expires)
    if as_json:
        show.print_json({"token": to_json(token), "secret": made})
        return
    typer.echo(made)
    until = f"until {token.expires_at}" if token.expires_at else "until it is revoked"
    article = "an" if token.role == "admin" else "a"
    told = f"Token {token.id}: {token.name} is {article} {token.role} {until}. It is shown this once: keep it."
    typer.echo(told, err=True)
    typer.echo(f"Use it with: export {TOKEN_VARIABLE}=...", err=True)


@app.command("list")
def list_tokens(*, url: Url = None, secret: Secret = None, as_json: AsJson = False) -> None:
    """List the tokens there are, without their secrets."""
    with open_desk(url, secret, writes=bool(url)) as desk:
        tokens = desk.tokens()
    if as_json:
        show.print_json({"tokens": [to_json(token) for token in tokens]})
    else:
        typer.echo(
            "\n".join(map(_describe, tokens)) or "No tokens. Make one with: loradar token create NAME --role ROLE"
        )


def _describe(token: "Token") -> str:
    used = f"used {token.last_used_at}" if token.last_used_at else "never used"
    ends = f"revoked {token.revoked_at}" if token.revoked_at else f"until {token.expires_at or 'revoked'}"
    return f"{token.id:>4}  {token.name:<16}  {token.role:<11}  {token.prefix}...  {ends}, {used}"


@app.command()
def revoke(
    token_id: Number,
    *,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Have a token work no longer."""
    with open_desk(url, secret, writes=bool(url)) as desk:
        token = desk.revoke_token(token_id)
    if as_json:
        show.print_json(to_json(token))
    else:
        typer.echo(f"Token {token.id} of {token.name} works no longer.")
