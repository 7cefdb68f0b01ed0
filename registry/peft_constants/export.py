"""What loradar has to add to a version of PEFT's ``constants.py``: entries its tables lack, and why others stay out."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...domain.mappings import Mapping
from ...domain.methods import UNTARGETED, Method, get_method
from ...domain.targets import Targets, TargetSpec
from ...errors import UnknownPeftType
from ..mappings.families import stored_under
from ..mappings.resolve import best_for
from .reading import IA3_FEEDFORWARD_TABLE, PeftConstants, peft_type_of

WITHOUT_REGEX = frozenset({"IA3"})
"""Methods whose tables take no regex: PEFT makes a set of its characters (``peft/tuners/ia3/model.py``, 0.21.2)."""

UNSAYABLE = ("target_parameters", "exclude_modules")
"""Fields of a spec that a table cannot say, and without which it would hit something else."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to export.

    Attributes:
        names: Only these architectures; all if empty.
        peft_types: Only the tables of these PEFT methods; all if empty.
        unproven: Also mappings of which nobody has seen every layer get a gradient.
        correct: Correct entries of the file that are known dead, too.
        limit: At most so many architectures, in the order of their names.
    """

    names: frozenset[str] = frozenset()
    peft_types: frozenset[str] = frozenset()
    unproven: bool = False
    correct: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """One entry of a table, as it is to be written.

    Attributes:
        table: Name of the table.
        name: The model type.
        targets: What the table is to hold for it.
        mapping: What speaks for it.
        replaces: What the table holds now, if that is known dead; ``None`` for a new entry.
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
            "targets": _plain(self.targets),
            "replaces": _plain(self.replaces),
            "id": self.mapping.id,
            "source": self.mapping.source.to_dict(),
            "status": check.status if check else None,
            "library_version": check.library_version if check else None,
        }


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry that a table lacks and is not to get, with the reason."""

    table: str
    name: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"table": self.table, "name": self.name, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What is to be written into one ``constants.py``."""

    added: tuple[Export, ...] = ()
    corrected: tuple[Export, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The architectures that get an entry, sorted."""
        return tuple(sorted({export.name for export in (*self.added, *self.corrected)}))

    def entries(self, *, corrected: bool = False) -> dict[str, dict[str, Targets]]:
        """Return the targets to add, or to put in the place of others, by table and model type."""
        tables: dict[str, dict[str, Targets]] = defaultdict(dict)
        for export in self.corrected if corrected else self.added:
            tables[export.table][export.name] = export.targets
        return dict(tables)


def plan_export(
    mappings: Iterable[Mapping], file: PeftConstants, tables: Collection[str], wish: Wish | None = None
) -> ExportPlan:
    """Return what the tables of a ``constants.py`` lack.

    What comes from PEFT's own tables is never exported: of a newer PEFT's entries its own history is the place.

    Args:
        mappings: What the registry holds for transformers (``Registry.list_mappings``).
        file: The tables as they are.
        tables: Names of those that may get entries; every table's may be corrected.
        wish: What to export; all that is proved if ``None``.
    """
    wish = wish or Wish()
    known = _by_name(mappings)
    planner = _Planner(file, wish)
    for table in file.tables:
        planner.plan(table, known, is_open=table in tables)
    plan = ExportPlan(tuple(planner.added), tuple(planner.corrected), tuple(planner.left_out))
    return _limited(plan, wish.limit)


def _by_name(mappings: Iterable[Mapping]) -> dict[str, list[Mapping]]:
    known: dict[str, list[Mapping]] = defaultdict(list)
    for mapping in mappings:
        if mapping.preset == "default" and mapping.library == "transformers":
            known[mapping.name].append(mapping)
    return {name: known[name] for name in sorted(known)}


def _limited(plan: ExportPlan, limit: int | None) -> ExportPlan:
    if limit is None:
        return plan
    kept = frozenset(plan.names[:limit])
    return ExportPlan(
        tuple(export for export in plan.added if export.name in kept),
        tuple(export for export in plan.corrected if export.name in kept),
        tuple(left for left in plan.left_out if left.name in kept),
    )


class _Planner:
    def __init__(self, file: PeftConstants, wish: Wish) -> None:
        self.added: list[Export] = []
        self.corrected: list[Export] = []
        self.left_out: list[LeftOut] = []
        self._file = file
        self._wish = wish
        self._takes_regex = any(isinstance(value, str) for table in _target_tables(file) for value in table.values())

    def plan(self, table: str, known: dict[str, list[Mapping]], *, is_open: bool) -> None:
        """Decide on every architecture for one table; a method PEFT has dropped since, or never had, is passed over."""
        method = _find_method(table)
        if method is None or (self._wish.peft_types and method.name not in self._wish.peft_types):
            return
        present = {name: value for name, value, _ in self._file.entries(table)}
        for name, mappings in known.items():
            if self._wish.names and name not in self._wish.names:
                continue
            if name not in present and is_open:
                self._add(table, method, mappings)
            elif name in present and self._wish.correct and _is_dead(mappings, method, present[name]):
                self._correct(table, method, mappings, _as_targets(present[name]))

    def _add(self, table: str, method: Method, mappings: list[Mapping]) -> None:
        mapping = best_for(method, _answering(mappings, method))
        if mapping is None or mapping.source.kind == "peft":
            return
        reason = self._objection(mapping, method)
        if reason:
            self.left_out.append(LeftOut(table, mapping.name, reason))
        else:
            self.added += _exports(table, method, mapping)

    def _correct(self, table: str, method: Method, mappings: list[Mapping], replaces: Targets) -> None:
        others = [mapping for mapping in _answering(mappings, method) if mapping.source.kind != "peft"]
        mapping = best_for(method, others)
        reason = self._objection(mapping, method) if mapping else "nothing else is known"
        if reason or mapping is None:
            self.left_out.append(LeftOut(table, mappings[0].name, f"dead, but not corrected: {reason}"))
        else:
            feedforward = self._file.tables.get(IA3_FEEDFORWARD_TABLE, {}).get(mapping.name)
            self.corrected += _exports(table, method, mapping, replaces, _as_targets(feedforward or ()))

    def _objection(self, mapping: Mapping, method: Method) -> str | None:
        """Return why a mapping cannot stand in a table, or ``None`` if it can."""
        return (
            _unproven(mapping, accepted=self._wish.unproven)
            or _unsayable(mapping.spec)
            or self._regex(mapping.spec, method)
            or (self._feedforward(mapping) if method.name == "IA3" else None)
        )

    def _feedforward(self, mapping: Mapping) -> str | None:
        if IA3_FEEDFORWARD_TABLE not in self._file.tables:
            return f"there is no {IA3_FEEDFORWARD_TABLE}"
        said = self._file.tables[IA3_FEEDFORWARD_TABLE].get(mapping.name)
        is_other = said is not None and _as_targets(said) != (mapping.spec.feedforward_modules or ())
        return f"{IA3_FEEDFORWARD_TABLE} says {said!r} of it already" if is_other and not self._wish.correct else None

    def _regex(self, spec: TargetSpec, method: Method) -> str | None:
        if not any(isinstance(targets, str) for targets in (spec.target_modules, spec.feedforward_modules)):
            return None
        if method.name in WITHOUT_REGEX:
            return f"it takes a regex, and PEFT takes one in {method.name}'s table for its characters"
        if not self._takes_regex:
            return "it takes a regex, and no table of this file has one: its PEFT may take it for its characters"
        return None


def _find_method(table: str) -> Method | None:
    try:
        method = get_method(peft_type_of(table) or "")
    except UnknownPeftType:
        return None
    return None if method.family in UNTARGETED else method


def _answering(mappings: Sequence[Mapping], method: Method) -> list[Mapping]:
    """Return what may answer for a method: its family's mappings, but of PEFT's entries only those for itself."""
    family = stored_under(method)
    return [m for m in mappings if m.peft_type == method.name or (m.peft_type == family and m.source.kind != "peft")]


def _target_tables(file: PeftConstants) -> Iterator[dict[str, Any]]:
    return (entries for table, entries in file.tables.items() if peft_type_of(table))


def _is_dead(mappings: Sequence[Mapping], method: Method, value: Any) -> bool:
    """Tell whether an entry of a file is one that PEFT's history has and that was seen to train nothing."""
    return any(
        mapping.source.kind == "peft"
        and mapping.peft_type == method.name
        and mapping.spec.target_modules == _as_targets(value)
        and mapping.verification is not None
        and mapping.verification.status == "dead"
        for mapping in mappings
    )


def _unproven(mapping: Mapping, *, accepted: bool) -> str | None:
    check = mapping.verification
    if check and check.status in ("dead", "partial"):
        told = f": {check.findings[0]}" if check.findings else ""
        return f"{check.status} on {mapping.library} {check.library_version}{told}"
    if accepted or (check and check.status == "live"):
        return None
    return f"not proved on {mapping.library} {check.library_version}" if check else "never checked"


def _unsayable(spec: TargetSpec) -> str | None:
    said = spec.to_dict()
    needed = [field for field in UNSAYABLE if said[field]]
    if needed:
        return f"it needs {' and '.join(needed)}, which a table cannot say"
    return None if spec.target_modules else "it names no modules"


def _exports(
    table: str, method: Method, mapping: Mapping, replaces: Targets | None = None, feedforward: Targets | None = None
) -> Iterator[Export]:
    """Yield the entry of a table, and for IA3 that of the table which says what is scaled at the input."""
    yield Export(table, mapping.name, mapping.spec.target_modules or (), mapping, replaces)
    if method.name == "IA3":
        scaled = mapping.spec.feedforward_modules or ()
        yield Export(IA3_FEEDFORWARD_TABLE, mapping.name, scaled, mapping, feedforward if replaces else None)


def _as_targets(value: Any) -> Targets:
    return value if isinstance(value, str) else tuple(value)


def _plain(targets: Targets | None) -> Any:
    return list(targets) if isinstance(targets, tuple) else targets
