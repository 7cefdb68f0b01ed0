"""Batches, mappings, changes, histories and slots: what the registry tells, in the shapes OpenAPI documents."""

import pytest
from records_zoo import make_scan, proposal
from shapes import documented

from loradar.domain.changes import ArchitectureHistory, ChangePage, Revision
from loradar.domain.identities import LOCAL
from loradar.domain.mappings import ArchitectureSlots, BatchAnswers, MappingPage
from loradar.domain.submissions import Difference
from loradar.errors import DatabaseUnusable
from loradar.registry import Registry
from loradar.schema import to_json


@pytest.fixture(scope="module")
def found(service):
    """The two mappings of an architecture that is the module's own."""
    specs = (proposal("q_proj", "v_proj"), proposal("q_proj", preset="attention"))
    return service.registry.add_scan(make_scan("readable", proposals=specs)).added


def ask(service, path, shape, **query):
    """Return a body that has the documented shape."""
    answer = service.client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    assert documented(shape, answer.json())
    return answer.json()


def test_many_questions_are_answered_in_order(service):
    """A mapping, or the error that the same question alone would be answered with."""
    asked = [
        {"model_type": "llama"},
        {"model_type": "lama"},
        {"model_type": "resnet50", "library": "timm", "preset": "all-linear"},
        {"model_type": "llama", "peft_type": "LORRA"},
        {"model_type": "llama", "peft_type": "ia3", "library_version": "none"},
        {"model_type": "bert", "library_version": "4.57.1"},
    ]
    answer = service.client.post("/v1/targets:batch", json={"questions": asked})
    assert answer.status_code == 200
    assert documented(BatchAnswers, answer.json())
    for question, got in zip(asked, answer.json()["answers"], strict=True):
        query = {name: value for name, value in question.items() if name != "model_type"}
        alone = service.client.get(f"/v1/targets/{question['model_type']}", params=query)
        assert got == ({"mapping": alone.json()} if alone.status_code == 200 else alone.json())


def test_as_many_questions_as_the_limit_and_no_more(service):
    """256 in a call; none is no batch."""
    questions = [{"model_type": f"none{n}"} for n in range(257)]
    most = service.client.post("/v1/targets:batch", json={"questions": questions[:256]})
    assert len(most.json()["answers"]) == 256
    for sent in (questions, []):
        refused = service.client.post("/v1/targets:batch", json={"questions": sent})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"questions": [{}]},
        {"questions": "llama"},
        {"questions": [{"model_type": "a  b"}]},
        {"questions": [{"model_type": "x" * 256}]},
        {"questions": [{"model_type": "llama", "library": "keras"}]},
        {"questions": [{"model_type": "llama", "unheard_of": 1}]},
        {"questions": [{"model_type": "llama", "library_version": "\x00"}]},
    ],
)
def test_a_bad_batch_has_the_one_shape(service, body):
    """The field is named."""
    answer = service.client.post("/v1/targets:batch", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert answer.json()["error"]["details"]["fields"]


def test_a_database_away_fails_a_whole_batch(service, monkeypatch):
    """It is no answer to one of the questions."""

    def fail(*_: object, **__: object) -> None:
        raise DatabaseUnusable("The database is away.")

    monkeypatch.setattr(Registry, "lookup", fail)
    assert service.client.post("/v1/targets:batch", json={"questions": [{"model_type": "llama"}]}).status_code == 503


def test_pages_of_mappings_follow_each_other(service):
    """Until there is no next; filters narrow them."""
    query = {"source": "peft", "peft_type": "ia3", "limit": 3}
    listed, after = [], {}
    while after is not None:
        page = ask(service, "/v1/mappings", MappingPage, **query, **after)
        assert len(page["mappings"]) <= 3
        listed += page["mappings"]
        after = {"after": page["next"]} if page["next"] else None
    everything = service.registry.find_mappings("peft", "IA3", limit=999)
    assert listed == [to_json(mapping) for mapping in everything]


BEYOND = (
    "limit=0",
    "limit=201",
    "status=good",
    "source=me",
    "library=keras",
    "after=x",
    "after=%00",
    "peft_type=a-b",
    "q=%0a",
)


@pytest.mark.parametrize("query", BEYOND)
def test_bounds_of_the_list_are_kept(service, query):
    """422 in the one shape."""
    answer = service.client.get(f"/v1/mappings?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


def test_a_revision_has_its_story_and_its_version(service, found):
    """The tag is what If-Match takes; the first digits of an id will do."""
    mapping = found[0]
    body = ask(service, f"/v1/mappings/{mapping.id}", Revision)
    assert body == to_json(service.registry.get_revision(mapping.id))
    short = service.client.get(f"/v1/mappings/{mapping.id.removeprefix('sha256:')[:12]}")
    assert short.json() == body
    assert (short.headers["ETag"], short.headers["Cache-Control"]) == ('"v1"', "no-cache")
    service.registry.backend(LOCAL).yank(mapping.id, "wrong")
    assert service.client.get(f"/v1/mappings/{mapping.id}").headers["ETag"] == '"v2"'
    service.registry.backend(LOCAL).restore(mapping.id, "right")


def test_two_mappings_are_told_apart(service, found):
    """As the registry does."""
    one, other = found
    body = ask(service, f"/v1/mappings/{one.id}/diff", Difference, against=other.id)
    assert body == to_json(service.registry.compare(one.id, other.id))


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/mappings/sha256:" + "0" * 64, 404, "unknown_mapping"),
        ("/v1/mappings/x", 422, "invalid_request"),
        ("/v1/mappings/sha256:..%2f..", 404, "not_found"),
        ("/v1/mappings/00000000/diff", 422, "invalid_request"),
        ("/v1/mappings/00000000/diff?against=00000000", 404, "unknown_mapping"),
        ("/v1/architectures/transformers/lama/history", 404, "unknown_architecture"),
        ("/v1/architectures/transformers/lama/layers", 404, "unknown_architecture"),
        ("/v1/architectures/keras/llama/layers", 422, "invalid_request"),
        ("/v1/changes?since=-1", 422, "invalid_request"),
        ("/v1/changes?since=99999999999999999999", 422, "invalid_request"),
        ("/v1/changes?limit=501", 422, "invalid_request"),
    ],
)
def test_what_is_not_there_has_the_one_shape(service, path, status, code):
    """Codes for programs, a sentence for people."""
    answer = service.client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]


def test_mappings_of_different_architectures_have_no_difference(service, found):
    """The field is named."""
    other = service.registry.lookup("llama").id
    answer = service.client.get(f"/v1/mappings/{found[0].id}/diff", params={"against": other})
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (422, "query.against")


def test_the_feed_is_followed_page_by_page(service, found):
    """From a serial on, to the end; what is done to tokens is all but withheld."""
    assert found
    listed, since = [], 0
    while since is not None:
        page = ask(service, "/v1/changes", ChangePage, since=since, limit=2)
        listed += page["changes"]
        since = page["next"]
    assert [change["serial"] for change in listed] == list(range(1, service.registry.serial() + 1))
    assert page["serial"] == service.registry.serial()
    told = [change["details"] for change in listed if change["action"].startswith("token.")]
    assert told
    assert all(details == {"withheld": True} for details in told)
    assert ask(service, "/v1/changes", ChangePage, since=page["serial"])["changes"] == []


def test_history_and_slots_are_the_registry_s(service, found):
    """Of one architecture."""
    assert found
    history = ask(service, "/v1/architectures/transformers/readable/history", ArchitectureHistory)
    assert history["revisions"] == [to_json(r) for r in service.registry.list_history("transformers", "readable")]
    layers = ask(service, "/v1/architectures/transformers/llama/layers", ArchitectureSlots)
    assert layers["slots"] == [to_json(slot) for slot in service.registry.list_slots("transformers", "llama")]
    assert ask(service, "/v1/architectures/transformers/chatglm/layers", ArchitectureSlots)["slots"] == []
