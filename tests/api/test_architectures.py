"""``/v1/architectures``: pages and details."""

import pytest
from records_zoo import make_scan
from shapes import documented

from loradar.domain.explaining.explanations import Explanation, Subject, explain
from loradar.domain.mappings import ArchitectureDetail, ArchitecturePage, NeighbourList
from loradar.schema import to_json


def test_pages_follow_each_other(client, registry):
    """Each page's ``next`` is the ``after`` of the following one; the last has none."""
    found, after = [], None
    while True:
        page = client.get("/v1/architectures", params={"limit": 200} | ({"after": after} if after else {})).json()
        assert documented(ArchitecturePage, page)
        assert len(page["architectures"]) <= 200
        found += page["architectures"]
        after = page["next"]
        if after is None:
            break
    assert found == [to_json(summary) for summary in registry.list_architectures()]


def test_a_layer_is_explained(client, registry):
    """As the registry explains it; a name that no layer has lists the layers of its kind."""
    body = client.get("/v1/architectures/transformers/llama/explain", params={"layer": "q_proj"}).json()
    subject = Subject.of_registry(registry.get_architecture("transformers", "llama"))
    assert body == to_json(explain(subject, "q_proj"))
    assert documented(Explanation, body)
    unknown = client.get("/v1/architectures/transformers/gpt_neox/explain", params={"layer": "q_proj"})
    assert unknown.status_code == 404
    assert unknown.json()["error"]["details"]["near"] == ["query_key_value"]
    assert client.get("/v1/architectures/transformers/llama/explain").status_code == 422


def test_a_full_last_page_has_no_next(client, registry):
    """Exactly as many as fit are one page."""
    total = len(registry.list_architectures(q="llama"))
    assert client.get("/v1/architectures", params={"q": "llama", "limit": total}).json()["next"] is None
    assert client.get("/v1/architectures", params={"q": "llama", "limit": total - 1}).json()["next"]


def test_filters_narrow_the_list(client, registry):
    """By library and by part of the name; nothing found is an empty page."""
    registry.add_scan(make_scan("My.Net", library="torch"))
    for query in ({"library": "torch"}, {"q": "y.nET"}):
        page = client.get("/v1/architectures", params=query).json()
        assert [line["architecture"]["name"] for line in page["architectures"]] == ["My.Net"]
    nothing = {"library": "torch", "q": "nowhere"}
    assert client.get("/v1/architectures", params=nothing).json() == {"architectures": [], "next": None}


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "after=nothing", "library=x", "q=%00"])
def test_bounds_are_kept(client, query):
    """Pages are bounded; a place that is no place is refused."""
    answer = client.get(f"/v1/architectures?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_request"


def test_details_are_the_registry_s(client, registry):
    """Slots, towers, mappings and revisions, in the shape OpenAPI documents."""
    registry.add_scan(make_scan("llama"))
    body = client.get("/v1/architectures/transformers/llama").json()
    assert body == to_json(registry.get_architecture("transformers", "llama"))
    assert documented(ArchitectureDetail, body)


def test_a_qualified_name_is_one_segment(client, registry):
    """A user's own class is asked for by its dotted name and colon."""
    registry.add_scan(make_scan("package.module:Net", library="torch"))
    assert client.get("/v1/architectures/torch/package.module:Net").json()["architecture"]["library"] == "torch"


def test_an_unknown_architecture_lists_near_names(client):
    """404, in the one shape."""
    answer = client.get("/v1/architectures/transformers/gpt3")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_architecture")
    assert "gpt2" in answer.json()["error"]["details"]["near"]
    assert client.get("/v1/architectures/keras/gpt2").json()["error"]["code"] == "invalid_request"


def test_the_nearest_are_the_registry_s(client, registry):
    """Up to the limit, in the shape OpenAPI documents."""
    registry.add_scan(make_scan("llama"))
    for n in range(3):
        registry.add_scan(make_scan(f"near{n}", fingerprint=f"sha256:{n}"))
    body = client.get("/v1/architectures/transformers/llama/similar?limit=2").json()
    assert documented(NeighbourList, body)
    assert body["similar"] == [to_json(one) for one in registry.list_similar("transformers", "llama", 2)]
    assert len(body["similar"]) == 2


@pytest.mark.parametrize("limit", ["0", "51", "x"])
def test_the_number_of_the_nearest_is_bounded(client, limit):
    """As every list is."""
    answer = client.get(f"/v1/architectures/transformers/llama/similar?limit={limit}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


def test_nothing_is_near_what_nobody_scanned(client):
    """404 with the command that would help, and for a name nobody knows the near ones."""
    known = client.get("/v1/architectures/transformers/chatglm/similar")
    assert (known.status_code, known.json()["error"]["code"]) == (404, "not_registered")
    unknown = client.get("/v1/architectures/transformers/lama/similar")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_architecture")
