"""``loradar lookup``: print the registered targets of an architecture."""

from typing import Annotated

import typer

from ..references import Reference
from ..schema import to_json
from .options import AsJson, ReferenceText, Url
from .output import show


def lookup(
    reference: ReferenceText,
    *,
    peft_type: Annotated[str, typer.Option(help="PEFT method: LORA, IA3, ...")] = "LORA",
    preset: Annotated[str, typer.Option(help="default, attention, mlp, all-linear or experts.")] = "default",
    library_version: Annotated[
        str | None, typer.Option(help="Version of the library; the newest one seen if not given.")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Look up the default targets of an architecture."""
    parsed = Reference.parse(reference)
    query = (parsed.registered_name, peft_type, preset, parsed.scheme, library_version)
    if url:
        from ..client import Client

        with Client(url) as client:
            mapping = client.targets(*query)
    else:
        from ..registry import lookup as look_up

        mapping = look_up(*query)
    if as_json:
        show.print_json(to_json(mapping))
    else:
        show.print_mapping(mapping)
