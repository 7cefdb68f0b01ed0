"""The registry's answers as a Python file with the names of PEFT's tables: importable by itself, without PEFT."""

from collections.abc import Iterable, Iterator
from importlib import metadata

from ...domain.mappings import Mapping
from ...domain.targets import Targets
from ..mappings.entries import IA3_FEEDFORWARD_TABLE
from .export import plan_export
from .facts_file import TARGETS_TABLE, load_constants, peft_type_of
from .formatting import Style
from .reading import PeftConstants

Tables = dict[str, dict[str, Targets]]

HEADER = '''"""Target modules of transformers' architectures, by model type, in the names of PEFT's own tables.

Written by loradar {version}{stated}. Entries PEFT lacks are those of which every layer was seen
to receive a gradient.
"""
'''


def constants_python(mappings: Iterable[Mapping], *, only_ours: bool = False) -> str:
    """Return the source of a module with every table: PEFT's entries as they are stored, then what they lack.

    Args:
        mappings: What the registry holds for transformers (``Registry.list_mappings``).
        only_ours: Leave PEFT's entries out.
    """
    mappings = tuple(mappings)
    stored = _stored(mappings)
    file = PeftConstants("", {table: _plain(entries) for table, entries in stored.items()}, {})
    ours = plan_export(mappings, file, [*stored]).entries()
    tables: Tables = {table: ({} if only_ours else stored[table]) | ours.get(table, {}) for table in stored}
    versions = sorted({mapping.source.version for mapping in mappings if mapping.source.kind == "peft"})
    stated = f"; PEFT's entries are those of {', '.join(versions)}" if versions and not only_ours else ""
    header = HEADER.format(version=metadata.version("loradar"), stated=stated)
    return "\n".join([header, *_statements(tables)])


def _stored(mappings: Iterable[Mapping]) -> Tables:
    """Return PEFT's tables as the registry holds them, in the order of its file."""
    names = {peft_type_of(table): table for table in load_constants().tables if peft_type_of(table)}
    tables: Tables = {table: {} for table in [*names.values(), IA3_FEEDFORWARD_TABLE]}
    for mapping in mappings:
        if mapping.source.kind != "peft" or mapping.spec.target_modules is None:
            continue
        table = names.get(mapping.peft_type, TARGETS_TABLE.format(mapping.peft_type))
        tables.setdefault(table, {})[mapping.name] = mapping.spec.target_modules
        if mapping.spec.feedforward_modules is not None:
            tables[IA3_FEEDFORWARD_TABLE][mapping.name] = mapping.spec.feedforward_modules
    return tables


def _statements(tables: Tables) -> Iterator[str]:
    """Yield a statement per table; one that says the same as another before is its copy, as in PEFT's file."""
    style = Style()
    written: dict[str, str] = {}
    for table, entries in tables.items():
        lines = (f"    {style.string(name)}: {style.value(name, value)},\n" for name, value in entries.items())
        literal = f"{{\n{''.join(lines)}}}" if entries else "{}"
        original = written.setdefault(literal, table)
        yield f"{table} = {literal if original == table else f'{original}.copy()'}\n"


def _plain(entries: dict[str, Targets]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in entries.items()}
