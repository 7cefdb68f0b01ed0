"""The whole way of a contribution, over HTTP with real tokens, a real server, and the real checks."""

import httpx2
import pytest
from patience import OVER_HTTP, patience, wait_until

from loradar.api import running
from loradar.registry import Registry

STATED = {
    "name": "olmo2",
    "target_modules": r".*\.self_attn\.(q_proj|k_proj|v_proj|o_proj)",
    "rationale": "All of the attention, by a regex that nobody will ever run.",
}


@pytest.fixture
def people(seeded_settings):
    """A running service, and a client for each of three people."""
    with Registry.open(seeded_settings) as registry:
        roles = {"ada": "contributor", "grace": "reviewer", "root": "admin"}
        secrets = {name: registry.tokens.create(name, role)[1] for name, role in roles.items()}
    with running(seeded_settings) as url:
        clients = {
            name: httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}, timeout=patience())
            for name, secret in secrets.items()
        }
        yield clients
        for client in clients.values():
            client.close()


def checked(client, place):
    """Return a submission once its checks are through."""
    wait_until(lambda: client.get(place).json()["status"] != "checking", "the end of the checks", OVER_HTTP)
    return client.get(place)


def test_from_the_statement_to_the_answer_and_back(people):
    """Submit, check, refuse the self-review, approve, serve, tell, yank, restore."""
    ada, grace, root = people.values()
    before = ada.get("/v1/targets/olmo2").json()
    taken = root.post("/v1/submissions", json=STATED, headers={"Idempotency-Key": "one"})
    assert (taken.status_code, taken.json()["status"]) == (202, "checking")
    place = taken.headers["Location"]
    again = root.post("/v1/submissions", json=STATED, headers={"Idempotency-Key": "one"})
    assert again.headers["Location"] == place

    found = checked(ada, place)
    body = found.json()
    assert body["status"] == "needs_review", body["reason"]
    evidence = body["evidence"]
    assert (evidence["builds"], evidence["verification"]["status"], evidence["outside"]) == (True, "live", {})
    assert sorted(evidence["spec"]["target_modules"]) == ["k_proj", "o_proj", "q_proj", "v_proj"]

    ruling = {"decision": "approve", "comment": "Live in every block."}
    condition = {"If-Match": found.headers["ETag"]}
    refused = root.post(f"{place}/reviews", json=ruling, headers=condition)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_allowed")
    assert ada.post(f"{place}/reviews", json=ruling, headers=condition).status_code == 403
    published = grace.post(f"{place}/reviews", json=ruling, headers=condition).json()
    mapping = published["mapping_id"]

    served = ada.get("/v1/targets/olmo2").json()
    assert (served["id"], served["source"]["kind"]) == (mapping, "community")
    assert served["target_modules"] == evidence["spec"]["target_modules"]
    told = ada.get("/v1/architectures/transformers/olmo2/history").json()["revisions"]
    (mine,) = [one for one in told if one["mapping"]["id"] == mapping]
    (change,) = [one for one in mine["changes"] if one["action"] == "submission.publish"]
    assert (change["actor"], change["details"]["comment"]) == ("grace", "Live in every block.")
    assert change["at"] >= body["created_at"]

    path, reason = f"/v1/mappings/{mapping}", {"reason": "Only to show it."}
    tag = {"If-Match": ada.get(path).headers["ETag"]}
    assert ada.post(f"{path}/yank", json=reason, headers=tag).status_code == 403
    assert grace.post(f"{path}/yank", json=reason, headers=tag).json()["yank_reason"] == "Only to show it."
    assert ada.get("/v1/targets/olmo2").json() == before
    assert grace.post(f"{path}/restoration", json=reason, headers=tag).status_code == 412
    assert grace.post(f"{path}/restoration", json=reason).json()["yanked_at"] is None
    assert ada.get("/v1/targets/olmo2").json()["id"] == mapping
    feed = ada.get("/v1/changes", params={"since": 1}).json()["changes"]
    actions = [change["action"] for change in feed if change["action"].split(".")[0] in ("submission", "mapping")]
    assert actions == ["submission.add", "submission.check", "submission.publish", "mapping.yank", "mapping.restore"]
