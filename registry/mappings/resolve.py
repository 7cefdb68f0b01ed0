"""Lookup by precedence: which of the mappings known for an architecture is the one to use."""

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ...domain.architectures import ArchitectureName, PromptFacts
from ...domain.layers import Coverage
from ...domain.mappings import Mapping, Source, Verification
from ...domain.methods import Method, get_method
from ...domain.targets import Formula, TargetSpec
from ...domain.versions import Versions
from ...domain.vocabulary import SourceKind
from ..db.canonical import Question
from ..db.schema import Reader
from ..versions.ranges import choose_revision, nearest_seen, with_distance
from ..versions.renames import is_stale, translate_mapping
from ..versions.stored_names import list_renames, list_slots, list_versions
from .families import fit, stored_under

PRECEDENCE: tuple[SourceKind, ...] = ("community", "peft", "scanner")
"""Who is believed first, all else being equal."""

_DEMOTED = {"partial": 1, "dead": 2}
"""How far a verdict sets a mapping back, whoever it is from."""

SELECT_MAPPINGS = """
SELECT a.library, a.name, m.id, m.peft_type, m.preset, m.revision, m.spec, m.matched, m.per_rank, m.fixed, m.coverage,
       m.reasons, m.since, m.until, a.prompt_facts, s.kind, s.version, v.status, v.library_version, v.counts,
       v.reached, v.findings
FROM mappings m
JOIN architectures a ON a.id = m.architecture_id
JOIN sources s ON s.id = m.source_id
LEFT JOIN verifications v ON v.id = COALESCE((
    SELECT w.id FROM verifications w
    WHERE w.mapping_id = m.id
      AND w.library_version = COALESCE(CAST(:library_version AS VARCHAR(64)), a.library_version)
), (
    SELECT w.id FROM verifications w
    WHERE w.mapping_id = m.id AND CAST(:library_version AS VARCHAR(64)) IS NULL
    ORDER BY w.serial DESC, w.id DESC LIMIT 1))
"""
"""Mappings with their verification for one library version. If that is NULL, for the one the architecture is known
at, which is the newest scanned, or else the verification recorded last."""

OF_ARCHITECTURE = SELECT_MAPPINGS + "WHERE a.library = :library AND a.name = :name AND m.yanked_at IS NULL"
_OF_FAMILY = " AND m.peft_type IN (:peft_type, :family) AND m.preset = :preset"
OF_PRESET = OF_ARCHITECTURE + _OF_FAMILY
_OF_QUESTION = OF_ARCHITECTURE + " AND m.peft_type = :peft_type AND m.preset = :preset"
OF_FINGERPRINT = SELECT_MAPPINGS + "WHERE a.fingerprint = :fingerprint AND m.yanked_at IS NULL" + _OF_FAMILY


def find_mapping(reader: Reader, asked: Question, library_version: str | None) -> Mapping | None:
    """Return the mapping to use, or ``None`` if none is known; a version never seen is answered by the nearest seen."""
    method = get_method(asked.peft_type)
    seen = list_versions(reader, asked.library, asked.name) if library_version else []
    at = nearest_seen(library_version, seen)
    rows = reader.rows(OF_PRESET, **asked._asdict(), family=stored_under(method), library_version=at)
    found = best_for(method, map(to_mapping, rows), at)
    return with_distance(in_todays_names(reader, found), library_version, seen) if found else None


def list_answering(reader: Reader, asked: Question) -> tuple[Mapping, ...]:
    """Return what each source says on a question today, the first by precedence first."""
    rows = reader.rows(_OF_QUESTION, **asked._asdict(), library_version=None)
    return tuple(sorted(latest_revisions(map(to_mapping, rows)), key=rank))


def in_todays_names(reader: Reader, mapping: Mapping) -> Mapping:
    """Return a mapping in the names of the newest version, if it is stale there and has them."""
    if not is_stale(mapping):
        return mapping
    where = (reader, mapping.library, mapping.name)
    return translate_mapping(mapping, list_slots(*where), list_renames(*where))


def find_by_fingerprint(reader: Reader, fingerprint: str, peft_type: str, preset: str) -> Mapping | None:
    """Return the mapping to use for a structure, whatever the architecture is called, or ``None``."""
    method = get_method(peft_type)
    asked = {"fingerprint": fingerprint, "peft_type": method.name, "preset": preset}
    rows = reader.rows(OF_FINGERPRINT, **asked, family=stored_under(method), library_version=None)
    return best_for(method, map(to_mapping, rows))


def best_for(method: Method, candidates: Iterable[Mapping], library_version: str | None = None) -> Mapping | None:
    """Return the first by precedence of what answers for a method; of one source its own comes before its family's."""
    latest = sorted(latest_revisions(candidates, library_version), key=lambda mapping: mapping.peft_type != method.name)
    fitted = (fit(mapping, method) for mapping in latest)
    return min((mapping for mapping in fitted if mapping), key=rank, default=None)


def best(candidates: Iterable[Mapping], library_version: str | None = None) -> Mapping | None:
    """Return the first by precedence among the revisions that stand, or ``None`` if there are none.

    A mapping verified ``dead`` or ``partial`` never wins over one that is not, and dead loses to partial.
    """
    return min(latest_revisions(candidates, library_version), key=rank, default=None)


def latest_revisions(mappings: Iterable[Mapping], library_version: str | None = None) -> list[Mapping]:
    """Return what each source kind says on each question: its latest revision for a version, or for the newest."""
    groups: dict[tuple[str, ...], list[Mapping]] = defaultdict(list)
    for mapping in mappings:
        groups[*question(mapping), mapping.source.kind].append(mapping)
    return [choose_revision(revisions, library_version) for revisions in groups.values()]


def question(mapping: Mapping) -> Question:
    """Return what a mapping answers."""
    return Question(mapping.library, mapping.name, mapping.peft_type, mapping.preset)


def rank(mapping: Mapping) -> tuple[int, int, str]:
    """Return what mappings are sorted by, the best first: the verdict, the source, the name."""
    status = mapping.verification.status if mapping.verification else "unproven"
    return _DEMOTED.get(status, 0), PRECEDENCE.index(mapping.source.kind), mapping.name


def to_mapping(row: dict[str, Any]) -> Mapping:
    """Return the record of a row of ``SELECT_MAPPINGS``."""
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
        prompt_facts=to_prompt_facts(row["prompt_facts"]),
        versions=Versions(row["since"], row["until"]) if row["since"] else None,
    )


def to_prompt_facts(text: str | None) -> PromptFacts | None:
    """Return the facts as they are stored; ``None`` if nobody scanned the architecture."""
    return None if text is None else PromptFacts(**json.loads(text))


def to_verification(row: dict[str, Any]) -> Verification:
    """Return the record of a verification in a row."""
    counts, findings = json.loads(row["counts"]), tuple(json.loads(row["findings"]))
    return Verification(row["status"], row["library_version"], counts, row["reached"], findings)
