"""Read PEFT's ``constants.py`` from source or from its JSON copy in ``data/constants``, without executing it."""

import ast
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...domain.targets import TargetSpec
from ...domain.versions import parse_version
from ...errors import ConstantsUnreadable, MissingExtra
from ...schema import to_json
from ..records import Entry
from .syntax import Conditional, Module

_CONDITIONAL = ("name", "key", "value", "if")

SEED_VERSION = "0.21.2"
"""The PEFT version whose tables a new registry is seeded with."""

TARGETS_TABLE = "TRANSFORMERS_MODELS_TO_{}_TARGET_MODULES_MAPPING"
"""Name of the table of targets of one PEFT method."""

IA3_FEEDFORWARD_TABLE = "TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING"


@dataclass(frozen=True, slots=True)
class PeftConstants:
    """The content of one version of PEFT's ``constants.py``.

    Attributes:
        version: PEFT's version.
        tables: Every dict, such as ``TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING``, by name.
        values: Every other constant, such as ``SEQ_CLS_HEAD_NAMES``, by name.
        conditional: Entries and constants set only inside an ``if``; conditions are kept as text, never evaluated.
    """

    version: str
    tables: dict[str, dict[str, Any]]
    values: dict[str, Any]
    conditional: tuple[Conditional, ...] = ()

    def entries(self, table: str) -> Iterator[tuple[str, Any, str | None]]:
        """Yield (key, value, condition) of a table; a conditional entry only if its key has no other value."""
        certain = self.tables.get(table, {})
        yield from ((key, value, None) for key, value in certain.items())
        uncertain = {entry.key: entry for entry in self.conditional if entry.name == table}
        for key, entry in uncertain.items():
            if key is not None and key not in certain:
                yield key, entry.value, entry.condition

    def values_of(self, table: str) -> dict[str, Any]:
        """Return the values of a table by key, conditional or not."""
        return {key: value for key, value, _ in self.entries(table)}


def read_constants(path: Path | None = None, version: str | None = None) -> PeftConstants:
    """Read a ``constants.py`` from a file, or from the installed PEFT.

    Args:
        path: The file; the installed package's if ``None``.
        version: PEFT's version; by default that of the package around the file.

    Raises:
        ConstantsUnreadable: If the file is missing, is not Python, or builds a table in an unsupported way.
        InvalidRequest: If the version is not a version number: it is written into files that are executed.
        MissingExtra: If no path is given and peft is not installed.
    """
    path = path or installed_constants()
    version = version or _version_around(path)
    parse_version(version)
    return parse_constants(read_source(path), version, str(path))


def read_source(path: Path) -> bytes:
    """Return the bytes of a ``constants.py``.

    Raises:
        ConstantsUnreadable: If the file does not exist or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"Cannot read {str(path)!r}: {error.strerror}. Give the path of PEFT's constants.py."
        raise ConstantsUnreadable(message, path=str(path)) from error


def parse_constants(source: bytes, version: str, path: str) -> PeftConstants:
    """Parse the source of a ``constants.py``, in the encoding it declares.

    Raises:
        ConstantsUnreadable: If it is not Python, or builds a table in an unsupported way; the message names ``path``.
    """
    module = Module(path)
    for statement in _parse(source, path).body:
        module.read(statement)
    tables = {name: table.entries for name, table in module.tables.items()}
    return PeftConstants(version, tables, module.values, tuple(module.conditional))


def _parse(source: bytes, path: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        message = f"{path!r} is not Python: {error}. Give the path of PEFT's constants.py."
        raise ConstantsUnreadable(message, path=path) from error


def installed_constants() -> Path:
    """Return the path of the installed PEFT's ``constants.py``.

    Raises:
        MissingExtra: If peft is not installed.
    """
    # find_spec of a top-level package does not import it; of its submodule it would import peft and torch.
    spec = find_spec("peft")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("peft", "peft")
    return Path(spec.submodule_search_locations[0], "utils", "constants.py")


def _version_around(path: Path) -> str:
    """Return ``__version__`` of the package whose ``utils/constants.py`` this is."""
    init = path.absolute().parent.parent / "__init__.py"
    if init.is_file():
        for node in _parse(read_source(init), str(init)).body:
            match node:
                case ast.Assign(targets=[ast.Name(id="__version__")], value=ast.Constant(value=str(version))):
                    return version
    message = f"Unknown PEFT version of {str(path)!r}: no PEFT package contains the file. Give the version."
    raise ConstantsUnreadable(message, path=str(path))


def peft_type_of(table: str) -> str | None:
    """Return the PEFT type of a table of targets, or ``None`` for another table."""
    start, _, end = TARGETS_TABLE.partition("{}")
    tag = table.removeprefix(start).removesuffix(end)
    if TARGETS_TABLE.format(tag) != table:
        return None
    return _types_by_tag().get(tag, tag)


@cache
def _types_by_tag() -> dict[str, str]:
    """Return the PEFT types whose table has another name than theirs, by the tag in the table's name."""
    text = (files("loradar.data") / "constants" / "peft_types.json").read_text(encoding="utf-8")
    aliases: dict[str, str] = json.loads(text)["aliases"]
    return aliases


def entries_of_constants(constants: PeftConstants) -> Iterator[Entry]:
    """Yield every entry of PEFT's tables of targets as a mapping entry."""
    feedforward = constants.tables.get(IA3_FEEDFORWARD_TABLE, {})
    for table in constants.tables:
        peft_type = peft_type_of(table)
        for name, targets, condition in constants.entries(table) if peft_type else ():
            spec = {"target_modules": targets}
            if peft_type == "IA3":
                spec["feedforward_modules"] = feedforward.get(name)
            reasons = (f"PEFT sets it only if {condition}",) if condition else ()
            yield Entry("transformers", name, str(peft_type), "default", TargetSpec.from_dict(spec), reasons=reasons)


def peft_mappings(constants: PeftConstants) -> list[tuple[str, str, TargetSpec]]:
    """Return (model type, PEFT type, spec) of every entry of PEFT's tables of targets, sorted."""
    entries = entries_of_constants(constants)
    return sorted(((e.name, e.peft_type, e.spec) for e in entries), key=lambda entry: entry[:2])


def constants_file(version: str = SEED_VERSION) -> Traversable:
    """Return the packaged JSON file of a PEFT version, which may not exist."""
    return files("loradar.data") / "constants" / f"peft-{version}.json"


def load_constants(path: Path | None = None, *, version: str = SEED_VERSION) -> PeftConstants:
    """Load constants from a JSON file, or those packaged for a PEFT version.

    Raises:
        ConstantsUnreadable: If the file is missing or was not written by :func:`write_constants_json`.
    """
    source = path or constants_file(version)
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
        conditional = tuple(Conditional(*(each[key] for key in _CONDITIONAL)) for each in data["conditional"])
        return PeftConstants(data["version"], data["tables"], data["values"], conditional)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = (
            f"Cannot read PEFT's constants from {str(source)!r}: {type(error).__name__}: {error}. "
            "Give a file that `loradar constants facts` wrote."
        )
        raise ConstantsUnreadable(message, path=str(source)) from error


def write_constants_json(constants: PeftConstants, path: Path) -> None:
    """Write constants as JSON with one line per table entry, so that a diff of two versions is readable."""

    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    def table(entries: dict[str, Any], indent: int) -> str:
        lines = (f"{' ' * (indent + 2)}{text(key)}: {text(value)}" for key, value in entries.items())
        return f"{{\n{_join(lines)}\n{' ' * indent}}}" if entries else "{}"

    tables = (f"    {text(name)}: {table(entries, 4)}" for name, entries in constants.tables.items())
    conditional = (f"    {text(to_json(entry))}" for entry in constants.conditional)
    fields = [
        '  "package": "peft"',
        f'  "version": {text(constants.version)}',
        f'  "tables": {{\n{_join(tables)}\n  }}',
        f'  "values": {table(constants.values, 2)}',
        f'  "conditional": [\n{_join(conditional)}\n  ]' if constants.conditional else '  "conditional": []',
    ]
    path.write_text("{\n" + _join(fields) + "\n}\n", encoding="utf-8")


def _join(lines: Iterable[str]) -> str:
    return ",\n".join(lines)
