"""Lookup by precedence: which of the mappings known for an architecture is the one to use."""

import json
from collections.abc import Iterable
from typing import Any

from ..coverage import Coverage
from ..mappings import Mapping, Source, Verification
from ..methods import Method, get_method
from ..prompts import PromptFacts
from ..targets import TargetSpec
from ..vocabulary import SourceKind
from .canonical import Question
from .schema import Reader
from .shared import fit, stored_under

PRECEDENCE: tuple[SourceKind, ...] = ("community", "peft", "scanner")
"""Who is believed first, all else being equal."""

_DEMOTED = {"partial": 1, "dead": 2}
"""How far a verdict sets a mapping back, whoever it is from."""

SELECT_MAPPINGS = """
SELECT a.library, a.name, m.id, m.peft_type, m.preset, m.revision, m.spec, m.matched, m.per_rank, m.fixed, m.coverage,
       m.reasons, a.prompt_facts, s.kind, s.version, v.status, v.library_version, v.counts, v.reached, v.findings
FROM mappings m
JOIN architectures a ON a.id = m.architecture_id
JOIN sources s ON s.id = m.source_id
LEFT JOIN verifications v ON v.id = (
    SELECT w.id FROM verifications w
    WHERE w.mapping_id = m.id
      AND (CAST(:library_version AS VARCHAR(64)) IS NULL OR w.library_version = :library_version)
    ORDER BY w.serial DESC, w.id DESC LIMIT 1)
"""
"""Mappings with their verification for one library version, or with the newest one if the version is NULL."""

OF_ARCHITECTURE = SELECT_MAPPINGS + "WHERE a.library = :library AND a.name = :name AND m.yanked_at IS NULL"
_OF_FAMILY = " AND m.peft_type IN (:peft_type, :family) AND m.preset = :preset"
OF_PRESET = OF_ARCHITECTURE + _OF_FAMILY
OF_FINGERPRINT = SELECT_MAPPINGS + "WHERE a.fingerprint = :fingerprint AND m.yanked_at IS NULL" + _OF_FAMILY


def find_mapping(reader: Reader, asked: Question, library_version: str | None) -> Mapping | None:
    """Return the mapping to use, or ``None`` if none is known."""
    method = get_method(asked.peft_type)
    rows = reader.rows(OF_PRESET, **asked._asdict(), family=stored_under(method), library_version=library_version)
    return best_for(method, map(to_mapping, rows))


def find_by_fingerprint(reader: Reader, fingerprint: str, peft_type: str, preset: str) -> Mapping | None:
    """Return the mapping to use for a structure, whatever the architecture is called, or ``None``."""
    method = get_method(peft_type)
    asked = {"fingerprint": fingerprint, "peft_type": method.name, "preset": preset}
    rows = reader.rows(OF_FINGERPRINT, **asked, family=stored_under(method), library_version=None)
    return best_for(method, map(to_mapping, rows))


def best_for(method: Method, candidates: Iterable[Mapping]) -> Mapping | None:
    """Return the first by precedence of what answers for a method; of one source its own comes before its family's."""
    latest = sorted(latest_revisions(candidates), key=lambda mapping: mapping.peft_type != method.name)
    fitted = (fit(mapping, method) for mapping in latest)
    return min((mapping for mapping in fitted if mapping), key=rank, default=None)


def best(candidates: Iterable[Mapping]) -> Mapping | None:
    """Return the first by precedence among the latest revisions, or ``None`` if there are none.

    A mapping verified ``dead`` or ``partial`` never wins over one that is not, and dead loses to partial.
    """
    return min(latest_revisions(candidates), key=rank, default=None)


def latest_revisions(mappings: Iterable[Mapping]) -> list[Mapping]:
    """Return the latest revision of each source kind for each question."""
    latest: dict[tuple[str, ...], Mapping] = {}
    for mapping in sorted(mappings, key=lambda mapping: mapping.revision):
        latest[(*question(mapping), mapping.source.kind)] = mapping
    return list(latest.values())


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
        library=row["library"],
        name=row["name"],
        peft_type=row["peft_type"],
        preset=row["preset"],
        spec=TargetSpec.from_dict(json.loads(row["spec"])),
        source=Source(row["kind"], row["version"]),
        revision=row["revision"],
        matched=row["matched"],
        per_rank=row["per_rank"],
        fixed=row["fixed"],
        reasons=tuple(json.loads(row["reasons"])),
        verification=to_verification(row) if row["status"] else None,
        coverage=tuple(map(Coverage.from_dict, json.loads(row["coverage"]))),
        prompt_facts=to_prompt_facts(row["prompt_facts"]),
    )


def to_prompt_facts(text: str | None) -> PromptFacts | None:
    """Return the facts as they are stored; ``None`` if nobody scanned the architecture."""
    return None if text is None else PromptFacts.from_dict(json.loads(text))


def to_verification(row: dict[str, Any]) -> Verification:
    """Return the record of a verification in a row."""
    counts, findings = json.loads(row["counts"]), tuple(json.loads(row["findings"]))
    return Verification(row["status"], row["library_version"], counts, row["reached"], findings)
