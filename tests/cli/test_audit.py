"""``loradar audit`` and its generated report."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
from records_zoo import make_scan

from loradar.cli import main
from loradar.registry import Registry, peft_report

ROOT = Path(__file__).parent.parent.parent
INSTALLED = version("transformers")


@pytest.fixture
def run(capsys):
    """Return a function that runs a command and returns (exit code, standard output)."""

    def run_command(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        return stopped.value.code or 0, capsys.readouterr().out

    return run_command


@pytest.fixture
def scanned(monkeypatch):
    """Record what is scanned; every scan finds the same two blocks."""
    asked = []

    def scan_each(_library, names, _runner, **_how):
        asked.extend(names)
        return ((name, make_scan(name, library_version=INSTALLED)) for name in names)

    monkeypatch.setattr("loradar.discovery.scan_each", scan_each)
    return asked


@pytest.mark.usefixtures("seeded_settings")
def test_what_was_checked_is_not_scanned_again(run, scanned):
    """The catalog holds checks for the installed version; --rescan asks the library nevertheless."""
    code, out = run("audit", "--source", "peft", "--name", "mixtral", "--peft-type", "IA3", "--json")
    told = json.loads(out)
    assert (code, scanned, told["scanned"]) == (0, [], [])
    assert (told["library"], told["library_version"], told["source"]) == ("transformers", INSTALLED, "peft")
    assert told["totals"] == {"partial": 1}
    assert told["outcomes"][0]["verification"]["counts"]["w2"] == {}
    code, out = run("audit", "--source", "peft", "--name", "mixtral", "--peft-type", "IA3", "--json", "--rescan")
    told = json.loads(out)
    assert (scanned, told["scanned"]) == (["mixtral"], ["mixtral"])
    (outcome,) = told["outcomes"]
    assert outcome["verdict"] == "partial"
    assert outcome["verification"]["findings"] == ["w2 matches nothing", "feedforward w2 matches nothing"]
    assert outcome["target_modules"] == ["k_proj", "v_proj", "w2"]


def test_an_outcome_is_stored(run, scanned, seeded_settings):
    """A lookup sees it at once."""
    run("audit", "--source", "peft", "--name", "gpt2", "--peft-type", "LORA", "--rescan")
    assert scanned == ["gpt2"]
    with Registry.open(seeded_settings) as registry:
        stored = {(m.name, m.peft_type): m for m in registry.list_mappings("transformers", "peft", INSTALLED)}
    assert stored["gpt2", "LORA"].verification.findings == ("c_attn matches nothing",)


@pytest.mark.usefixtures("seeded_settings", "scanned")
def test_people_read_a_table(run):
    """Findings by verdict, then the totals."""
    code, out = run("audit", "--source", "peft", "--name", "gpt2", "--name", "chatglm", "--rescan")
    assert code == 0
    assert out.index("dead") < out.index("unknown")
    assert "c_attn matches" in out
    assert "dead, " in out.splitlines()[-2]
    assert out.splitlines()[-1].startswith("1 architectures scanned now")


@pytest.mark.usefixtures("seeded_settings")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--source", "rumour"), "Unknown source 'rumour'. Sources: 'community', 'peft', 'scanner'."),
        (("--markdown", "x.md"), "loradar audit --source peft --markdown FILE"),
        (("--name", "lama"), "No such mapping is registered for: 'lama'."),
        (("--library", "keras"), "'keras'"),
    ],
)
def test_bad_questions_are_refused(run, arguments, words):
    """In one line, with exit code 2 or what the error says."""
    code, out = run("audit", *arguments, "--json")
    assert code != 0
    assert words in json.loads(out)["error"]["message"]


@pytest.mark.usefixtures("seeded_settings")
def test_the_report_in_the_repository_is_that_of_the_catalog(run, scanned, tmp_path):
    """``make audit`` made it: nothing is scanned for it, so it can be compared."""
    out = tmp_path / "peft-audit.md"
    assert run("audit", "--source", "peft", "--markdown", str(out))[0] == 0
    assert scanned == []
    assert out.read_text("utf-8") == (ROOT / "docs/evidence/peft-audit.md").read_text("utf-8")


def test_the_report_needs_no_outcome():
    """An empty registry has nothing wrong."""
    assert "## What is wrong\n\nNothing." in peft_report((), "transformers", INSTALLED)
