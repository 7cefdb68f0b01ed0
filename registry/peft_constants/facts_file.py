"""The copy of PEFT's facts in ``data/constants``: written to be read in a diff, one table entry per line."""

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from ...errors import ConstantsUnreadable
from .reading import PeftConstants

SEED_VERSION = "0.21.2"
"""The PEFT version whose facts a new registry starts with."""


TARGETS_TABLE = "TRANSFORMERS_MODELS_TO_{}_TARGET_MODULES_MAPPING"
"""Name of the table of targets for one PEFT method."""


def write_constants_json(constants: PeftConstants, path: Path) -> None:
    """Write the facts to a file; the same facts make the same bytes."""
    path.write_text(to_json(constants), encoding="utf-8")


def load_constants(path: Path | None = None, *, version: str = SEED_VERSION) -> PeftConstants:
    """Return the facts in a JSON file, or those that come with loradar for a PEFT version.

    Raises:
        ConstantsUnreadable: If the file is missing or is not one of ours.
    """
    source = path or constants_file(version)
    try:
        return PeftConstants.from_dict(json.loads(source.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = (
            f"Cannot read PEFT's constants from {str(source)!r}: {type(error).__name__}: {error}. "
            "Give a file that `loradar constants facts` wrote."
        )
        raise ConstantsUnreadable(message, path=str(source)) from error


def constants_file(version: str = SEED_VERSION) -> Traversable:
    """Return the file with the facts of a PEFT version that comes with loradar; it may not be there."""
    return files("loradar.data") / "constants" / f"peft-{version}.json"


def peft_type_of(table: str) -> str | None:
    """Return the PEFT type a table of targets is for, or ``None`` for a table of something else."""
    start, _, end = TARGETS_TABLE.partition("{}")
    tag = table.removeprefix(start).removesuffix(end)
    if TARGETS_TABLE.format(tag) != table:
        return None
    return _aliases().get(tag, tag)


@cache
def _aliases() -> dict[str, str]:
    """Return the PEFT types of the tables that are not named after theirs."""
    text = (files("loradar.data") / "constants" / "peft_types.json").read_text(encoding="utf-8")
    aliases: dict[str, str] = json.loads(text)["aliases"]
    return aliases


def to_json(constants: PeftConstants) -> str:
    """Return the facts as JSON, one line per entry of a table."""
    data = constants.to_dict()
    tables = (f"    {_text(name)}: {_lines(table, 6, 4)}" for name, table in constants.tables.items())
    conditional = (f"    {_text(entry)}" for entry in data["conditional"])
    fields = [
        f'  "package": {_text(data["package"])}',
        f'  "version": {_text(constants.version)}',
        f'  "tables": {{\n{_joined(tables)}\n  }}',
        f'  "values": {_lines(constants.values, 4, 2)}',
        f'  "conditional": [\n{_joined(conditional)}\n  ]' if constants.conditional else '  "conditional": []',
    ]
    return "{\n" + _joined(fields) + "\n}\n"


def _lines(table: dict[str, Any], indent: int, close: int) -> str:
    if not table:
        return "{}"
    entries = (f"{' ' * indent}{_text(key)}: {_text(value)}" for key, value in table.items())
    return f"{{\n{_joined(entries)}\n{' ' * close}}}"


def _joined(lines: Iterable[str]) -> str:
    return ",\n".join(lines)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
