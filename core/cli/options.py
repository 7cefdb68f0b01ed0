"""Options that several commands share."""

from typing import Annotated

import typer

TOKEN_VARIABLE = "LORADAR_TOKEN"  # noqa: S105 - the name of a variable, not a secret

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str | None, typer.Option(help="Ask a loradar service instead of the local registry.")]
Secret = Annotated[
    str | None,
    typer.Option("--token", envvar=TOKEN_VARIABLE, help="Who you are. Other users of the machine see the option."),
]
IfMatch = Annotated[int | None, typer.Option(min=1, help="Do it only if this is its version still.")]
