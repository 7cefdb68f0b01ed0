"""Decide on submissions: store the review, and publish an approved submission as a revision."""

from dataclasses import replace
from importlib import metadata

from sqlalchemy import select

from ...domain.identities import Actor
from ...domain.mappings import Source
from ...domain.submissions import ReviewDecision, Submission
from ...errors import Conflict
from ..db import tables
from ..db.audit_log import mapping_subject
from ..db.database import Transaction
from ..db.encoding import now
from ..records import Entry
from ..store import add_mappings, put_verification
from .submissions import get_submission, update_submission


def decide(
    write: Transaction, submission: Submission, reviewer: Actor, decision: ReviewDecision, comment: str
) -> Submission:
    """Store a review and its consequence in one transaction.

    Raises:
        Conflict: If an approved submission matches no layer, or the registry has an equal revision.
    """
    review = {"reviewer": reviewer.name, "decision": decision, "comment": comment, "at": now()}
    write.insert(tables.reviews, submission_id=submission.id, **review)
    if decision == "approve":
        decided = _publish(write, submission, reviewer)
    else:
        decided = replace(submission, status="rejected", reason=comment)
    write.log(decision=decision, comment=comment)
    update_submission(write, decided)
    return get_submission(write.connection, submission.id)


def _publish(write: Transaction, submission: Submission, reviewer: Actor) -> Submission:
    """Add the revision that an approval publishes: the spec generated from the layers the statement matches."""
    statement, evidence = submission.statement, submission.evidence
    if evidence is None or evidence.spec is None:
        message = f"Submission {submission.id} matches no layer, so there is nothing to publish: reject it."
        raise Conflict(message, submission=submission.id)
    reasons = [f"submitted by {submission.submitter}, approved by {reviewer.name} (submission {submission.id})"]
    if statement.rationale:
        reasons.append(statement.rationale.strip().partition("\n")[0])
    if evidence.method == "listing":
        reasons.append("unproven: told from a list of its layers, without its library")
    entry = Entry(
        statement.library,
        statement.name,
        statement.peft_type,
        statement.preset,
        evidence.spec,
        evidence.matched,
        evidence.formula,
        tuple(reasons),
        evidence.coverage,
    )
    report = add_mappings(write, Source("community", f"submission-{submission.id}"), [entry])
    if not report.added:  # the newest community revision is equal, yanked or not
        equal, table = report.unchanged[0], tables.mappings.c
        query = select(table.yank_reason).where(table.id == equal.id, table.yanked_at.is_not(None))
        yanked = write.connection.execute(query).first()
        way_out = f" It was yanked ({yanked.yank_reason}): restore it instead." if yanked else " Reject this one."
        message = f"Revision {equal.revision} of the community is equal.{way_out}"
        raise Conflict(message, mapping=equal.id, revision=equal.revision, yanked=bool(yanked))
    mapping = report.added[0]
    if evidence.spec_verification and evidence.spec_verification.library_version:
        put_verification(write, mapping, evidence.spec_verification)
    write.log(mapping_subject(mapping.id), revision=mapping.revision, loradar=metadata.version("loradar"))
    return replace(submission, status="published", reason=None, mapping_id=mapping.id)
