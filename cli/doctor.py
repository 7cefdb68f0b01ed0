"""``loradar doctor``: examine a saved adapter beside the model it is for, and write a mended copy."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..schema import to_json
from .options import AsJson
from .output import print_json, print_rows

if TYPE_CHECKING:
    from ..adapters.doctor import Diagnosis
    from .output import Row


def doctor(
    adapter: Annotated[str, typer.Argument(help="Its folder, its .safetensors file, or hub:org/repo.")],
    *,
    model: Annotated[
        str | None,
        typer.Option(help="Folder of the base model, hub:org/repo, or llama; by default that in the configuration."),
    ] = None,
    fix: Annotated[Path | None, typer.Option(metavar="OUT", help="Folder to write a mended copy into.")] = None,
    as_json: AsJson = False,
) -> None:
    """Examine a saved adapter: does it fit its model, load and change anything? Exit code 1 if not."""
    from ..adapters.doctor import doctor as examine
    from ..discovery import quiet_libraries

    quiet_libraries()
    found = examine(adapter, model, fix=fix)
    if as_json:
        print_json({**to_json(found), "is_sound": found.is_sound, "fixed": str(fix) if fix else None})
    else:
        print_diagnosis(found)
        if fix:
            typer.echo(f"\nWrote {fix}. Examine it with: loradar doctor {fix}{f' --model {model}' if model else ''}")
    if not found.is_sound:
        sys.exit(1)


def print_diagnosis(found: "Diagnosis") -> None:
    """Print what an adapter holds, where it lands, and each finding with the way out."""
    typer.echo(f"{found.adapter} · {found.format} · {found.base or 'no base model'}")
    rows: list[Row] = []
    if found.layers:
        towers = ", ".join(f"{count} {tower}" for tower, count in found.towers.items())
        landed = f"{found.landed} of {found.layers} land" if found.base else f"{found.layers}"
        rows.append(("layers", f"{landed}{f': {towers}' if towers else ''}"))
    rows += [("note", found.note)] if found.note else []
    for finding in found.findings:
        rows += [(finding.level, finding.message), ("", f"-> {finding.way_out}")]
    rows += [] if found.findings else [("sound", "nothing was found")]
    print_rows(rows)
