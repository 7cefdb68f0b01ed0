"""Checks as they run in the sandbox: what is built, what is only listed, and what is never imported."""

import os
import sys
from dataclasses import replace

import pytest

from loradar.domain.identities import Actor
from loradar.errors import InvalidReference, InvalidRequest, InvalidStatement, UnknownArchitecture
from loradar.sandbox.pool import Bounds, Sandbox
from loradar.sandbox.tasks import Checked, check, precheck, scan_sent
from loradar.validation.statements import parse_statements

LAYERS = [{"path": f"blocks.{n}.fc{m}", "shape": [8, 8], "class": "Linear"} for n in range(3) for m in (1, 2)]


def state(**fields):
    """Return the statement a body stands for."""
    (statement,) = parse_statements({"name": "bert", "target_modules": ["query", "value"], **fields})
    return statement


@pytest.fixture(scope="module")
def sandbox():
    """A sandbox as a service has it."""
    with Sandbox(Bounds(workers=1, memory=4)) as started:
        started.warm()
        yield started


def test_a_known_architecture_is_built_and_proved(sandbox):
    """In the sandbox, whose caller gets evidence and scan whole."""
    found = sandbox.run("loradar.sandbox.tasks:check", state())
    assert isinstance(found, Checked)
    assert found.failure is None
    assert found.evidence.verification.status == "live"
    assert (found.evidence.method, found.evidence.builds) == ("dataflow", True)
    assert found.evidence.proof
    assert found.evidence.differences[-1].more == found.evidence.differences[-1].less == {}
    assert found.scan.architecture.reference == "transformers:bert"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"target_modules": ["querry"]}, "It matches nothing of this architecture. Closest: 'query'"),
        ({"target_modules": r"(q)\1"}, "target_modules is not a regex that RE2 accepts"),
        ({"name": "brt"}, "Unknown architecture 'brt'. Closest: 'bert'"),
        (
            {"library": "torch", "name": "os.system"},
            "torch:os.system is a class of somebody's own, which is never imported",
        ),
    ],
    ids=["near", "regex", "unknown", "own class"],
)
def test_what_fails_is_told(fields, says):
    """A check has an outcome, whatever was stated."""
    assert check(state(**fields)).failure.startswith(says)


def test_a_library_that_is_not_there_needs_layers(monkeypatch):
    """With them the statement is weighed, unproven; without, it is refused before it is queued."""
    monkeypatch.setattr("loradar.sandbox.tasks.find_spec", lambda name: None if name == "timm" else name)
    with pytest.raises(InvalidStatement, match=r"timm is not installed with this service\. Send its 'layers'"):
        precheck(state(library="timm", name="vit_new"))
    listed = state(library="timm", name="vit_new", target_modules=["fc1"], layers=LAYERS)
    precheck(listed)
    found = check(listed)
    assert found.failure is None
    assert (found.evidence.method, found.evidence.builds) == ("listing", False)
    assert found.evidence.verification.status == "unproven"
    assert found.evidence.layers == {"blocks.*.fc1": 3}


def test_a_name_another_version_has_is_weighed_by_its_layers():
    """The installed library does not list it, so it is not built."""
    found = check(state(name="llama99", target_modules=["fc2"], layers=LAYERS))
    assert (found.evidence.method, found.evidence.matched) == ("listing", 3)


def test_layers_that_somebody_lists_are_no_scan_of_ours(registry):
    """Nothing is answered from them before a reviewer approves: they could be anything."""
    statement = state(name="llama99", target_modules=["fc2"], layers=LAYERS)
    checked = check(statement)
    assert checked.scan is None
    made = registry.submissions.add(statement, Actor("ada", "contributor"))
    registry.submissions.record_check(made.id, checked)
    for preset in ("default", "mlp", "all-linear"):
        assert registry.find("llama99", preset=preset) is None
    with pytest.raises(UnknownArchitecture):
        registry.get_architecture("transformers", "llama99")


def test_what_is_installed_outranks_the_layers_sent():
    """They could be anything."""
    assert check(state(layers=LAYERS)).evidence.method == "dataflow"


def test_no_code_of_a_contributor_is_imported(tmp_path, monkeypatch):
    """A module by the name stated is there to be imported, and is not."""
    (tmp_path / "evil_net.py").write_text("import os; os.environ['EVIL_NET'] = 'ran'\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    check(state(library="torch", name="evil_net.Net", target_modules=["fc1"], layers=LAYERS))
    for reference in ("torch:evil_net:Net", f"file:{tmp_path}/evil_net.py"):
        with pytest.raises(InvalidReference, match="is not scanned for others"):
            scan_sent({"reference": reference})
    assert "EVIL_NET" not in os.environ
    assert "evil_net" not in sys.modules


def test_what_is_sent_is_scanned():
    """A configuration, a list of layers, or a reference; the list has no name unless one is given."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    assert scan_sent({"config": {"model_type": "bert", **sizes}}).propose().matched == 4
    assert scan_sent({"layers": LAYERS}).architecture.reference == "torch:unnamed"
    named = scan_sent({"layers": LAYERS, "library": "timm", "name": "mine"})
    assert named.architecture.reference == "timm:mine"
    assert scan_sent({"reference": "transformers:bert"}).propose().matched == 24


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        ({}, InvalidRequest, "nothing to scan"),
        ({"reference": "transformers:brt"}, UnknownArchitecture, "Closest: 'bert'"),
        ({"reference": "file:../../etc/passwd"}, InvalidReference, "is not scanned for others"),
        ({"reference": "ftp:x"}, InvalidReference, "Unknown scheme"),
        ({"config": {}}, InvalidRequest, "no model_type"),
        ({"layers": []}, InvalidRequest, "0 layers are listed"),
    ],
)
def test_what_cannot_be_scanned_is_told(body, error, says):
    """As the class the service answers with."""
    with pytest.raises(error, match=says):
        scan_sent(body)


def test_a_scan_that_is_too_much_is_ended(sandbox, monkeypatch):
    """Out of time or memory, with the reason; the next is served."""
    wide = {"model_type": "llama", "num_hidden_layers": 2000, "max_position_embeddings": 4096}
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "bounds", replace(sandbox.bounds, seconds=0.5))
        with pytest.raises(Exception, match=r"more than 0.5 s"):
            sandbox.run("loradar.sandbox.tasks:scan_sent", {"config": wide})
    assert sandbox.run("loradar.sandbox.tasks:is_buildable", "transformers") is True
