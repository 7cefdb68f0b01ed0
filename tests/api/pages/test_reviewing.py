"""The pages of submissions: what each person sees and may do, by the rules of REST."""

from itertools import count

import pytest

NUMBERS = count()
HOSTILE = "</textarea></script><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}"


@pytest.fixture
def submit(service):
    """Return the number of a new submission, checked unless told otherwise."""

    def make(by="contributor", *, settled=True, failure=None, **fields):
        stated = {"name": f"paged{next(NUMBERS)}", "target_modules": ["q_proj", "v_proj"], "rationale": "Why not?"}
        made = service.post("/v1/submissions", stated | fields, by).json()
        if settled:
            service.settle(made, failure)
        return made["id"]

    return make


def actions(page):
    """Return the decisions a page offers."""
    return {own["action"].rpartition("/")[2] for own in page.all("form", method="post")}


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (None, set()),
        ("contributor", {"withdrawal"}),
        ("other", set()),
        ("reviewer", {"review"}),
        ("admin", {"review", "withdrawal"}),
    ],
)
def test_each_person_is_offered_what_they_may_do(visit, submit, role, expected):
    """And what cannot be done by them is not there to be tried."""
    assert actions(visit(role).read(f"/submissions/{submit()}")) == expected


def test_the_own_submission_waits_for_another_person(visit, submit):
    """An admin's too; the page says why."""
    page = visit("admin").read(f"/submissions/{submit('admin')}")
    assert actions(page) == {"withdrawal"}
    assert "another person reviews it" in page.text


def test_an_approval_is_served_over_rest(service, visit, submit):
    """From the page to lookups: published, yanked, restored."""
    number, reviewer = submit(name="servedbypage"), visit("reviewer")
    path = f"/submissions/{number}"

    def act(action, **fields):
        response = reviewer.send(reviewer.read(path), f"{path}/{action}", **fields)
        assert (response.status_code, response.headers["Location"]) == (303, path)
        return service.client.get("/v1/targets/servedbypage")

    found = act("review", decision="approve", comment="Reaches all.")
    assert found.json()["source"] == {"kind": "community", "version": f"submission-{number}"}
    page = reviewer.read(path)
    assert "Published" in page.text
    assert "Reaches all." in page.text
    assert actions(page) == {"yank"}
    assert act("yank", reason="Too slow.").status_code == 404
    page = reviewer.read(path)
    assert "Too slow." in page.text
    assert actions(page) == {"restoration"}
    assert act("restoration", reason="Fast enough.").status_code == 200


def test_a_rejection_and_a_withdrawal_have_their_reasons(visit, submit):
    """Both are read by everybody."""
    rejected, withdrawn = submit(), submit()
    reviewer, contributor = visit("reviewer"), visit("contributor")
    for person, number, action, fields in (
        (reviewer, rejected, "review", {"decision": "reject", "comment": "Leaves out half."}),
        (contributor, withdrawn, "withdrawal", {"reason": "Found a better one."}),
    ):
        path = f"/submissions/{number}"
        assert person.send(person.read(path), f"{path}/{action}", **fields).status_code == 303
    assert "Leaves out half." in visit().read(f"/submissions/{rejected}").text
    assert "Found a better one." in visit().read(f"/submissions/{withdrawn}").text


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"decision": "approve", "comment": "  "}, 422, "Say why"),
        ({"decision": "perhaps", "comment": "Good."}, 422, "Decision"),
        ({"comment": "Good."}, 422, "Decision"),
        ({"decision": "approve", "comment": "a\u202eb"}, 422, "invisible"),
        ({"decision": "approve", "comment": "x" * 4001}, 422, "4000"),
        ({"decision": "approve", "comment": "Good.", "version": "1"}, 412, "read it again"),
        ({"decision": "approve", "comment": "Good.", "version": "x"}, 422, "version"),
    ],
)
def test_a_form_is_validated_as_the_request_is(visit, submit, fields, status, says):
    """The page comes back with the problem and with what was written; nothing is decided."""
    reviewer, path = visit("reviewer"), f"/submissions/{submit()}"
    response = reviewer.send(reviewer.read(path), f"{path}/review", **fields)
    assert response.status_code == status
    assert says in response.text
    assert "needs review" in reviewer.read(path).text
    if fields["comment"] == "Good.":
        assert ">Good.</textarea>" in response.text


def test_a_form_sent_twice_is_done_once(visit, submit):
    """A double click gets the same page, not a conflict."""
    reviewer, path = visit("reviewer"), f"/submissions/{submit()}"
    fields = reviewer.fill(reviewer.read(path), f"{path}/review", decision="reject", comment="No.")
    answers = [reviewer.post(f"{path}/review", fields).status_code for _ in range(2)]
    assert answers == [303, 303]
    again = reviewer.post(f"{path}/review", fields | {"comment": "Another."})
    assert again.status_code == 422
    assert reviewer.read(path).text.count("reviewer rejected it") == 1


def test_a_role_is_not_raised_by_a_form(visit, submit):
    """The form of a reviewer, sent by somebody who is none: the rules of REST, with their words."""
    reviewer, other, number = visit("reviewer"), visit("other"), submit()
    path = f"/submissions/{number}"
    fields = reviewer.fill(reviewer.read(path), f"{path}/review", decision="approve", comment="Good.")
    own = other.fill(other.read("/login"), "/logout")
    response = other.post(f"{path}/review", fields | own)
    assert response.status_code == 403
    assert "only a reviewer or an admin reviews" in response.text
    assert "needs review" in reviewer.read(path).text


@pytest.mark.parametrize(
    "path", ["/submissions/2147483647", "/submissions/0", "/submissions/x", "/submissions?status=x"]
)
def test_what_is_not_there_is_an_error_page(visit, path):
    """404 or 422, as over REST."""
    assert visit().client.get(path).status_code == (404 if path.endswith("647") else 422)


def test_text_of_people_stays_text(visit, submit):
    """Markup, scripts and templates in rationale, comment and reason are read as they were written."""
    number = submit(rationale=HOSTILE, target_modules=[r"q_proj"])
    path, reviewer = f"/submissions/{number}", visit("reviewer")
    assert reviewer.send(reviewer.read(path), f"{path}/review", decision="reject", comment=HOSTILE).status_code == 303
    page = reviewer.read(path)
    assert page.text.count(HOSTILE) == 3  # the rationale, the comment, and the comment as the reason
    assert not page.all("img")
    assert all(own.get("src", "").startswith("/static/") for own in page.all("script"))
    problem = reviewer.post(
        f"{path}/yank", reviewer.fill(reviewer.read("/login"), "/logout", reason=HOSTILE, version="1")
    )
    assert problem.status_code == 409
    assert "<img" not in problem.text


def test_the_queue_is_the_list_in_one_state(visit, submit):
    """By state, person and architecture, with the number in each state; older ones are on the next page."""
    mine = [submit("other", name="queued", preset=preset) for preset in ("default", "mlp", "attention")]
    person = visit("other")
    page = person.read("/submissions?status=needs_review&name=queued")
    listed = [own["href"] for own in page.all("a") if own.get("aria-label", "").startswith("Submission ")]
    assert listed == [f"/submissions/{number}" for number in reversed(mine)]
    older = person.read(f"/submissions?name=queued&before={mine[1]}")
    assert [own["href"] for own in older.all("a") if own.get("aria-label")] == [f"/submissions/{mine[0]}"]
    assert "Nothing waits for a review" in person.read("/submissions?status=needs_review&name=nothing").text
    assert "/submissions?submitter=other" in [own.get("href") for own in page.all("a")]


def test_a_check_that_runs_is_waited_for(visit, submit):
    """A script asks the JSON twin; without it, the page says to come again."""
    number = submit(settled=False)
    page = visit().read(f"/submissions/{number}")
    assert page.all("div", **{"data-waits": f"/v1/submissions/{number}"})
    assert "Load this page again" in page.text
    assert any("waiting.js" in own["src"] for own in page.all("script"))


def test_a_failure_says_why(visit, submit):
    """With what the checks found, if anything."""
    page = visit().read(f"/submissions/{submit(failure='It matches nothing of this architecture.')}")
    assert "It matches nothing of this architecture." in page.text
    assert actions(page) == set()


def test_the_twin_of_a_submission_is_its_json(service, visit, submit):
    """For programs, at the same path."""
    number = submit()
    (link,) = visit().read(f"/submissions/{number}").all("link", rel="alternate")
    assert service.client.get(f"/submissions/{number}").json() == service.client.get(link["href"]).json()
    listed = visit().read("/submissions?status=needs_review").all("link", rel="alternate")[0]["href"]
    assert listed == "/v1/submissions?status=needs_review"
