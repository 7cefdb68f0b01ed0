"""``/v1/submissions``: from hand to hand, each allowed what its role allows, once."""

from itertools import count

import pytest
from shapes import documented

from loradar.domain.submissions import StatementPreview, Submission, SubmissionPage
from loradar.error_body import ErrorBody

NUMBERS = count()


def stated(**fields):
    """Return a statement nobody made before."""
    return {"name": f"model{next(NUMBERS)}", "target_modules": ["q_proj", "v_proj"], "rationale": "Why not?"} | fields


def submit(service, by="contributor", **fields):
    """Submit something new and return it."""
    answer = service.post("/v1/submissions", stated(**fields), by)
    assert answer.status_code == 202, answer.text
    return answer.json()


def code_of(answer):
    """Return the code of an error in the one shape."""
    return documented(ErrorBody, answer.json()).error.code


def test_a_submission_is_taken_in(service):
    """202 with where to look, at version 1, as it was sent."""
    answer = service.post("/v1/submissions", stated(name="taken"))
    body = documented(Submission, answer.json())
    assert (answer.status_code, body.status, body.submitter) == (202, "checking", "contributor")
    assert answer.headers["Location"] == f"/v1/submissions/{body.id}"
    assert answer.headers["ETag"] == '"v1"'
    assert service.client.get(answer.headers["Location"]).json() == answer.json()


def test_the_shorthand_is_a_statement(service):
    """PEFT's own one-liner."""
    said = service.post("/v1/submissions", {"olmo2": ["q_proj", "v_proj"]}).json()["statement"]
    assert (said["library"], said["name"], said["peft_type"], said["preset"]) == (
        "transformers",
        "olmo2",
        "LORA",
        "default",
    )
    assert said["target_modules"] == ["q_proj", "v_proj"]


def test_what_is_open_is_not_taken_twice(service):
    """409 names the one there is."""
    first = submit(service, name="twice")
    answer = service.post("/v1/submissions", stated(name="twice"), "other")
    assert (answer.status_code, code_of(answer)) == (409, "conflict")
    assert answer.json()["error"]["details"]["submission"] == first["id"]


def test_the_version_is_the_tag(service):
    """304 for who has it; a change makes another."""
    made = submit(service)
    path = f"/v1/submissions/{made['id']}"
    assert service.client.get(path, headers={"If-None-Match": '"v1"'}).status_code == 304
    service.settle(made)
    changed = service.client.get(path, headers={"If-None-Match": '"v1"'})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"v2"')


def test_pages_go_back_in_time(service):
    """Newest first; ``next`` is the ``before`` of the next page; evidence is left for the one asked for."""
    made = [submit(service, "other", name="paged", preset=preset) for preset in ("mlp", "attention", "default")]
    service.settle(made[1])
    query = {"submitter": "other", "name": "paged", "limit": 2}
    first = documented(SubmissionPage, service.client.get("/v1/submissions", params=query).json())
    assert [one.id for one in first.submissions] == [made[2]["id"], made[1]["id"]]
    assert [one.evidence for one in first.submissions] == [None, None]
    rest = service.client.get("/v1/submissions", params=query | {"before": first.next}).json()
    assert [one["id"] for one in rest["submissions"]] == [made[0]["id"]]
    assert rest["next"] is None


def test_filters_narrow_the_list(service):
    """Each of them, and all together."""
    made = submit(service, library="timm", name="filtered")
    for query in (
        {"name": "filtered"},
        {"library": "timm"},
        {"status": "checking", "origin": "contributor", "name": "filtered"},
    ):
        found = service.client.get("/v1/submissions", params=query).json()["submissions"]
        assert [one["id"] for one in found] == [made["id"]]
    assert (
        service.client.get("/v1/submissions", params={"name": "x' OR 'a'='a".replace(" ", "")}).json()["submissions"]
        == []
    )


@pytest.mark.parametrize(
    "query", ["status=done", "limit=0", "limit=101", "before=0", "before=x", "submitter=%00", "name=a%20b"]
)
def test_bounds_of_the_list_are_kept(service, query):
    """422 in the one shape."""
    assert code_of(service.client.get(f"/v1/submissions?{query}")) == "invalid_request"


@pytest.mark.parametrize("number", ["0", "-1", "x", "99999999999999999999"])
def test_what_is_no_number_is_refused(service, number):
    """422 before the database is asked; a number nobody has is 404."""
    assert service.client.get(f"/v1/submissions/{number}").status_code == 422
    assert code_of(service.client.get("/v1/submissions/2147483647")) == "unknown_submission"


def test_an_approval_publishes(service):
    """By somebody else: lookups answer with it from now on."""
    made = service.settle(submit(service, name="approved"))
    answer = service.post(
        f"/v1/submissions/{made['id']}/reviews", {"decision": "approve", "comment": "Good."}, "reviewer"
    )
    body = documented(Submission, answer.json())
    assert (body.status, body.reviews[0].reviewer, answer.headers["ETag"]) == (
        "published",
        "reviewer",
        f'"v{body.version}"',
    )
    served = service.client.get("/v1/targets/approved").json()
    assert (served["source"]["kind"], served["id"]) == ("community", body.mapping_id)


def test_nobody_reviews_their_own(service):
    """Whatever their role."""
    made = service.settle(submit(service, "admin"))
    answer = service.post(f"/v1/submissions/{made['id']}/reviews", {"decision": "approve", "comment": "Mine."}, "admin")
    assert (answer.status_code, code_of(answer)) == (403, "not_allowed")
    assert service.client.get(f"/v1/submissions/{made['id']}").json()["status"] == "needs_review"


def test_a_contributor_does_not_review(service):
    """403 names the role it takes."""
    made = service.settle(submit(service))
    answer = service.post(f"/v1/submissions/{made['id']}/reviews", {"decision": "reject", "comment": "No."}, "other")
    assert answer.json()["error"]["details"]["needs"] == "reviewer"


def test_what_is_not_checked_yet_is_not_reviewed(service):
    """409 says in which state it is."""
    made = submit(service)
    answer = service.post(
        f"/v1/submissions/{made['id']}/reviews", {"decision": "approve", "comment": "Good."}, "reviewer"
    )
    assert (answer.status_code, answer.json()["error"]["details"]["status"]) == (409, "checking")


def test_a_review_of_what_changed_is_refused(service):
    """412 for a stale version, and the same with the current one is done."""
    made = service.settle(submit(service))
    path, body = f"/v1/submissions/{made['id']}/reviews", {"decision": "reject", "comment": "No."}
    stale = service.post(path, body, "reviewer", **{"If-Match": '"v1"'})
    assert (stale.status_code, code_of(stale)) == (412, "stale_version")
    assert service.post(path, body, "reviewer", **{"If-Match": '"v2"'}).json()["status"] == "rejected"


@pytest.mark.parametrize("tag", ["v2", '"2"', 'W/"v2"', '"v02"', '"v2", "v3"', "2", '"v99999999999"'])
def test_a_tag_that_is_none_of_ours_is_refused(service, tag):
    """422, and nothing is done: a condition that is not understood must not be passed over."""
    made = service.settle(submit(service))
    answer = service.post(
        f"/v1/submissions/{made['id']}/reviews",
        {"decision": "reject", "comment": "No."},
        "reviewer",
        **{"If-Match": tag},
    )
    assert (answer.status_code, code_of(answer)) == (422, "invalid_request")


def test_a_key_is_spent_once(service):
    """The same request gets the first answer, another is refused; keys of other people are other keys."""
    body = stated()
    first, again = (service.post("/v1/submissions", body, **{"Idempotency-Key": "k 1"}) for _ in range(2))
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    other = service.post("/v1/submissions", stated(), **{"Idempotency-Key": "k 1"})
    assert (other.status_code, code_of(other)) == (422, "key_reused")
    assert service.post("/v1/submissions", stated(), "other", **{"Idempotency-Key": "k 1"}).status_code == 202


def test_a_key_counts_for_its_path_and_condition(service):
    """Spent on one submission, it does nothing to another."""
    one, two = (service.settle(submit(service)) for _ in range(2))
    body, key = {"decision": "reject", "comment": "No."}, {"Idempotency-Key": "reject"}
    assert service.post(f"/v1/submissions/{one['id']}/reviews", body, "reviewer", **key).status_code == 200
    assert service.post(f"/v1/submissions/{one['id']}/reviews", body, "reviewer", **key).status_code == 200
    assert code_of(service.post(f"/v1/submissions/{two['id']}/reviews", body, "reviewer", **key)) == "key_reused"
    assert service.client.get(f"/v1/submissions/{two['id']}").json()["status"] == "needs_review"


@pytest.mark.parametrize("key", ["", "a" * 256, "a\tb", "é".encode()])
def test_what_cannot_be_a_key_is_refused(service, key):
    """Printable ASCII, up to 255 of it."""
    assert code_of(service.post("/v1/submissions", stated(), **{"Idempotency-Key": key})) == "invalid_request"


def test_one_s_own_is_withdrawn(service):
    """By its submitter or an admin, with a reason, before it is decided."""
    made = submit(service)
    path, body = f"/v1/submissions/{made['id']}/withdrawal", {"reason": "A mistake."}
    answer = service.post(path, body, "other")
    assert (answer.status_code, code_of(answer)) == (403, "not_allowed")
    done = service.post(path, body).json()
    assert (done["status"], done["reason"]) == ("withdrawn", "A mistake.")
    assert service.post(path, body).status_code == 409
    assert service.post(f"/v1/submissions/{submit(service)['id']}/withdrawal", body, "admin").status_code == 200


@pytest.mark.parametrize("text", ["", " \n\t", "a\x00b", "a\u202eb", "a" * 4001, None, 3])
def test_a_reason_is_something_one_can_read(service, text):
    """Neither nothing nor what hides."""
    made = submit(service)
    assert code_of(service.post(f"/v1/submissions/{made['id']}/withdrawal", {"reason": text})) == "invalid_request"


def test_a_revision_is_yanked_and_restored(service):
    """The former answer comes back, and goes again; each is a version of the revision."""
    made = service.settle(submit(service, name="llama"))
    before = service.client.get("/v1/targets/llama").json()
    path = f"/v1/submissions/{made['id']}/reviews"
    mapping = service.post(path, {"decision": "approve", "comment": "Good."}, "reviewer").json()["mapping_id"]
    yank, restore = f"/v1/mappings/{mapping}/yank", f"/v1/mappings/{mapping}/restoration"
    assert service.client.get("/v1/targets/llama").json()["id"] == mapping
    assert service.post(yank, {"reason": "No."}).status_code == 403
    yanked = service.post(yank, {"reason": "Wrong."}, "reviewer", **{"If-Match": '"v1"', "Idempotency-Key": "y"})
    assert (yanked.json()["yank_reason"], yanked.headers["ETag"]) == ("Wrong.", '"v2"')
    assert service.client.get("/v1/targets/llama").json() == before
    assert code_of(service.post(yank, {"reason": "Again."}, "reviewer")) == "conflict"
    assert code_of(service.post(restore, {"reason": "Stale."}, "reviewer", **{"If-Match": '"v1"'})) == "stale_version"
    restored = service.post(restore, {"reason": "Right after all."}, "reviewer").json()
    assert (restored["yanked_at"], restored["version"]) == (None, 3)
    assert [change["actor"] for change in restored["changes"]] == ["reviewer"] * 3
    assert service.client.get("/v1/targets/llama").json()["id"] == mapping


def test_a_revision_nobody_knows_is_not_found(service):
    """404; what cannot be an id is 422."""
    assert (
        code_of(service.post(f"/v1/mappings/sha256:{'0' * 64}/yank", {"reason": "No."}, "reviewer"))
        == "unknown_mapping"
    )
    assert code_of(service.post("/v1/mappings/1/yank", {"reason": "No."}, "reviewer")) == "invalid_request"


def test_a_bad_field_is_called_as_it_was_sent(service):
    """Not by what the two forms of a statement are called in here."""
    answer = service.post("/v1/submissions", {"name": "a/b", "target_modules": ["q_proj"]})
    assert answer.json()["error"]["details"]["fields"][0]["field"] == "body.name"


def test_a_preview_needs_no_token_and_stores_nothing(service):
    """What the names match, as lookups see the architecture now."""
    before = service.client.get("/v1/submissions").json()
    answer = service.client.post(
        "/v1/submissions:preview", json=stated(name="llama", target_modules=["q_proj", "vproj"])
    )
    found = documented(StatementPreview, answer.json())
    assert (found.known_by, found.matched) == ("registry", 32)
    assert (found.targets[0].near, found.targets[1].near[0]) == ((), "v_proj")
    assert list(found.difference.less) == ["model.layers.*.self_attn.v_proj"]
    assert service.client.get("/v1/submissions").json() == before


@pytest.mark.parametrize("fields", [{"target_modules": "(a"}, {"target_modules": []}, {"peft_type": "NONE"}, {"x": 1}])
def test_a_preview_rejects_what_a_submission_does(service, fields):
    """By the same checks, with the same message."""
    sent = stated(name="llama") | fields
    previewed, submitted = (
        service.post(path, sent).json()["error"] for path in ("/v1/submissions:preview", "/v1/submissions")
    )
    assert previewed == submitted
