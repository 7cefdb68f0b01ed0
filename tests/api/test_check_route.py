"""``POST /v1/check``: a configuration that is sent is read, never run, and no file of the service is."""

import pytest

from loradar.client import Client
from loradar.schema import from_json
from loradar.training_configs.config_checks import ConfigCheck

CONFIG = "base_model: EleutherAI/gpt-neox-20b\nadapter: lora\nlora_target_modules: [q_proj]\n"


def test_a_configuration_is_checked(client):
    """The findings have their lines, and the targets instead."""
    answer = client.post("/v1/check", json={"text": CONFIG, "name": "a.yml"})
    assert answer.status_code == 200
    (part,) = from_json(ConfigCheck, answer.json()).parts
    assert [(finding.code, finding.line) for finding in part.findings] == [("nothing", 3)]
    assert part.snippet == "lora_target_modules:\n  - query_key_value"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": "a: 1"}, 422, "invalid_config"),
        ({"text": CONFIG.replace("EleutherAI/gpt-neox-20b", "org/unheard-of")}, 404, "not_registered"),
        ({"text": CONFIG.replace("[q_proj]", "'(?=a)b'")}, 422, "statement_refused"),
        ({"text": CONFIG, "name": "../a.yml"}, 422, "invalid_request"),
        ({"text": CONFIG, "model": "/etc"}, 404, "not_registered"),
        ({"text": ""}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_checked_is_said(client, body, status, code):
    """In one line, with a code."""
    answer = client.post("/v1/check", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "\n" not in answer.json()["error"]["message"]


def test_the_client_has_it(client):
    """As every other read."""
    own = Client("http://testserver")
    own._http = client
    assert not own.check(CONFIG, "a.yml").is_sound
