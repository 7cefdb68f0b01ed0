"""Submissions: from what somebody states over checks and a review to a revision, and back out of use."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from patience import wait_until
from records_zoo import VERSION, make_scan, proposal
from sqlalchemy import select

from loradar.domain.identities import Actor
from loradar.domain.mappings import Verification
from loradar.domain.submissions import Checked, ListedLayer, Statement, Submission, SubmissionEvidence
from loradar.domain.targets import Formula
from loradar.errors import Conflict, KeyReused, NotAllowed, StaleVersion, UnknownMapping, UnknownSubmission
from loradar.registry import Key
from loradar.registry.contributions import submissions as checks
from loradar.registry.db import tables
from loradar.registry.db.encoding import now
from loradar.schema import from_json, to_json

ADA, EVE = Actor("ada", "contributor"), Actor("eve", "contributor")
BOB, ROOT = Actor("bob", "reviewer"), Actor("root", "admin")
LIVE = Verification("live", VERSION, {"q_proj": {"linear": 2}, "o_proj": {"linear": 2}}, 0.25)


def state(*targets: str, name: str = "olmo2", rationale: str | None = "seen in a paper\nand tried") -> Statement:
    """Return a statement for these suffixes."""
    return Statement("transformers", name, "LORA", "default", target_modules=targets, rationale=rationale)


STATED = state("q_proj", "o_proj")


def find_evidence(statement: Statement, **values) -> SubmissionEvidence:
    """Return evidence as a check of a statement would give it."""
    known = {"verification": LIVE, "spec": statement.spec, "spec_verification": LIVE}
    known |= {"layers": {"model.layers.*.self_attn.q_proj": 2}, "matched": 4, "formula": Formula(64, 0)}
    return SubmissionEvidence("dataflow", builds=True, **{**known, **values})


@pytest.fixture
def scanned(any_registry):
    """A registry that has a scan of the architecture."""
    any_registry.add_scan(make_scan())
    return any_registry


def submit(registry, statement: Statement = STATED, by: Actor = ADA, **values) -> Submission:
    """Return a submission whose checks are through."""
    made = registry.submissions.add(statement, by)
    return registry.submissions.record_check(made.id, Checked(find_evidence(statement, **values)))


def log_of(registry) -> list[str]:
    """Return the actions on record since the registry was seeded."""
    return [change.action for change in registry.list_changes()][1:]


def test_the_way_of_a_submission(scanned):
    """Stated, checked, approved by another, served; every step in the log, with who and why."""
    made = scanned.submissions.add(STATED, ADA)
    assert (made.id, made.status, made.submitter, made.version) == (1, "checking", "ada", 1)
    checked = scanned.submissions.record_check(1, Checked(find_evidence(STATED)))
    assert (checked.status, checked.version, checked.evidence) == ("needs_review", 2, find_evidence(STATED))
    done = scanned.backend(BOB).review(1, "approve", "as the paper has it")
    assert done == scanned.submissions.get(1)
    assert (done.status, done.version, done.reviews[0].reviewer) == ("published", 3, "bob")
    found = scanned.lookup("olmo2")
    assert (found.id, found.source.kind, found.source.version) == (done.mapping_id, "community", "submission-1")
    assert (found.spec, found.matched, found.trainable) == (STATED.spec, 4, 512)
    assert found.verification == LIVE
    assert found.reasons[:2] == ("submitted by ada, approved by bob (submission 1)", "seen in a paper")
    assert all("on record" in reason for reason in found.reasons[2:])
    assert log_of(scanned) == ["scan.store", "submission.add", "submission.check", "submission.publish"]
    changes = scanned.get_revision(found.id).changes
    assert [(one.actor, one.details["comment"]) for one in changes] == [("bob", "as the paper has it")]


def test_a_submission_comes_back_from_its_json(scanned):
    """Nothing is lost on the way to a client."""
    done = submit(scanned)
    assert from_json(Submission, json.loads(json.dumps(to_json(done)))) == done


def test_one_s_own_submission_is_reviewed_by_another(scanned):
    """Whatever the role."""
    submit(scanned, by=ROOT)
    with pytest.raises(NotAllowed, match="root's own"):
        scanned.backend(ROOT).review(1, "approve", "mine")
    with pytest.raises(NotAllowed, match="is a contributor"):
        scanned.backend(EVE).review(1, "approve", "nice")
    assert scanned.submissions.get(1).status == "needs_review"
    assert scanned.lookup("olmo2").source.kind == "scanner"


def test_a_rejected_one_is_not_published(scanned):
    """The comment is its reason."""
    submit(scanned)
    done = scanned.backend(BOB).review(1, "reject", "the paper is about another model")
    assert (done.status, done.reason, done.mapping_id) == ("rejected", "the paper is about another model", None)
    assert scanned.lookup("olmo2").source.kind == "scanner"
    with pytest.raises(Conflict, match="is rejected: only one that is 'needs_review'"):
        scanned.backend(BOB).review(1, "approve", "after all")


def test_what_fails_its_checks_is_not_reviewed(scanned):
    """The reason tells what to do."""
    scanned.submissions.add(STATED, ADA)
    done = scanned.submissions.record_check(1, Checked(None, "No layer ends with 'q_porj'."))
    assert (done.status, done.reason) == ("failed", "No layer ends with 'q_porj'.")
    with pytest.raises(Conflict, match="is failed"):
        scanned.backend(BOB).review(1, "approve", "yes")


def test_what_changed_since_is_not_decided_on(scanned):
    """``If-Match``: the version a decision rests on."""
    submit(scanned)
    with pytest.raises(StaleVersion, match="is at version 2, not 1"):
        scanned.backend(BOB).review(1, "approve", "fine", version=1)
    assert scanned.backend(BOB).review(1, "approve", "fine", version=2).status == "published"


def test_an_open_statement_is_stated_once(scanned):
    """The rationale makes no difference; after a decision it may come again."""
    submit(scanned)
    with pytest.raises(Conflict, match="Submission 1 is equal and open") as caught:
        scanned.submissions.add(replace(STATED, rationale="me too"), EVE)
    assert caught.value.details["submission"] == 1
    scanned.backend(BOB).review(1, "reject", "no")
    assert scanned.submissions.add(STATED, EVE).id == 2
    assert scanned.submissions.find_same(STATED).id == 2


def test_nobody_has_too_many_open(scanned, monkeypatch):
    """Others may still submit."""
    monkeypatch.setattr(checks, "MAX_OPEN", 1)
    scanned.submissions.add(STATED, ADA)
    with pytest.raises(Conflict, match="ada has 1 open"):
        scanned.submissions.add(state("k_proj"), ADA)
    assert scanned.submissions.add(state("k_proj"), EVE).id == 2


def test_what_the_registry_says_already_is_not_published_again(scanned):
    """A yanked one is restored instead."""
    submit(scanned)
    first = scanned.backend(BOB).review(1, "approve", "fine")
    submit(scanned)
    with pytest.raises(Conflict, match=r"Revision 1 of the community is equal. Reject"):
        scanned.backend(BOB).review(2, "approve", "again")
    scanned.backend(BOB).yank(first.mapping_id, "mistaken")
    with pytest.raises(Conflict, match=r"yanked .mistaken.: restore it"):
        scanned.backend(BOB).review(2, "approve", "again")
    assert scanned.submissions.get(2).status == "needs_review"
    assert scanned.submissions.get(2).reviews == ()


def test_yanking_brings_the_former_answer_back(scanned):
    """And restoring the later one; each needs a reason, which the history keeps."""
    before = scanned.lookup("olmo2")
    for number, targets in enumerate((("q_proj", "o_proj"), ("q_proj",)), start=1):
        submit(scanned, state(*targets))
        scanned.backend(BOB).review(number, "approve", "fine")
    second = scanned.lookup("olmo2")
    assert (second.revision, second.spec.target_modules) == (2, ("q_proj",))
    yanked = scanned.backend(BOB).yank(second.id, "it hits too little")
    assert (yanked.version, yanked.yank_reason) == (2, "it hits too little")
    first = scanned.lookup("olmo2")
    assert (first.revision, first.source.kind) == (1, "community")
    scanned.backend(BOB).yank(first.id, "this one too")
    assert scanned.lookup("olmo2") == before
    restored = scanned.backend(ROOT).restore(second.id, "it was right")
    assert (restored.version, restored.yanked_at, restored.yank_reason) == (3, None, None)
    assert scanned.lookup("olmo2") == second
    told = [(one.actor, one.action, one.details.get("reason")) for one in restored.changes]
    assert told[1:] == [("bob", "mapping.yank", "it hits too little"), ("root", "mapping.restore", "it was right")]


def test_a_revision_of_any_source_can_be_yanked(scanned):
    """PEFT's and the scanner's too; it stays yanked when the same is stored again."""
    found = scanned.lookup("olmo2")
    scanned.backend(BOB).yank(found.id, "wrong")
    scanned.add_scan(make_scan())
    assert scanned.find("olmo2") is None
    with pytest.raises(Conflict, match=r"was yanked at .*: wrong"):
        scanned.backend(BOB).yank(found.id, "wrong")
    with pytest.raises(StaleVersion, match="at version 2, not 1"):
        scanned.backend(BOB).restore(found.id, "right", version=1)
    assert scanned.backend(BOB).restore(found.id, "right", version=2).version == 3
    with pytest.raises(Conflict, match="in use"):
        scanned.backend(BOB).restore(found.id, "right")


def test_only_a_reviewer_yanks(scanned):
    """And only what there is."""
    with pytest.raises(NotAllowed, match="ada is a contributor"):
        scanned.backend(ADA).yank(scanned.lookup("olmo2").id, "mine is better")
    with pytest.raises(UnknownMapping, match="sha256:00"):
        scanned.backend(BOB).yank("sha256:00", "gone")


def test_one_withdraws_what_is_not_decided(scanned):
    """One's own; an admin anybody's. A check that ends later changes nothing."""
    scanned.submissions.add(STATED, ADA)
    with pytest.raises(NotAllowed, match="is ada's"):
        scanned.backend(EVE).withdraw(1, "not mine")
    done = scanned.backend(ADA).withdraw(1, "mistaken")
    assert (done.status, done.reason) == ("withdrawn", "mistaken")
    assert scanned.submissions.record_check(1, Checked(find_evidence(STATED))) == done
    submit(scanned)
    assert scanned.backend(ROOT).withdraw(2, "spam").status == "withdrawn"
    with pytest.raises(Conflict, match="is withdrawn"):
        scanned.backend(ROOT).withdraw(2, "spam")


def test_a_request_sent_twice_is_done_once(scanned):
    """With its key, by its owner; another request with the same key is refused."""
    key = Key.of("a-key", to_json(STATED))
    first = scanned.backend(ADA).submit(STATED, key=key)
    assert scanned.backend(ADA).submit(STATED, key=key) == first
    with pytest.raises(KeyReused, match="a-key"):
        scanned.backend(ADA).submit(state("k_proj"), key=Key.of("a-key", to_json(state("k_proj"))))
    other = scanned.backend(EVE).submit(state("k_proj"), key=Key.of("a-key", to_json(state("k_proj"))))
    assert other.id == 2
    scanned.submissions.record_check(1, Checked(find_evidence(STATED)))
    review = Key.of("b-key", "approve")
    done = scanned.backend(BOB).review(1, "approve", "fine", version=2, key=review)
    assert scanned.backend(BOB).review(1, "approve", "fine", version=2, key=review) == done
    yank = Key.of("c-key", "yank")
    yanked = scanned.backend(BOB).yank(done.mapping_id, "oh", key=yank)
    assert scanned.backend(BOB).yank(done.mapping_id, "oh", key=yank).yanked_at == yanked.yanked_at
    assert log_of(scanned).count("mapping.yank") == 1


def test_a_key_is_forgotten_after_a_day(scanned, monkeypatch):
    """Then the request counts as a new one."""
    key = Key.of("a-key", 1)
    scanned.backend(ADA).submit(STATED, key=key)
    monkeypatch.setattr("loradar.registry.contributions.local_backend.KEPT", timedelta())
    with pytest.raises(Conflict, match="is equal"):
        scanned.backend(ADA).submit(STATED, key=key)


def test_each_submission_is_checked_by_one_worker(scanned):
    """Several may ask at once; the oldest comes first."""
    for targets in ("q_proj", "k_proj", "o_proj"):
        scanned.submissions.add(state(targets), ADA)
    if ":memory:" in scanned.url or scanned.url == "sqlite://":
        taken = [scanned.submissions.claim() for _ in range(4)]  # one connection: nobody can come at once
    else:
        with ThreadPoolExecutor(4) as pool:
            taken = [*pool.map(lambda _: scanned.submissions.claim(), range(4))]
    assert sorted(one.id for one in taken if one) == [1, 2, 3]
    assert scanned.submissions.claim() is None


def test_a_worker_that_died_is_followed_by_others_and_then_by_none(scanned, monkeypatch):
    """What kills every worker fails."""
    scanned.submissions.add(STATED, ADA)
    monkeypatch.setattr(checks, "LEASE", timedelta(microseconds=-1))
    assert [scanned.submissions.claim().id for _ in range(checks.MAX_ATTEMPTS)] == [1] * checks.MAX_ATTEMPTS
    assert scanned.submissions.claim() is None
    assert "begun 3 times" in scanned.submissions.get(1).reason
    assert scanned.submissions.get(1).status == "failed"


def test_a_claim_lasts_as_long_as_its_process_checks(scanned, monkeypatch):
    """It is renewed meanwhile; one that is not, as of a process that was killed, is over within seconds."""
    scanned.submissions.add(STATED, ADA)
    monkeypatch.setattr(checks, "RENEW_SECONDS", 0.01)
    claimed = scanned.submissions.claim()

    def claimed_until():
        with scanned._database.read() as connection:
            return connection.execute(select(tables.submissions.c.claimed_until)).scalar_one()

    first = claimed_until()
    with scanned.submissions.keep(claimed):
        wait_until(lambda: claimed_until() > first, "a renewal")
        assert scanned.submissions.claim() is None
    assert claimed_until() <= now(checks.LEASE)
    monkeypatch.setattr(checks, "now", lambda shift=timedelta(): now(checks.LEASE + shift))
    assert scanned.submissions.claim().id == claimed.id


def test_a_claim_from_before_the_clock_was_set_back_is_over(scanned, monkeypatch):
    """Nobody waits an hour for it."""
    scanned.submissions.add(STATED, ADA)
    with monkeypatch.context() as patch:
        patch.setattr(checks, "now", lambda shift=timedelta(): now(timedelta(hours=1) + shift))
        assert scanned.submissions.claim().id == 1
    assert scanned.submissions.claim().id == 1
    assert scanned.submissions.claim() is None


def test_a_claim_that_is_given_back_is_taken_at_once(scanned):
    """And does not count as one that failed."""
    scanned.submissions.add(STATED, ADA)
    for _ in range(checks.MAX_ATTEMPTS + 1):
        scanned.submissions.release(scanned.submissions.claim())
    assert scanned.submissions.claim().id == 1


def test_the_scan_of_what_nobody_scanned_is_kept(scanned):
    """Its slots and proposals; one that is there stays as it is."""
    scan = make_scan("olmo9", proposals=(proposal("v_proj"),))
    statement = state("q_proj", name="olmo9")
    made = scanned.submissions.add(statement, ADA)
    scanned.submissions.record_check(made.id, Checked(find_evidence(statement), scan=scan))
    assert scanned.lookup("olmo9").source.kind == "scanner"
    other = make_scan(proposals=(proposal("v_proj"),), fingerprint="sha256:" + "1" * 64)
    made = scanned.submissions.add(STATED, ADA)
    scanned.submissions.record_check(made.id, Checked(find_evidence(STATED), scan=other))
    assert scanned.lookup("olmo2").spec.target_modules == ("q_proj", "v_proj")


def test_a_slip_in_a_statement_is_none_of_what_is_published(scanned):
    """A name that hits nothing is a finding for the reviewer; the spec made anew is without it, and is served."""
    slip = replace(LIVE, status="partial", counts={**LIVE.counts, "q_prj": {}}, findings=("q_prj matches nothing",))
    submit(scanned, state("q_proj", "o_proj", "q_prj"), verification=slip, spec=STATED.spec)
    scanned.backend(BOB).review(1, "approve", "but for the slip")
    found = scanned.lookup("olmo2")
    assert (found.source.kind, found.spec, found.verification) == ("community", STATED.spec, LIVE)


def test_what_rests_on_a_listing_is_published_unproven(scanned):
    """No library was there to prove it with: there is no verification, and a reason that says so."""
    statement = state("q_proj", name="unheard-of")
    unproven = Verification("unproven", "", {"q_proj": {"linear": 2}}, 0.2)
    found = find_evidence(statement, verification=unproven, spec_verification=unproven)
    made = scanned.submissions.add(statement, ADA)
    scanned.submissions.record_check(made.id, Checked(replace(found, method="listing", builds=False)))
    scanned.backend(BOB).review(made.id, "approve", "plausible")
    mapping = scanned.lookup("unheard-of")
    assert mapping.verification is None
    assert [reason for reason in mapping.reasons if reason.startswith("unproven")]
    assert mapping.reasons[-1] == "no size, coverage or verification: no scan of transformers:unheard-of is on record"


def test_lists_are_filtered_and_newest_first(scanned):
    """By state, person and architecture, from below a number."""
    submit(scanned)
    scanned.submissions.add(state("k_proj"), EVE)
    scanned.submissions.add(state("k_proj", name="other"), EVE)
    listed = scanned.submissions.list
    assert [one.id for one in listed()] == [3, 2, 1]
    assert [one.id for one in listed(status="checking")] == [3, 2]
    assert [one.id for one in listed(submitter="eve", name="olmo2")] == [2]
    assert [one.id for one in listed(before=3, limit=1)] == [2]
    assert listed(origin="drift") == ()
    with pytest.raises(UnknownSubmission, match="'9'"):
        scanned.submissions.get(9)


def test_lists_do_without_what_may_be_long(scanned):
    """A page of a hundred lists of layers would take seconds and a GiB to read; one submission has all of its own."""
    stated = replace(STATED, name="unheard-of", layers=(ListedLayer("fc", (8, 8), "Linear"), ListedLayer("fd", (4,))))
    whole = submit(scanned, stated)
    assert (whole.statement, whole.evidence) == (stated, find_evidence(stated))
    assert scanned.submissions.find_same(stated) == scanned.submissions.get(1) == whole
    assert scanned.submissions.list() == (replace(whole, statement=replace(stated, layers=None), evidence=None),)


def test_what_is_registered_for_a_question(scanned):
    """Each source once, what is believed first."""
    submit(scanned)
    scanned.backend(BOB).review(1, "approve", "fine")
    assert [one.source.kind for one in scanned.submissions.registered(STATED)] == ["community", "scanner"]
    assert scanned.submissions.registered(state("q_proj", name="unheard-of")) == ()


def test_quotes_and_semicolons_are_only_text(scanned):
    """What looks like SQL is stored and found as what it is."""
    odd = state("q'; DROP TABLE mappings; --", name="o'; DELETE FROM submissions; --", rationale="x'); --")
    made = scanned.submissions.add(odd, ADA)
    assert scanned.submissions.get(made.id).statement == odd
    assert scanned.submissions.list(name=odd.name) == (made,)
    assert scanned.submissions.list(name="' OR 1=1 --") == ()
