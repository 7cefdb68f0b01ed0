"""Is the log of changes whole? Every digest is computed again, and every revision is held against its id."""

import json
from collections.abc import Iterator
from typing import Any

from ...domain.changes import AuditLogReport
from ...domain.targets import TargetSpec
from .audit_links import FIRST, link_digest
from .canonical import Question, mapping_id
from .schema import Reader, serial_of

PAGE = 1000
"""Rows read at once."""

MOST_FAULTS = 20
"""Faults told; of the others only their number."""

_LINKS = """
SELECT serial, at, actor, action, details, previous, digest
FROM changes
WHERE serial > :beyond AND serial <= :last
ORDER BY serial
LIMIT :limit
"""

_MAPPINGS = """
SELECT m.id, a.library, a.name, m.peft_type, m.preset, m.source_kind, m.revision, m.spec
FROM mappings m JOIN architectures a ON a.id = m.architecture_id
WHERE m.id > :beyond
ORDER BY m.id
LIMIT :limit
"""


def verify_log(reader: Reader, expect: str | None = None) -> AuditLogReport:
    """Compute the chain of changes again and return what is wrong with it, and with the revisions it tells of.

    Args:
        reader: Of the registry.
        expect: A digest kept elsewhere, the head at some time: it has to be in the chain.
    """
    last = serial_of(reader)  # first: what is written meanwhile comes after it
    chain = _Chain(last)
    for link in _links(reader, last):
        chain.add(link)
    chain.end(expect)
    faults = [*chain.faults, *_faults_of_mappings(reader, chain.named)]
    return AuditLogReport(chain.entries, chain.serial, chain.head, _bounded(faults))


class _Chain:
    """The links seen so far, and what was wrong with them.

    Attributes:
        named: Ids of the revisions they name.
    """

    def __init__(self, last: int) -> None:
        self._last = last
        self.entries, self.serial, self.head = 0, 0, FIRST
        self.faults: list[str] = []
        self.named: set[str] = set()
        self._digests: set[str] = set()

    def add(self, link: dict[str, Any]) -> None:
        """Hold a link against the one before."""
        serial, digest = link["serial"], link_digest(link)
        may_start = self.entries == 0 and link["action"] == "log.start"
        if serial != self.serial + 1 and not may_start:
            self.faults.append(f"serial {_between(self.serial + 1, serial - 1)} missing")
        if digest != link["digest"]:
            self.faults.append(f"serial {serial} was altered: it does not have the digest it was written with")
        if link["previous"] != self.head:
            self.faults.append(f"serial {serial} does not follow on the one before: its 'previous' is another digest")
        self.entries, self.serial, self.head = self.entries + 1, serial, link["digest"]
        self._digests.add(digest)
        self.named.update(_mappings_named(link))

    def end(self, expect: str | None) -> None:
        """Hold the end against the serial, and the whole against a digest kept elsewhere."""
        if self.serial < self._last:
            self.faults.append(f"serial {_between(self.serial + 1, self._last)} missing at the end")
        if expect is not None and expect not in self._digests:
            self.faults.append(f"{expect}, kept elsewhere, is not in the log: it was cut off or written anew")


def _between(first: int, last: int) -> str:
    return f"{first} is" if first == last else f"{first} to {last} are"


def _mappings_named(link: dict[str, Any]) -> Iterator[str]:
    """Yield the ids of revisions a link is about; altered details may be no JSON any more."""
    try:
        subjects = json.loads(link["details"])["subjects"]
        yield from (subject.removeprefix("mapping:") for subject in subjects if subject.startswith("mapping:"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return


def _links(reader: Reader, last: int) -> Iterator[dict[str, Any]]:
    beyond = -1
    while rows := reader.rows(_LINKS, beyond=beyond, last=last, limit=PAGE):
        yield from rows
        beyond = rows[-1]["serial"]


def _faults_of_mappings(reader: Reader, named: set[str]) -> Iterator[str]:
    """Yield what was edited or deleted: the id of a revision is the digest of what it says."""
    missing, beyond = set(named), ""
    while rows := reader.rows(_MAPPINGS, beyond=beyond, limit=PAGE):
        beyond = rows[-1]["id"]
        missing.difference_update(row["id"] for row in rows)
        yield from (
            f"mapping {row['id']} was altered: its id is not that of its content" for row in rows if _is_other(row)
        )
    yield from (f"mapping {gone} is in the log, and gone" for gone in sorted(missing))


def _is_other(row: dict[str, Any]) -> bool:
    question = Question(row["library"], row["name"], row["peft_type"], row["preset"])
    try:
        spec = TargetSpec.from_dict(json.loads(row["spec"]))
    except (ValueError, AttributeError):
        return True
    return bool(row["id"] != mapping_id(question, row["source_kind"], row["revision"], spec))


def _bounded(faults: list[str]) -> tuple[str, ...]:
    left = len(faults) - MOST_FAULTS
    return tuple(faults) if left <= 0 else (*faults[:MOST_FAULTS], f"and {left} more")
