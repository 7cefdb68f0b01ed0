"""Choose the mapping of a lookup by precedence, and fit it to the method.

Imports no SQLAlchemy, since ``sqlite_lookup`` does without.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Row
from dataclasses import replace
from typing import Any

from ...domain.architectures import (
    ArchitectureName,
    ModelPart,
    PromptFacts,
    describe_make_up,
    is_composite,
    split_make_up,
)
from ...domain.layers import Coverage
from ...domain.mappings import Mapping, Source, Verification
from ...domain.methods import TARGETED, UNTARGETED, Method, explain_facts
from ...domain.targets import Formula, TargetSpec, without_exclusion
from ...domain.versions import Versions, nearest
from ...domain.vocabulary import STANDS_FOR, SourceKind
from ...errors import MethodDoesNotFit
from ..db.encoding import MappingKey
from .ranges import Place, choose_revision, with_distance

PRECEDENCE: tuple[SourceKind, ...] = ("community", "peft", "scanner")
"""Sources, the most trusted first."""

DEMOTED = {"partial": 1, "dead": 2}
"""Ranks by which a verification demotes a mapping of any source."""


def of_preset(candidates: Iterable[Mapping], preset: str) -> list[Mapping]:
    """Return the mappings for a preset; of an architecture that has none, those of the preset that stands for it."""
    candidates = [*candidates]
    same = STANDS_FOR.get(preset)
    own = {(one.library, one.name) for one in candidates if one.preset == preset}
    return [
        one if one.preset == preset else replace(one, preset=preset)
        for one in candidates
        if one.preset == preset or (one.preset == same and (one.library, one.name) not in own)
    ]


def best_for(method: Method, candidates: Iterable[Mapping], library_version: str | None = None) -> Mapping | None:
    """Return the first mapping by precedence that fits a method.

    Of one source, a mapping for the method itself comes before one for its family.
    """
    latest = sorted(latest_revisions(candidates, library_version), key=lambda mapping: mapping.peft_type != method.name)
    fitted = (fit(mapping, method) for mapping in latest)
    return min((mapping for mapping in fitted if mapping), key=rank, default=None)


def find_answer(
    method: Method,
    place: Place,
    read: Callable[[str | None], Iterable[Mapping]],
    translate: Callable[[Mapping], Mapping],
) -> Mapping | None:
    """Return the mapping to use at a place among the scanned versions; ``None`` if none is known to hold there.

    A mapping verified dead is never returned.

    Args:
        method: The PEFT method.
        place: The place of the requested version.
        read: Returns the candidates, verified for a scanned version.
        translate: Returns a stale mapping in the newest layer names.
    """
    groups = place.list_candidates()
    if method.family in UNTARGETED and place.version and place.seen:  # it names no layers
        groups = [(nearest(place.version, place.seen),)]
    for versions in groups:
        best_ones = ((best_for(method, read(version), version), version) for version in versions)
        found = [translate(one) for one, version in best_ones if one and place.is_known(one, version)]
        if len(found) == len(versions) and _agree(found):
            return _with_make_up(with_distance(found[0], place, versions[0]))
    return None


def _agree(found: Sequence[Mapping]) -> bool:
    """Return whether the mappings of several versions are live or not known to be dead, with the same targets."""
    statuses = {one.verification.status if one.verification else "unproven" for one in found}
    is_sound = "dead" not in statuses and (len(found) == 1 or len({s in DEMOTED for s in statuses}) == 1)
    return is_sound and all(one.spec == found[0].spec for one in found)


def _with_make_up(mapping: Mapping) -> Mapping:
    """Return a mapping with reasons that name its make-up and the way to ask for another, if it is of a composite."""
    if not is_composite(mapping.parts):
        return mapping
    if split_make_up(mapping.name)[1]:
        return replace(mapping, reasons=(*mapping.reasons, f"holds for {describe_make_up(mapping.parts)}"))
    free = [part.name for part in mapping.parts if part.is_free]
    others = f"another {' or '.join(free)} model may have other layers: name it as part {free[0]}=TYPE"
    reasons = (f"of the default configuration: {describe_make_up(mapping.parts)}", others)
    return replace(mapping, reasons=(*mapping.reasons, *reasons))


def best(candidates: Iterable[Mapping], library_version: str | None = None) -> Mapping | None:
    """Return the first by precedence of the current revisions, or ``None`` if there are none.

    A mapping verified ``dead`` or ``partial`` never wins over one that is not, and dead loses to partial.
    """
    return min(latest_revisions(candidates, library_version), key=rank, default=None)


def latest_revisions(mappings: Iterable[Mapping], library_version: str | None = None) -> list[Mapping]:
    """Return, for each source and key, the latest revision for a library version, or else for the newest."""
    groups: dict[tuple[str, ...], list[Mapping]] = defaultdict(list)
    for mapping in mappings:
        groups[*key_of(mapping), mapping.source.kind].append(mapping)
    return [choose_revision(revisions, library_version) for revisions in groups.values()]


def key_of(mapping: Mapping) -> MappingKey:
    """Return the architecture, PEFT type and preset of a mapping."""
    return MappingKey(mapping.library, mapping.name, mapping.peft_type, mapping.preset)


def rank(mapping: Mapping) -> tuple[int, int, str]:
    """Return the sort key of a mapping, the best first: by its verification, its source and its name."""
    status = mapping.verification.status if mapping.verification else "unproven"
    return DEMOTED.get(status, 0), PRECEDENCE.index(mapping.source.kind), mapping.name


def to_mapping(row: Row[Any, Any]) -> Mapping:
    """Build a mapping from a row of ``resolve.MAPPINGS``."""
    facts, parts = to_facts(row["prompt_facts"])
    return Mapping(
        id=row["id"],
        architecture=ArchitectureName(row["library"], row["name"]),
        peft_type=row["peft_type"],
        preset=row["preset"],
        **TargetSpec.from_dict(json.loads(row["spec"])).values,
        source=Source(row["kind"], row["version"]),
        revision=row["revision"],
        matched=row["matched"],
        formula=None if row["per_rank"] is None else Formula(row["per_rank"], row["fixed"]),
        reasons=tuple(json.loads(row["reasons"])),
        verification=to_verification(row) if row["status"] else None,
        coverage=tuple(Coverage(**coverage) for coverage in json.loads(row["coverage"])),
        prompt_facts=facts,
        versions=Versions(row["since"], row["until"]) if row["since"] else None,
        parts=parts,
    )


def to_facts(text: str | None) -> tuple[PromptFacts | None, tuple[ModelPart, ...]]:
    """Parse the stored facts of an architecture: of prompt learning, and its parts; none if it was never scanned."""
    if text is None:
        return None, ()
    facts = json.loads(text)
    parts = tuple(ModelPart(*values) for values in facts.pop("parts", ()))
    return PromptFacts(**facts), parts


def to_verification(row: Row[Any, Any]) -> Verification:
    """Build a verification from a row with its columns."""
    counts, findings = json.loads(row["counts"]), tuple(json.loads(row["findings"]))
    return Verification(row["status"], row["library_version"], counts, row["reached"], findings)


def stored_under(method: Method) -> str:
    """Return the PEFT type whose mappings a method shares, beside those of its own type."""
    return TARGETED if method.family in UNTARGETED else method.family


def fit(mapping: Mapping, method: Method) -> Mapping | None:
    """Return a mapping adjusted to a method of its family; ``None`` if the method cannot use it."""
    if method.family in UNTARGETED:
        return _facts_only(mapping, method)
    is_own = mapping.peft_type == method.name
    if is_own and method.name == method.family:
        return mapping
    spec, is_narrowed = _narrow(mapping, method)
    if spec is None or (is_own and is_narrowed):
        return None
    if is_own:
        return mapping
    reasons = [method.shares]
    if is_narrowed:
        check = mapping.verification
        known = f"; with it, the targets are {check.status} on {check.library_version}" if check else ""
        reasons.append(f"left out: what {method.name} cannot adapt{known}")
    if method.note:
        reasons.append(method.note)
    fitted = replace(mapping, peft_type=method.name, **spec.values, reasons=(*reasons, *mapping.reasons))
    if is_narrowed or not method.sized_alike:
        fitted = replace(fitted, formula=None)
    return replace(fitted, matched=None, coverage=(), verification=None) if is_narrowed else fitted


def _facts_only(mapping: Mapping, method: Method) -> Mapping | None:
    """Return the mapping of a method that names no layers: the facts of a scan, without targets."""
    if mapping.source.kind != "scanner" or mapping.prompt_facts is None:
        return None
    try:
        reasons = explain_facts(method, mapping.name, mapping.prompt_facts)
    except MethodDoesNotFit:
        return None
    return replace(
        mapping,
        peft_type=method.name,
        **TargetSpec().values,
        matched=0,
        formula=None,
        coverage=(),
        reasons=reasons,
        verification=None,
        versions=None,
    )


def _narrow(mapping: Mapping, method: Method) -> tuple[TargetSpec | None, bool]:
    """Return the targets of a mapping that a method can adapt, and whether any were removed.

    A target is removed if its verification counts layers that the method cannot adapt.
    """
    counts = mapping.verification.counts if mapping.verification else {}
    misfits = {t for t, kinds in counts.items() if not all(kind == "module" or method.fits(kind) for kind in kinds)}
    spec = mapping.spec
    parameters = spec.target_parameters if method.parameters else None
    modules = spec.target_modules
    if isinstance(modules, str):
        modules = None if modules in misfits else modules
    elif modules is not None:
        modules = tuple(target for target in modules if target not in misfits) or None
    kept = replace(spec, target_modules=modules, target_parameters=parameters)
    kept = kept if method.exclusion else without_exclusion(kept)
    is_narrowed = modules != spec.target_modules or parameters != spec.target_parameters
    return (kept if modules or parameters else None), is_narrowed
