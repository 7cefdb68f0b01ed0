"""Plan an export: the entries to add to a version of PEFT's ``constants.py``, and why others are left out."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...domain.mappings import Mapping
from ...domain.methods import UNTARGETED, Method, get_method
from ...domain.targets import Targets
from ...errors import UnknownPeftType
from ...schema import to_json
from ..mappings.precedence import best_for, stored_under
from .reading import IA3_FEEDFORWARD_TABLE, PeftConstants, peft_type_of

WITHOUT_REGEX = frozenset({"IA3"})
"""Methods whose tables take no regex: PEFT makes a set of its characters (``peft/tuners/ia3/model.py``, 0.21.2)."""

INEXPRESSIBLE = ("target_parameters", "exclude_modules")
"""Fields of a spec that a table cannot express, and without which the spec would match other layers."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        names: Only these architectures; all if empty.
        peft_types: Only the tables of these PEFT methods; all if empty.
        unproven: Include mappings that were not proved live.
        correct: Also correct entries of the file that are known dead.
        limit: Maximum number of architectures, in the order of their names.
    """

    names: frozenset[str] = frozenset()
    peft_types: frozenset[str] = frozenset()
    unproven: bool = False
    correct: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """One entry to write into a table.

    Attributes:
        table: Name of the table.
        name: The model type.
        targets: The value of the entry.
        mapping: The mapping the value comes from.
        replaces: The present value of the entry, if it is known dead; ``None`` for a new entry.
    """

    table: str
    name: str
    targets: Targets
    mapping: Mapping
    replaces: Targets | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        check = self.mapping.verification
        return {
            "table": self.table,
            "name": self.name,
            "targets": to_plain(self.targets),
            "replaces": to_plain(self.replaces),
            "id": self.mapping.id,
            "source": to_json(self.mapping.source),
            "status": check.status if check else None,
            "library_version": check.library_version if check else None,
        }


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry that a table lacks and does not get, with the reason."""

    table: str
    name: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"table": self.table, "name": self.name, "reason": self.reason}


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


def plan_export(
    mappings: Iterable[Mapping], file: PeftConstants, tables: Collection[str], options: ExportOptions | None = None
) -> ExportPlan:
    """Plan the entries to add to the tables of a ``constants.py``, and those to correct.

    Mappings that come from PEFT's own tables are never exported: an entry of a newer PEFT belongs to its own history.

    Args:
        mappings: The registry's mappings for transformers (``Registry.list_mappings``).
        file: The tables as they are.
        tables: Names of the tables that may get entries; every table may be corrected.
        options: Which mappings to export; all that are proved if ``None``.
    """
    options = options or ExportOptions()
    by_name: dict[str, list[Mapping]] = defaultdict(list)
    for mapping in sorted(mappings, key=lambda mapping: mapping.name):
        if mapping.preset == "default" and mapping.library == "transformers":
            by_name[mapping.name].append(mapping)
    planner = _Planner(file, options)
    for table in file.tables:
        planner.plan(table, by_name, is_open=table in tables)
    plan = ExportPlan(tuple(planner.added), tuple(planner.corrected), tuple(planner.left_out))
    if options.limit is None:
        return plan
    kept = frozenset(plan.names[: options.limit])
    return ExportPlan(
        tuple(export for export in plan.added if export.name in kept),
        tuple(export for export in plan.corrected if export.name in kept),
        tuple(left for left in plan.left_out if left.name in kept),
    )


class _Planner:
    def __init__(self, file: PeftConstants, options: ExportOptions) -> None:
        self.added: list[Export] = []
        self.corrected: list[Export] = []
        self.left_out: list[LeftOut] = []
        self._file = file
        self._options = options
        values = (value for table, entries in file.tables.items() if peft_type_of(table) for value in entries.values())
        self._has_regex = any(isinstance(value, str) for value in values)

    def plan(self, table: str, by_name: dict[str, list[Mapping]], *, is_open: bool) -> None:
        """Plan the entries of one table; the table of a method that this loradar does not know is skipped."""
        try:
            method = get_method(peft_type_of(table) or "")
        except UnknownPeftType:  # a method that PEFT has dropped, or a table of something else
            return
        if method.family in UNTARGETED or (self._options.peft_types and method.name not in self._options.peft_types):
            return
        present = {name: value for name, value, _ in self._file.entries(table)}
        for name, mappings in by_name.items():
            if self._options.names and name not in self._options.names:
                continue
            if name not in present and is_open:
                self._add(table, method, mappings)
            elif name in present and self._options.correct and _is_dead(mappings, method, present[name]):
                self._correct(table, method, mappings, _as_targets(present[name]))

    def _add(self, table: str, method: Method, mappings: list[Mapping]) -> None:
        mapping = best_for(method, _candidates(mappings, method))
        if mapping is None or mapping.source.kind == "peft":
            return
        reason = self._objection(mapping, method)
        if reason:
            self.left_out.append(LeftOut(table, mapping.name, reason))
        else:
            self.added += _exports(table, method, mapping)

    def _correct(self, table: str, method: Method, mappings: list[Mapping], replaces: Targets) -> None:
        others = [mapping for mapping in _candidates(mappings, method) if mapping.source.kind != "peft"]
        mapping = best_for(method, others)
        reason = self._objection(mapping, method) if mapping else "nothing else is known"
        if reason or mapping is None:
            self.left_out.append(LeftOut(table, mappings[0].name, f"dead, but not corrected: {reason}"))
        else:
            feedforward = self._file.tables.get(IA3_FEEDFORWARD_TABLE, {}).get(mapping.name)
            self.corrected += _exports(table, method, mapping, replaces, _as_targets(feedforward or ()))

    def _objection(self, mapping: Mapping, method: Method) -> str | None:
        """Return why a mapping cannot be written into a table, or ``None`` if it can."""
        spec = mapping.spec
        missing = [field for field in INEXPRESSIBLE if getattr(spec, field)]
        has_regex = any(isinstance(targets, str) for targets in (spec.target_modules, spec.feedforward_modules))
        unproven = _unproven(mapping, accepted=self._options.unproven)
        if unproven:
            return unproven
        if missing:
            return f"it needs {' and '.join(missing)}, which a table cannot express"
        if not spec.target_modules:
            return "it names no modules"
        if has_regex and method.name in WITHOUT_REGEX:
            return f"its targets are a regex, which PEFT reads as a set of characters in {method.name}'s table"
        if has_regex and not self._has_regex:
            return "its targets are a regex, and no table of this file has one: its PEFT may not support regexes"
        return self._feedforward_conflict(mapping) if method.name == "IA3" else None

    def _feedforward_conflict(self, mapping: Mapping) -> str | None:
        """Return why IA3's second table cannot take the feed-forward modules of a mapping, or ``None`` if it can."""
        if IA3_FEEDFORWARD_TABLE not in self._file.tables:
            return f"there is no {IA3_FEEDFORWARD_TABLE}"
        present = self._file.tables[IA3_FEEDFORWARD_TABLE].get(mapping.name)
        is_other = present is not None and _as_targets(present) != (mapping.spec.feedforward_modules or ())
        return f"{IA3_FEEDFORWARD_TABLE} already has {present!r}" if is_other and not self._options.correct else None


def _candidates(mappings: Sequence[Mapping], method: Method) -> list[Mapping]:
    """Return the mappings of a method and of its family; of PEFT's own entries only those of the method itself."""
    family = stored_under(method)
    return [m for m in mappings if m.peft_type == method.name or (m.peft_type == family and m.source.kind != "peft")]


def _is_dead(mappings: Sequence[Mapping], method: Method, value: Any) -> bool:
    """Return whether the value of an entry is one of PEFT's that was verified dead."""
    return any(
        mapping.source.kind == "peft"
        and mapping.peft_type == method.name
        and mapping.spec.target_modules == _as_targets(value)
        and mapping.verification is not None
        and mapping.verification.status == "dead"
        for mapping in mappings
    )


def _unproven(mapping: Mapping, *, accepted: bool) -> str | None:
    """Return why a mapping does not count as proved, or ``None`` if it does."""
    check = mapping.verification
    if check and check.status in ("dead", "partial"):
        finding = f": {check.findings[0]}" if check.findings else ""
        return f"{check.status} on {mapping.library} {check.library_version}{finding}"
    if accepted or (check and check.status == "live"):
        return None
    return f"not proved on {mapping.library} {check.library_version}" if check else "never checked"


def _exports(
    table: str, method: Method, mapping: Mapping, replaces: Targets | None = None, feedforward: Targets | None = None
) -> Iterator[Export]:
    """Yield the entry of a table and, for IA3, the entry of the table of modules it scales at the input."""
    yield Export(table, mapping.name, mapping.spec.target_modules or (), mapping, replaces)
    if method.name == "IA3":
        scaled = mapping.spec.feedforward_modules or ()
        yield Export(IA3_FEEDFORWARD_TABLE, mapping.name, scaled, mapping, feedforward if replaces else None)


def _as_targets(value: Any) -> Targets:
    return value if isinstance(value, str) else tuple(value)


def to_plain(targets: Targets | None) -> Any:
    """Return targets in their JSON form: a list for a tuple."""
    return list(targets) if isinstance(targets, tuple) else targets
