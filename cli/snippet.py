"""``loradar snippet``: write a configuration or a script with the targets of a mapping for a training tool."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..data import read_facts
from ..errors import LoradarError
from ..references import parse_parts
from ..schema import to_json
from .options import (
    LARGEST,
    AsJson,
    Blocks,
    Budget,
    ExpertRank,
    Parts,
    PeftType,
    Preset,
    Rank,
    ReferenceText,
    Roles,
    Towers,
    Url,
    keep_given,
)
from .output import print_json, write_file

if TYPE_CHECKING:
    from ..snippets import Snippet

TOOLS = ", ".join(tool["name"] for tool in read_facts("snippets/tools.toml")["tool"])


def snippet(
    reference: ReferenceText,
    *,
    tool: Annotated[
        str, typer.Option("--for", metavar="TOOL", help=f"One of {TOOLS}.", autocompletion=lambda: TOOLS.split(", "))
    ],
    model: Annotated[
        str | None, typer.Option(help="Model to train: an id on the hub or a folder; a known one if not given.")
    ] = None,
    alpha: Annotated[
        int | None, typer.Option(min=1, max=LARGEST, help="lora_alpha; as the recommendation has it if not given.")
    ] = None,
    peft_type: PeftType = "LORA",
    preset: Preset = None,
    part: Parts = None,
    towers: Towers = None,
    roles: Roles = None,
    blocks: Blocks = None,
    rank: Rank = None,
    expert_rank: ExpertRank = None,
    budget: Budget = None,
    out: Annotated[Path | None, typer.Option(help="File to write; standard output if not given.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Write the configuration or the script of a training tool with the targets of a model: --for axolotl."""
    choice = keep_given(towers=towers, roles=roles, blocks=blocks, rank=rank, expert_rank=expert_rank, budget=budget)
    choice |= {"parts": parse_parts(part)} if part else {}
    options: dict[str, Any] = {"model": model, "alpha": alpha}
    if url:
        written = _ask_service(url, (reference, peft_type, preset), choice, tool, options)
    else:
        from ..registry import snippet as write

        written = write(reference, tool, peft_type, preset, **options, **choice)
    if out:
        write_file(out, written.text)
        typer.echo(f"Wrote {out}, for {written.label} {written.version}.", err=True)
        for note in written.notes:  # they are comments of the text as well
            typer.echo(f"Note: {note}.", err=True)
    if as_json:
        print_json(to_json(written))
    elif not out:
        typer.echo(written.text, nl=False)


def _ask_service(
    url: str, query: tuple[str, str, str | None], choice: dict[str, Any], tool: str, options: dict[str, Any]
) -> "Snippet":
    """Return a snippet with the targets of a service."""
    from ..client import Client
    from ..snippets import Subject, write_snippet

    with Client(url) as client:
        mapping = client.targets(*query, **choice)
        try:
            subject = Subject.of(client.architecture(mapping.library, mapping.name))
        except LoradarError as error:
            if error.code != "unknown_architecture":
                raise
            subject = Subject()
    return write_snippet(mapping, tool, subject=subject, **options)
