"""Reviews: what a reviewer who did not submit it decides, and the revision that an approval publishes."""

from dataclasses import dataclass, replace
from importlib import metadata

from sqlalchemy import select

from ...domain.identities import Actor
from ...domain.mappings import Mapping, Source
from ...domain.schema import from_json, to_json
from ...domain.submissions import ReviewDecision, Submission, SubmissionEvidence, SubmissionStatus
from ...errors import Conflict, NotAllowed
from ..db import tables
from ..db.audit_log import mapping_subject
from ..db.database import Database, Transaction
from ..db.encoding import now
from ..mappings.entries import Entry
from ..mappings.revisions import add_mappings
from ..store import put_verification
from .idempotency import Key, find_answer, keep_answer
from .submission_rows import get_submission
from .submission_writes import check_status, check_version, put

REVIEWABLE: tuple[SubmissionStatus, ...] = ("needs_review",)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided by whom, and why."""

    by: Actor
    decision: ReviewDecision
    comment: str


def review(database: Database, submission_id: int, ruling: Ruling, version: int | None, key: Key | None) -> Submission:
    """Decide on a submission; see ``Submissions.review``."""
    action = "submission.publish" if ruling.decision == "approve" else "submission.reject"
    with database.write(action, ruling.by.name) as write:
        known = find_answer(write, ruling.by, key)
        if known:
            return from_json(Submission, known)
        held = get_submission(write.connection, submission_id)
        _check_reviewer(held, ruling.by)
        check_version(held, version)
        check_status(held, REVIEWABLE, "be reviewed")
        _add_review(write, held, ruling)
        decided = _publish(write, held, ruling) if ruling.decision == "approve" else _reject(held, ruling)
        write.log(decision=ruling.decision, comment=ruling.comment)
        put(write, decided)
        done = get_submission(write.connection, submission_id)
        keep_answer(write, ruling.by, key, to_json(done))
        return done


def _check_reviewer(held: Submission, by: Actor) -> None:
    if not by.may("reviewer"):
        message = f"{by.name} is a {by.role}. Only a reviewer or an admin decides on submissions."
        raise NotAllowed(message, role=by.role)
    if held.submitter == by.name:
        message = f"Submission {held.id} is {by.name}'s own. Somebody else has to review it."
        raise NotAllowed(message, submission=held.id, submitter=held.submitter)


def _add_review(write: Transaction, held: Submission, ruling: Ruling) -> None:
    said = {"reviewer": ruling.by.name, "decision": ruling.decision, "comment": ruling.comment, "at": now()}
    write.insert(tables.reviews, submission_id=held.id, **said)


def _reject(held: Submission, ruling: Ruling) -> Submission:
    return replace(held, status="rejected", reason=ruling.comment)


def _publish(write: Transaction, held: Submission, ruling: Ruling) -> Submission:
    """Add the revision that says what was approved; both steps are one transaction."""
    entry, evidence = _entry(held, ruling)
    source = Source("community", f"submission-{held.id}")
    report = add_mappings(write, source, [entry])
    if not report.added:
        raise _said_already(write, report.unchanged[0])
    mapping = report.added[0]
    if evidence.spec_verification and evidence.spec_verification.library_version:
        put_verification(write, mapping, evidence.spec_verification)
    write.log(mapping_subject(mapping.id), revision=mapping.revision, loradar=metadata.version("loradar"))
    return replace(held, status="published", reason=None, mapping_id=mapping.id)


def _entry(held: Submission, ruling: Ruling) -> tuple[Entry, SubmissionEvidence]:
    said, evidence = held.statement, held.evidence
    if evidence is None or evidence.spec is None:
        message = f"Submission {held.id} hits no layer, so there is nothing to publish. Reject it."
        raise Conflict(message, submission=held.id)
    entry = Entry(
        said.library,
        said.name,
        said.peft_type,
        said.preset,
        evidence.spec,
        evidence.matched,
        evidence.formula,
        (*_reasons(held, ruling),),
        evidence.coverage,
    )
    return entry, evidence


def _reasons(held: Submission, ruling: Ruling) -> list[str]:
    """Return who stands for a mapping, and why, as its reasons."""
    said = [f"submitted by {held.submitter}, approved by {ruling.by.name} (submission {held.id})"]
    if held.statement.rationale:
        said.append(held.statement.rationale.strip().partition("\n")[0])
    if held.evidence and held.evidence.method == "listing":
        said.append("unproven: told from a list of its layers, without its library")
    return said


def _said_already(write: Transaction, known: Mapping) -> Conflict:
    """Return the error for what the newest revision of the community says, yanked or not."""
    table = tables.mappings.c
    query = select(table.yank_reason).where(table.id == known.id, table.yanked_at.is_not(None))
    yanked = write.connection.execute(query).first()
    way_out = f" It was yanked ({yanked.yank_reason}): restore it instead." if yanked else " Reject this one."
    message = f"Revision {known.revision} of the community says the same.{way_out}"
    return Conflict(message, mapping=known.id, revision=known.revision, yanked=bool(yanked))
