"""Options that several commands share."""

from typing import Annotated

import typer

from ..errors import InvalidRequest
from ..validation.text import RATIONALE_LENGTH, fault_in_text

TOKEN_VARIABLE = "LORADAR_TOKEN"  # noqa: S105 - the name of a variable, not a secret

LARGEST = 2**31 - 1
"""The largest number that every database has an integer for."""


def _shown(text: str) -> str:
    """Return a text that somebody has to read, if something in it shows and nothing in it hides."""
    fault = fault_in_text(text)
    if not text.strip() or len(text) > RATIONALE_LENGTH:
        fault = f"Give a reason of 1 to {RATIONALE_LENGTH:,} characters; this one has {len(text.strip()):,}."
    if fault:
        raise InvalidRequest(fault)
    return text


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str | None, typer.Option(help="Ask a loradar service instead of the local registry.")]
Secret = Annotated[
    str | None,
    typer.Option("--token", envvar=TOKEN_VARIABLE, help="Who you are. Other users of the machine see the option."),
]
IfMatch = Annotated[int | None, typer.Option(min=1, max=LARGEST, help="Do it only if this is its version still.")]
Reason = Annotated[str, typer.Option(callback=_shown, help="Why; it stays on record.")]
Number = Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST, help="Its number.")]
