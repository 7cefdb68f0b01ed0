"""Print results: JSON for programs, rows and tables for people. Write the files that commands produce."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ...domain.vocabulary import RANK
from ...errors import InvalidRequest

if TYPE_CHECKING:
    from rich.table import Table

    from ...domain.layers import Coverage
    from ...domain.mappings import Mapping
    from ...domain.scans import Proposal
    from ...domain.serving import Served
    from ...domain.targets import Formula, TargetSpec
    from ...references import Understood

NARROWEST = 16
"""Columns of a value at least, however narrow the terminal."""
NARROW = 60
"""Columns of a terminal below which a table is unreadable: its words fold letter by letter."""
Row = tuple[str, str]
"""A name and a value."""


def print_json(data: Any) -> None:
    """Print one JSON document, indented."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(table: "Table") -> None:
    """Print a rich table to standard output; on a narrow terminal as one record for each row."""
    from rich.console import Console

    console = Console()
    if not sys.stdout.isatty():
        Console(soft_wrap=True).print(table)
    elif console.width < NARROW:
        if table.title:
            print_heading(str(table.title))
        headers = [str(column.header) for column in table.columns]
        for cells in zip(*(map(str, column.cells) for column in table.columns), strict=True):
            print_rows([(header, cell) for header, cell in zip(headers, cells, strict=True) if cell])
            typer.echo()
    else:
        for column in table.columns:
            column.overflow = "fold"
        console.print(table)


def print_heading(text: str) -> None:
    """Print a line above rows after a blank one, bold on a terminal."""
    from rich.console import Console

    typer.echo()
    if sys.stdout.isatty():
        Console(highlight=False).print(text, style="bold", markup=False)
    else:
        typer.echo(text)


def print_rows(rows: list[Row]) -> None:
    """Print (name, value) rows; a repeated name is left blank."""
    width = max((len(name) for name, _ in rows), default=0)
    previous = ""
    for name, value in rows:
        for line in _wrap(value, width + 4):
            typer.echo(f"  {'' if name == previous else name:<{width}}  {line}")
            previous = name


def _wrap(value: str, indent: int) -> list[str]:
    """Return the lines of a value beside an indent: those that fit a terminal; one where output goes to a program."""
    if not sys.stdout.isatty():
        return [value]
    room = max(shutil.get_terminal_size().columns - indent, NARROWEST)
    return textwrap.wrap(value, room, break_on_hyphens=False) or [""]


def describe_spec(spec: "TargetSpec") -> list[Row]:
    """Return (field, value) rows of the fields a spec sets."""
    rows = ((name, value) for name, value in spec.values.items() if value)
    return [(name, value if isinstance(value, str) else ", ".join(value)) for name, value in rows]


def describe_size(sized: "Proposal | Mapping") -> str:
    """Return the formula of the parameters trained: ``r x 524,288``."""
    return f"trains {describe_formula(sized.formula)}" if sized.formula else "size unknown"


def describe_formula(formula: "Formula") -> str:
    """Return a formula in words: ``r x 524,288 + 8``."""
    parts = [f"r x {formula.per_rank:,}"] * bool(formula.per_rank) + [f"{formula.fixed:,}"] * bool(formula.fixed)
    return " + ".join(parts) or "0"


def describe_ranks(ranked: "Proposal | Mapping") -> list[Row]:
    """Return rows of the rank and of layers with another one, where they are not PEFT's default."""
    rows = [("rank", str(ranked.rank))] if ranked.rank != RANK or ranked.rank_pattern else []
    for name in ("rank_pattern", "alpha_pattern"):
        patterns = getattr(ranked, name) or {}
        rows += [(name, f"{pattern}: {value:g}") for pattern, value in patterns.items()]
    return rows


def describe_coverage(coverage: "tuple[Coverage, ...]") -> list[Row]:
    """Return a row per kind of block, if the layers of any are missed."""
    is_partial = any(kind.hit < kind.of for kind in coverage)
    has_several = len({kind.tower for kind in coverage}) > 1
    rows = [
        ("covers", f"{kind.hit} of {kind.of} {kind.block}{f' ({kind.tower})' if has_several and kind.tower else ''}")
        for kind in coverage
    ]
    return rows if is_partial else []


def describe_served(served: "tuple[Served, ...]") -> list[Row]:
    """Return a row per engine with what it does with an adapter."""
    from ...domain.serving import get_engine

    return [("served", f"{get_engine(one.engine).label}: {one.text}") for one in served]


DEFAULT_SIZES = "; sizes are those of the library's default configuration"
"""The registry knows architectures, not checkpoints: layer names hold for each, sizes for the scanned configuration."""


def describe_understood(understood: "Understood | None") -> str:
    """Return how a reference was understood, in words; empty if it was exact."""
    if understood is None:
        return ""
    kinds = {"class": "a class", "checkpoint": "a checkpoint", "nickname": "a nickname"}
    if understood.is_guess:
        why = "of a class of many architectures" if understood.how == "class of many" else "by its name"
        text = f"a guess {why}, for {understood.because!r}"
        if "/" in understood.given:
            text += f"; confirm with: loradar scan hub:{understood.given.removeprefix('hub:')}"
    else:
        text = f"{understood.because!r}, {kinds.get(understood.how, 'the name')}"
    text += f" (also {', '.join(understood.also)})" if understood.also else ""
    return text + (DEFAULT_SIZES if understood.how in {"checkpoint", "nickname", "by name"} else "")


CONFIG_CLASSES = {"LORA": "LoraConfig", "IA3": "IA3Config"}
"""Configurations that loradar and PEFT both have under a name."""


def describe_config(mapping: "Mapping") -> list[str]:
    """Return the line of Python that configures a mapping, for a method of loradar's own; it is PEFT's as well."""
    name = CONFIG_CLASSES.get(mapping.peft_type)
    if name is None:
        return []
    values: dict[str, Any] = {"r": mapping.rank} if mapping.peft_type == "LORA" else {}
    values |= {
        key: [*value] if isinstance(value, tuple) else value for key, value in mapping.spec.values.items() if value
    }
    patterns = {key: getattr(mapping, key) for key in ("rank_pattern", "alpha_pattern")}
    values |= {key: dict(value) for key, value in patterns.items() if value}
    return [f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items())})"]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report in one line that a file cannot be written.

    Raises:
        InvalidRequest: With the path and the reason.
    """
    try:
        yield
    except OSError as error:
        message = f"{str(path)!r} cannot be written: {error.strerror}. Choose another path."
        raise InvalidRequest(message, path=str(path)) from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file.

    Raises:
        InvalidRequest: If it cannot be written.
    """
    with writing(path):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
