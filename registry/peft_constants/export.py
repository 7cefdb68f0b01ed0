"""Export mappings to a version of PEFT's ``constants.py``: plan the entries it lacks, write them, read them back."""

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Mapping as Values
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, Self

from ...domain.architectures import split_make_up
from ...domain.mappings import Mapping, Source
from ...domain.methods import UNTARGETED, Method, get_method
from ...domain.targets import Targets
from ...domain.vocabulary import Status
from ...errors import ConstantsUnreadable, UnknownPeftType
from ...extras import require
from ..mappings.precedence import best_for, stored_under
from .reading import IA3_FEEDFORWARD_TABLE, PeftConstants, parse_constants, peft_type_of

Tables = dict[str, dict[str, Any]]

PEFT_PATH = "src/peft/utils/constants.py"
"""Path of the file in PEFT's repository."""

WITHOUT_REGEX = frozenset({"IA3"})
"""Methods whose tables take no regex: PEFT makes a set of its characters (``peft/tuners/ia3/model.py``, 0.21.2)."""

INEXPRESSIBLE = ("target_parameters", "exclude_modules", "exclude_blocks")
"""Fields of a spec that a table cannot express, and without which the spec would match other layers."""

INHERITED = "dead, but not corrected: its table is a copy, whose original has it for other methods"
"""Why a correction was left out that no statement of the file could take."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        names: Only these architectures; all if empty.
        peft_types: Only the tables of these PEFT methods; all if empty.
        unproven: Include mappings that were not proved live.
        correct: Also correct entries of the file that are known dead.
        limit: Maximum number of architectures, in the order of their use, then of their names.
        usage: How much each architecture is used; where this is given, no other gets an entry.
        unsuitable: Architectures that get no new entry, with the reason.
    """

    names: frozenset[str] = frozenset()
    peft_types: frozenset[str] = frozenset()
    unproven: bool = False
    correct: bool = False
    limit: int | None = None
    usage: Values[str, int] = field(default_factory=dict)
    unsuitable: Values[str, str] = field(default_factory=dict)

    def accepts(self, mapping: Mapping) -> bool:
        """Return whether a mapping may be exported: the default one of a selected architecture."""
        is_selected = all(mapping.name in names for names in (self.names, self.usage) if names)
        return is_selected and mapping.preset == "default" and mapping.library == "transformers"

    def cut(self, names: Collection[str]) -> list[str]:
        """Return as many names as the limit allows, the most used first."""
        return sorted(names, key=lambda name: (-self.usage.get(name, 0), name))[: self.limit]


@dataclass(frozen=True, slots=True)
class Export:
    """One entry to write into a table.

    Attributes:
        table: Name of the table.
        name: The model type.
        targets: The value of the entry.
        replaces: The present value of the entry, if it is known dead; ``None`` for a new entry.
        id: Id of the mapping the value comes from.
        source: Source of the mapping.
        status: Status of its verification, if there is one.
        library_version: The version verified.
        mapping: The mapping itself.
    """

    table: str
    name: str
    targets: Targets
    replaces: Targets | None
    id: str
    source: Source
    status: Status | None
    library_version: str | None
    mapping: Mapping = field(metadata={"exclude": True})

    @classmethod
    def of(cls, mapping: Mapping, table: str, targets: Targets | None, replaces: Targets | None = None) -> Self:
        """Return the entry for a mapping, which has no targets where these are ``None``."""
        check = mapping.verification
        return cls(
            table,
            mapping.name,
            targets or (),
            replaces,
            mapping.id,
            mapping.source,
            check.status if check else None,
            check.library_version if check else None,
            mapping,
        )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry that a table lacks and does not get, with the reason."""

    table: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """The changes to one ``constants.py``, and the entries left out."""

    added: tuple[Export, ...] = ()
    corrected: tuple[Export, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The architectures that get an entry, sorted."""
        return tuple(sorted({export.name for export in (*self.added, *self.corrected)}))

    def entries(self, *, corrected: bool = False) -> dict[str, dict[str, Targets]]:
        """Return the targets to add, or to replace others with, by table and model type."""
        tables: dict[str, dict[str, Targets]] = defaultdict(dict)
        for export in self.corrected if corrected else self.added:
            tables[export.table][export.name] = export.targets
        return dict(tables)


@dataclass(frozen=True, slots=True)
class Patch:
    """A ``constants.py`` before and after a plan was written into it.

    Attributes:
        before: The file as it was.
        after: The file with the plan in it; the same bytes if there was nothing to write.
        plan: What was written, and what was left out.
    """

    before: bytes
    after: bytes
    plan: ExportPlan

    def diff(self, path: str = PEFT_PATH) -> bytes:
        """Return the unified diff that ``git apply`` takes; empty if nothing changed."""
        old, new = (BytesIO(source).readlines() for source in (self.before, self.after))  # git splits at \n alone
        ends = (b"a/" + path.encode(), b"b/" + path.encode())
        changes = difflib.diff_bytes(difflib.unified_diff, old, new, *ends, lineterm=b"\n")
        return b"".join(
            line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in changes
        )

    def differing(self, before: Tables, after: Tables) -> tuple[str, ...]:
        """Return the deviations from the plan in the imported tables of both files; empty if there are none.

        Args:
            before: Tables of the file as it was (``import_tables``).
            after: Tables of the file with the plan in it.
        """
        return tuple(_deviations(before, after, self.plan))


def export_constants(
    source: bytes, mappings: Iterable[Mapping], options: ExportOptions | None = None, path: str = PEFT_PATH
) -> Patch:
    """Add the entries that the tables of a ``constants.py`` lack, and read the result back.

    Args:
        source: The file.
        mappings: The registry's mappings for transformers (``Registry.list_mappings``).
        options: Which mappings to export; all that are proved if ``None``.
        path: Name of the file in messages.

    Raises:
        ConstantsUnreadable: If the file cannot be read, has no table, or does not read back as planned.
        MissingExtra: If libcst is not installed.
    """
    require("peft", "libcst")
    from .source_edits import list_own_tables  # noqa: PLC0415 - libcst takes 0.1 s to import, and is optional

    file = parse_constants(source, "", path)
    if not any(map(peft_type_of, file.tables)):
        message = f"{path!r} has no table of target modules. Give PEFT's constants.py; before 0.6 it was other.py."
        raise ConstantsUnreadable(message, path=path)
    return apply_plan(source, plan_export(mappings, file, list_own_tables(source, path), options), path)


def apply_plan(source: bytes, plan: ExportPlan, path: str) -> Patch:
    """Write a plan into a ``constants.py`` and read it back.

    Args:
        source: The file.
        plan: A plan made for this file.
        path: Name of the file in messages.

    Raises:
        ConstantsUnreadable: If the file cannot be read, or does not read back as planned.
    """
    after = _write_plan(source, plan, path)
    before, current = (parse_constants(version, "", path) for version in (source, after))
    old, new = ({table: file.values_of(table) for table in file.tables} for file in (before, current))
    inherited = [e for e in plan.corrected if new.get(e.table, {}).get(e.name) != to_plain(e.targets)]
    left_out = (*plan.left_out, *(LeftOut(export.table, export.name, INHERITED) for export in inherited))
    plan = replace(plan, corrected=tuple(e for e in plan.corrected if e not in inherited), left_out=left_out)
    deviation = next(_deviations(old, new, plan), None)
    if deviation or before.values != current.values:
        reason = deviation or "another constant has changed"
        message = f"The patch of {path!r} does not read back as planned: {reason}. Nothing was written."
        raise ConstantsUnreadable(message, path=path)
    return Patch(source, after, plan)


def plan_export(
    mappings: Iterable[Mapping], file: PeftConstants, tables: Collection[str], options: ExportOptions | None = None
) -> ExportPlan:
    """Plan the entries to add to the tables of a ``constants.py``, and those to correct.

    Mappings that come from PEFT's own tables are never exported: an entry of a newer PEFT belongs to its own history.
    Nor are those of a make-up of a composite type, which has no key of its own in PEFT's tables.

    Args:
        mappings: The registry's mappings for transformers (``Registry.list_mappings``).
        file: The tables as they are.
        tables: Names of the tables that may get entries; every table may be corrected.
        options: Which mappings to export; all that are proved if ``None``.
    """
    options = options or ExportOptions()
    by_name: dict[str, list[Mapping]] = defaultdict(list)
    for mapping in sorted(filter(options.accepts, mappings), key=lambda mapping: mapping.name):
        if not split_make_up(mapping.name)[1]:
            by_name[mapping.name].append(mapping)
    planner = _Planner(file, options)
    planned = [each for table in file.tables for each in planner.plan(table, by_name, is_open=table in tables)]
    if options.limit is not None:
        kept = options.cut({each.name for each in planned if isinstance(each, Export)})
        planned = [each for each in planned if each.name in kept]
    exports = [each for each in planned if isinstance(each, Export)]
    return ExportPlan(
        added=tuple(export for export in exports if export.replaces is None),
        corrected=tuple(export for export in exports if export.replaces is not None),
        left_out=tuple(each for each in planned if isinstance(each, LeftOut)),
    )


class _Planner:
    def __init__(self, file: PeftConstants, options: ExportOptions) -> None:
        self._file = file
        self._options = options
        values = (value for table, entries in file.tables.items() if peft_type_of(table) for value in entries.values())
        self._has_regex = any(isinstance(value, str) for value in values)

    def plan(self, table: str, by_name: dict[str, list[Mapping]], *, is_open: bool) -> Iterator[Export | LeftOut]:
        """Yield the entries to write into one table, and those left out; none for a method unknown to this loradar."""
        try:
            method = get_method(peft_type_of(table) or "")
        except UnknownPeftType:  # a method that PEFT has dropped, or a table of something else
            return
        if method.family in UNTARGETED or (self._options.peft_types and method.name not in self._options.peft_types):
            return
        present = self._file.values_of(table)
        for name, mappings in by_name.items():
            if name not in present and is_open and name in self._options.unsuitable:
                yield LeftOut(table, name, self._options.unsuitable[name])
            elif name not in present and is_open:
                yield from self._entries(table, method, mappings)
            elif name in present and self._options.correct and _is_dead(mappings, method, present[name]):
                yield from self._entries(table, method, mappings, _as_targets(present[name]))

    def _entries(
        self, table: str, method: Method, mappings: list[Mapping], replaces: Targets | None = None
    ) -> Iterator[Export | LeftOut]:
        """Yield the entry of a table and, for IA3, that of the table of modules it scales at the input; or why not."""
        candidates = _candidates(mappings, method)
        if replaces is not None:
            candidates = [mapping for mapping in candidates if mapping.source.kind != "peft"]
        best = best_for(method, candidates)
        if replaces is None and (best is None or best.source.kind == "peft"):
            return
        reason = next(self._objections(best, method), None) if best else "nothing else is known"
        if best is None or reason:
            yield LeftOut(table, mappings[0].name, f"{'' if replaces is None else 'dead, but not corrected: '}{reason}")
            return
        yield Export.of(best, table, best.spec.target_modules, replaces)
        if method.name == "IA3":
            scaled = self._file.tables.get(IA3_FEEDFORWARD_TABLE, {}).get(best.name) or ()
            before = None if replaces is None else _as_targets(scaled)
            yield Export.of(best, IA3_FEEDFORWARD_TABLE, best.spec.feedforward_modules, before)

    def _objections(self, mapping: Mapping, method: Method) -> Iterator[str]:
        """Yield the reasons why a mapping cannot be written into a table of this file."""
        spec = mapping.spec
        missing = [field for field in INEXPRESSIBLE if getattr(spec, field)]
        has_regex = any(isinstance(targets, str) for targets in (spec.target_modules, spec.feedforward_modules))
        yield from _doubts(mapping, is_unproven_accepted=self._options.unproven)
        if missing:
            yield f"it needs {' and '.join(missing)}, which a table cannot express"
        if not spec.target_modules:
            yield "it names no modules"
        if has_regex and method.name in WITHOUT_REGEX:
            yield f"its targets are a regex, which PEFT reads as a set of characters in {method.name}'s table"
        if has_regex and not self._has_regex:
            yield "its targets are a regex, and no table of this file has one: its PEFT may not support regexes"
        if method.name == "IA3":
            yield from self._feedforward_conflicts(mapping)

    def _feedforward_conflicts(self, mapping: Mapping) -> Iterator[str]:
        """Yield why IA3's second table cannot take the feed-forward modules of a mapping."""
        if IA3_FEEDFORWARD_TABLE not in self._file.tables:
            yield f"there is no {IA3_FEEDFORWARD_TABLE}"
            return
        present = self._file.tables[IA3_FEEDFORWARD_TABLE].get(mapping.name)
        is_other = present is not None and _as_targets(present) != (mapping.spec.feedforward_modules or ())
        if is_other and not self._options.correct:
            yield f"{IA3_FEEDFORWARD_TABLE} already has {present!r}"


def _candidates(mappings: Iterable[Mapping], method: Method) -> list[Mapping]:
    """Return the mappings of a method and of its family; of PEFT's own entries only those of the method itself."""
    family = stored_under(method)
    return [m for m in mappings if m.peft_type == method.name or (m.peft_type == family and m.source.kind != "peft")]


def _is_dead(mappings: Iterable[Mapping], method: Method, value: Any) -> bool:
    """Return whether the value of an entry is one of PEFT's that was verified dead."""
    own = (m for m in mappings if m.source.kind == "peft" and m.peft_type == method.name)
    dead = [m.spec.target_modules for m in own if m.verification and m.verification.status == "dead"]
    return _as_targets(value) in dead


def _doubts(mapping: Mapping, *, is_unproven_accepted: bool) -> Iterator[str]:
    """Yield why a mapping does not count as proved."""
    check = mapping.verification
    if check and check.status in ("dead", "partial"):
        finding = f": {check.findings[0]}" if check.findings else ""
        yield f"{check.status} on {mapping.library} {check.library_version}{finding}"
    elif not is_unproven_accepted and (check is None or check.status != "live"):
        yield f"not proved on {mapping.library} {check.library_version}" if check else "never checked"


def _as_targets(value: Any) -> Targets:
    return value if isinstance(value, str) else tuple(value)


def to_plain(targets: Targets | None) -> Any:
    """Return targets in their JSON form: a list for a tuple."""
    return list(targets) if isinstance(targets, tuple) else targets


def _write_plan(source: bytes, plan: ExportPlan, path: str) -> bytes:
    """Return the file with every entry of a plan that it lacks; a copy of a table gets entries from its original."""
    from .source_edits import add_entries, correct_entries  # noqa: PLC0415 - libcst is optional

    current = parse_constants(source, "", path)
    for corrected, write in ((True, correct_entries), (False, add_entries)):
        for table, entries in plan.entries(corrected=corrected).items():
            present = current.values_of(table)
            due = {name: targets for name, targets in entries.items() if present.get(name) != to_plain(targets)}
            if due:
                source = write(source, table, due, path)
                current = parse_constants(source, "", path)
    return source


def _deviations(before: Tables, after: Tables, plan: ExportPlan) -> Iterator[str]:
    """Yield each deviation from the plan: a planned entry that is missing, and an unplanned change."""
    if before.keys() != after.keys():
        yield f"the tables are {sorted(after)}"
        return
    for export in (*plan.added, *plan.corrected):
        if export.table in after and after[export.table].get(export.name) != to_plain(export.targets):
            yield f"{export.table}[{export.name!r}] is not {to_plain(export.targets)!r}"
    for table, old in before.items():
        for name in _changed_names(old, after[table]):
            planned = plan.corrected if name in old else plan.added
            if not any(e.name == name and to_plain(e.targets) == after[table].get(name) for e in planned):
                yield f"{table}[{name!r}] has changed"


def _changed_names(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    common = {name for name in old.keys() & new.keys() if old[name] == new[name]}
    return [name for name in old.keys() | new.keys() if name not in common]
