"""A contribution from end to end by commands, at the local registry and at a service, with the real machine checks."""

import json

import pytest

from loradar.api import running
from loradar.cli import main
from loradar.cli.options import TOKEN_VARIABLE


@pytest.fixture(params=["local", "service"])
def where(request, seeded_settings):
    """The options that name the registry: none for the local one."""
    if request.param == "local":
        yield ()
        return
    with running(seeded_settings) as url:
        yield ("--url", url)


@pytest.fixture
def run(capsys, monkeypatch, where):
    """Return a function that runs a command there, as somebody, and returns (exit code, output, errors)."""

    def run_command(*arguments, token=""):
        monkeypatch.setenv(TOKEN_VARIABLE, token)
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, *where])
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run_command


@pytest.fixture
def tokens(registry):
    """The secrets of a contributor, a reviewer and an admin."""
    roles = {"ada": "contributor", "bob": "reviewer", "root": "admin"}
    return {name: registry.tokens.create(name, role)[1] for name, role in roles.items()}


def test_what_one_states_and_another_approves_is_looked_up(run, where, tokens):
    """Submitted, checked, not reviewed by its author, approved by another, in the history; yanked and restored."""
    reviewer = run("token", "create", "eve", "--role", "reviewer", token=tokens["root"])[1].strip()
    said = {"name": "olmo2", "target_modules": ".*self_attn[.](q|v)_proj", "rationale": "As in every other decoder."}
    code, out, _ = run("submit", json.dumps(said), "--json", *(["--wait"] if where else []), token=reviewer)
    (sent,) = json.loads(out)["submissions"]
    assert (code, sent["status"], sent["submitter"]) == (0, "needs_review", "eve")
    evidence = sent["evidence"]
    assert evidence["verification"]["status"] == "live"
    assert evidence["spec"]["target_modules"] == ["q_proj", "v_proj"]
    code, _, err = run("review", "1", "--approve", "--comment", "Mine.", token=reviewer)
    assert (code, "Submission 1 is eve's own:" in err) == (2, True)
    assert run("review", "1", "--approve", "--comment", "Mine.", token=tokens["ada"])[0] == 2
    code, out, _ = run("review", "1", "--approve", "--comment", "Good.", "--if-match", "2", token=tokens["bob"])
    assert code == 0, out
    found = json.loads(run("lookup", "olmo2", "--json")[1])
    assert (found["source"]["kind"], found["target_modules"]) == ("community", ["q_proj", "v_proj"])
    assert "bob  submission.publish" in run("history", "olmo2")[1]
    short = found["id"].removeprefix("sha256:")[:8]
    assert run("yank", short, "--reason", "A mistake.", token=tokens["ada"])[0] == 2
    assert run("yank", short, "--reason", "A mistake.", token=tokens["bob"])[0] == 0
    assert json.loads(run("lookup", "olmo2", "--json")[1])["source"]["kind"] == "scanner"
    assert run("restore", short, "--reason", "It was none.", "--if-match", "2", token=tokens["bob"])[0] == 0
    assert json.loads(run("lookup", "olmo2", "--json")[1])["source"]["kind"] == "community"
    assert "eve" in run("token", "list", token=tokens["root"])[1]


def test_what_fails_its_checks_is_told_with_what_would_do(run, where, tokens):
    """Both of a misspelt name; the third, of an architecture that nobody has, is told as that."""
    sent = json.dumps({"olmo2": ["q_porj"], "no_such_type": ["q_proj"]})
    code, out, _ = run("submit", sent, *(["--wait"] if where else []), token=tokens["ada"])
    assert code == 1
    assert "It matches nothing of this architecture. Closest: 'q_proj'" in out
    assert "Unknown architecture 'no_such_type'" in out
    listed = json.loads(run("submissions", "--status", "failed", "--json")[1])["submissions"]
    assert [one["id"] for one in listed] == [2, 1]
    code, out, _ = run("withdraw", "1", "--reason", "Misspelt.", token=tokens["ada"])
    assert (code, out.startswith("submission 1, withdrawn: ")) == (0, True)


def test_what_is_submitted_twice_is_refused(run, where, tokens):
    """With the number of the first; a service says so in the same words as the registry."""
    assert run("submit", '{"olmo2": ["q_proj"]}', token=tokens["ada"])[0] == 0
    code, _, err = run("submit", '{"olmo2": ["q_proj"]}', token=tokens["bob"])
    assert code == 2
    assert "Submission 1 is equal and open" in err
    assert ("being checked by the service" in err) is False or where
