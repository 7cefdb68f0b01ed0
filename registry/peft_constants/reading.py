"""PEFT's ``constants.py``: found, versioned and read as facts, without importing or executing any of it."""

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from ...domain.targets import TargetSpec
from ...domain.versions import parse_version
from ...errors import ConstantsUnreadable, MissingExtra
from ..mappings.entries import Entry
from .syntax import Conditional, read_module


@dataclass(frozen=True, slots=True)
class PeftConstants:
    """The facts of one version of PEFT's ``constants.py``.

    Attributes:
        version: PEFT's version.
        tables: Every dict, such as ``TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING``, by name.
        values: Every other constant, such as ``SEQ_CLS_HEAD_NAMES``, by name.
        conditional: What is set only inside an ``if``; conditions are kept as text and never evaluated.
    """

    version: str
    tables: dict[str, dict[str, Any]]
    values: dict[str, Any]
    conditional: tuple[Conditional, ...] = ()

    def entries(self, table: str) -> Iterator[tuple[str, Any, str | None]]:
        """Yield (key, value, condition) of a table; a conditional entry if its key has no other value."""
        certain = self.tables.get(table, {})
        yield from ((key, value, None) for key, value in certain.items())
        uncertain = {entry.key: entry for entry in self.conditional if entry.name == table}
        for key, entry in uncertain.items():
            if key is not None and key not in certain:
                yield key, entry.value, entry.condition

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "package": "peft",
            "version": self.version,
            "tables": self.tables,
            "values": self.values,
            "conditional": [entry.to_dict() for entry in self.conditional],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the facts from their JSON form."""
        conditional = tuple(Conditional.from_dict(entry) for entry in data["conditional"])
        return cls(data["version"], data["tables"], data["values"], conditional)


def read_constants(path: Path | None = None, version: str | None = None) -> PeftConstants:
    """Read PEFT's ``constants.py`` from a file, or from the installed package.

    Args:
        path: The file; the installed package's if ``None``.
        version: PEFT's version; else that of the package installed, or of the one around the file.

    Raises:
        ConstantsUnreadable: If the file is missing, is no Python, or builds a table in a way not understood.
        InvalidRequest: If the version is none: it is written into files that are run.
        MissingExtra: If no path is given and peft is not installed.
    """
    version = version or (_installed_version() if path is None else _version_around(path))
    parse_version(version)
    path = path or installed_constants()
    return parse_constants(read_source(path), version, str(path))


def read_source(path: Path) -> bytes:
    """Return the bytes of a ``constants.py``.

    Raises:
        ConstantsUnreadable: If there is no such file, or it may not be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"Cannot read {str(path)!r}: {error.strerror}. Give the path of PEFT's constants.py."
        raise ConstantsUnreadable(message, path=str(path)) from error


def parse_constants(source: bytes, version: str, path: str) -> PeftConstants:
    """Return the facts of a ``constants.py``, in whatever encoding it says it is.

    Raises:
        ConstantsUnreadable: If it is no Python, or builds a table in a way not understood; names ``path``.
    """
    module = read_module(_parse(source, path), path)
    return PeftConstants(version, module.entries_by_table(), module.values, tuple(module.conditional))


def _parse(source: bytes, path: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        message = f"{path!r} is not Python: {error}. Give the path of PEFT's constants.py."
        raise ConstantsUnreadable(message, path=path) from error


def installed_constants() -> Path:
    """Return the path of the installed package's ``constants.py``.

    Raises:
        MissingExtra: If peft is not installed.
    """
    # A top-level package is found without importing it; asking for its submodule would import peft and torch.
    spec = find_spec("peft")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("peft", "peft")
    return Path(spec.submodule_search_locations[0], "utils", "constants.py")


def _installed_version() -> str:
    from importlib import metadata  # noqa: PLC0415 - 20 ms that a lookup does without

    try:
        return metadata.version("peft")
    except metadata.PackageNotFoundError:
        raise MissingExtra("peft", "peft") from None


def _version_around(path: Path) -> str:
    """Return ``__version__`` of the package whose ``utils/constants.py`` this is."""
    init = path.absolute().parent.parent / "__init__.py"
    if init.is_file():
        for node in _parse(read_source(init), str(init)).body:
            match node:
                case ast.Assign(targets=[ast.Name(id="__version__")], value=ast.Constant(value=str(version))):
                    return version
    message = f"The version of {str(path)!r} is not known: there is no PEFT package around it. Give the version."
    raise ConstantsUnreadable(message, path=str(path))


SEED_VERSION = "0.21.2"
"""The PEFT version whose facts a new registry starts with."""


TARGETS_TABLE = "TRANSFORMERS_MODELS_TO_{}_TARGET_MODULES_MAPPING"
"""Name of the table of targets for one PEFT method."""

IA3_FEEDFORWARD_TABLE = "TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING"


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


def peft_mappings(constants: PeftConstants) -> list[tuple[str, str, TargetSpec]]:
    """Return (model type, PEFT type, spec) of every entry of PEFT's tables of targets, sorted."""
    entries = entries_of_constants(constants)
    return sorted(((e.name, e.peft_type, e.spec) for e in entries), key=lambda entry: entry[:2])


def entries_of_constants(constants: PeftConstants) -> Iterator[Entry]:
    """Yield every entry of PEFT's tables of targets."""
    feedforward = constants.tables.get(IA3_FEEDFORWARD_TABLE, {})
    for table in constants.tables:
        peft_type = peft_type_of(table)
        for name, targets, condition in constants.entries(table) if peft_type else ():
            spec = {"target_modules": targets}
            if peft_type == "IA3":
                spec["feedforward_modules"] = feedforward.get(name)
            reasons = (f"PEFT sets it only if {condition}",) if condition else ()
            yield Entry("transformers", name, str(peft_type), "default", TargetSpec.from_dict(spec), reasons=reasons)
