"""``loradar constants``: patches for PEFT's constants.py, tried on the real peft."""

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from in_process import run_module

from loradar.cli import main
from loradar.registry import installed_constants, load_constants, parse_constants

LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
VERA = "TRANSFORMERS_MODELS_TO_VERA_TARGET_MODULES_MAPPING"
IA3 = "TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING"
OSF = "TRANSFORMERS_MODELS_TO_OSF_TARGET_MODULES_MAPPING"
PEFT_PATH = "src/peft/utils/constants.py"

DECODERS = [
    *("apertus", "arcee", "cohere", "cohere2", "exaone4", "glm", "glm4", "granite", "helium", "hunyuan_v1_dense"),
    *("nemotron", "olmo", "olmo2", "olmo3", "persimmon", "phi3", "seed_oss", "smollm3", "starcoder2", "ministral"),
]
"""Twenty architectures PEFT has no entry for, which all take the settings of a small decoder."""

TRAIN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import peft, torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

small = dict(num_hidden_layers=2, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
             intermediate_size=48, vocab_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
trained = {}
for name in sys.argv[1:]:
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**small))
    adapted = peft.get_peft_model(model, peft.LoraConfig())
    ids = torch.randint(3, 64, (2, 7))
    adapted(input_ids=ids, labels=ids).loss.backward()
    rows = [p for n, p in adapted.named_parameters() if "lora_B" in n]
    trained[name] = [len(rows), sum(bool(p.grad.abs().sum() > 0) for p in rows)]
print(json.dumps({"file": peft.__file__, "trained": trained}))
"""


@pytest.fixture
def run(capfdbinary, read_settings):  # noqa: ARG001 - a registry to export from
    """Return a function that runs a command and returns (exit code, standard output, standard error)."""

    def run_command(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(list(map(str, arguments)))
        printed = capfdbinary.readouterr()
        return stopped.value.code or 0, printed.out, printed.err.decode()

    return run_command


@pytest.fixture
def imports_here(monkeypatch):
    """Import files in this process, which has peft already; the other tests of imports have them as they are."""
    monkeypatch.setattr(subprocess, "run", run_module)


@pytest.fixture
def file(tmp_path):
    """A small constants.py to add to."""
    path = tmp_path / "constants.py"
    path.write_text(f'{LORA} = {{\n    "llama": ["q_proj", "v_proj"],\n}}\n{VERA} = {LORA}.copy()\n')
    return path


def named(names):
    """Return the options that name architectures."""
    return [part for name in names for part in ("--name", name)]


def test_twenty_new_architectures_work_in_the_real_peft(run, tmp_path, monkeypatch):
    """A copy of peft with the patched file adapts and trains each without being told a target."""
    package = Path(import_module("peft").__path__[0])
    copied = shutil.copytree(package, tmp_path / "peft")
    target = copied / "utils/constants.py"
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", run_module)
        code, out, err = run("constants", "export", *named(DECODERS), "--no-try", "--out", target, "--json")
    assert code == 0, err
    assert json.loads(out)["imported"] is True
    old, new = (parse_constants(path.read_bytes(), "", "").tables[LORA] for path in (installed_constants(), target))
    assert new.keys() - old.keys() == set(DECODERS)
    assert {name: new[name] for name in old} == old
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", TRAIN, *DECODERS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)  # noqa: S603 - ours
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["file"]).parent == copied
    assert found["trained"].keys() == set(DECODERS)
    assert all(layers == live > 0 for layers, live in found["trained"].values()), found["trained"]


def test_git_applies_what_is_printed_and_nothing_is_left_to_add(run, tmp_path):
    """The diff of the installed peft's file, in a repository that has it where PEFT has; the second is empty."""
    options = ("constants", "export", *named(DECODERS), "--no-import", "--no-try")
    target = tmp_path / PEFT_PATH
    target.parent.mkdir(parents=True)
    shutil.copy(installed_constants(), target)
    code, diff, err = run(*options)
    assert (code, "architectures: 20. Read back, not imported." in err) == (0, True)
    (tmp_path / "ours.diff").write_bytes(diff)
    for command in (["init", "-q"], ["apply", "--check", "ours.diff"], ["apply", "ours.diff"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)  # noqa: S603, S607 - git
    assert set(DECODERS) <= parse_constants(target.read_bytes(), "", "").tables[LORA].keys()
    before = target.read_bytes()
    code, diff, err = run(*options, "--against", target, "--out", target, "--diff")
    assert (code, diff, target.read_bytes()) == (0, b"", before)
    assert err.startswith("Nothing to add: the file has every entry that can be exported.\n")


def test_the_diff_is_what_is_written_and_the_file_given_stays(run, file, tmp_path):
    """Copies are not written to; another path can be named; the rows say what is new."""
    before = file.read_bytes()
    out, readme = tmp_path / "new.py", tmp_path / "rows.md"
    options = ("constants", "export", "--against", file, "--name", "olmo2", "--no-try")
    _, diff, err = run(*options, "--path", "lib/constants.py")
    assert diff.decode() == (
        "--- a/lib/constants.py\n+++ b/lib/constants.py\n@@ -1,4 +1,5 @@\n"
        f' {LORA} = {{\n     "llama": ["q_proj", "v_proj"],\n+    "olmo2": ["q_proj", "v_proj"],\n }}\n'
        f" {VERA} = {LORA}.copy()\n"
    )
    assert err.startswith("Entries added: 1, corrected: 0, architectures: 1. Read back, not imported.\n")
    assert "| Olmo2          | ✅  |" in err
    _, printed, err = run(*options, "--out", out, "--readme", readme)
    assert (printed, file.read_bytes(), "Olmo2" in err) == (b"", before, False)
    assert '    "olmo2": ["q_proj", "v_proj"],\n' in out.read_text()
    assert readme.read_text("utf-8").startswith("### Causal Language Modeling\n")


def test_json_has_everything(run, file):
    """What is added and why it may be, what is left out and why, the diff and the rows."""
    _, out, err = run(
        "constants", "export", "--against", file, "--name", "olmo2", "--name", "idefics", "--no-try", "--json"
    )
    found = json.loads(out)
    assert err == ""
    (added,) = found["added"]
    assert (added["table"], added["name"], added["targets"]) == (LORA, "olmo2", ["q_proj", "v_proj"])
    assert (added["status"], added["source"]["kind"]) == ("live", "scanner")
    (left,) = found["left_out"]
    assert (left["table"], left["name"]) == (LORA, "idefics")
    assert "exclude_modules" in left["reason"]
    assert (found["corrected"], found["file"], found["imported"]) == ([], None, None)
    assert '+    "olmo2"' in found["diff"]
    assert "Olmo2" in found["readme"]


def test_a_named_type_is_taken_without_a_look_at_the_others(run, file, monkeypatch):
    """What one entry cannot serve matters to types that nobody named, and takes the configurations of all."""

    def look(names):
        raise AssertionError(names)

    monkeypatch.setattr("loradar.cli.constants._find_unsuitable", look)
    code, out, _ = run("constants", "export", "--against", file, "--name", "olmo2", "--no-try", "--json")
    assert (code, [one["name"] for one in json.loads(out)["added"]]) == (0, ["olmo2"])


def test_a_file_of_ones_own_is_imported_only_when_told(run, file, tmp_path, monkeypatch):
    """Importing runs it, beside the installed peft, whatever lies in the folder one stands in."""
    monkeypatch.chdir(tmp_path)
    for name in ("peft", "torch"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('another one')\n")
    marker = tmp_path / "ran"
    file.write_text(file.read_text() + f"open({str(marker)!r}, 'w').close()\n")
    options = ("constants", "export", "--against", file, "--name", "olmo2", "--no-try")
    assert "not imported" in run(*options)[2]
    assert not marker.exists()
    assert "and imported beside peft" in run(*options, "--import")[2]
    assert marker.exists()


ELSE = [
    ("raise RuntimeError('not today')", "Cannot import the file next to the installed peft: RuntimeError: not today"),
    (f"globals()['{LORA}']['olmo2'] = ['x']", f"The imported tables are not as planned: {LORA}['olmo2'] is not"),
]


@pytest.mark.usefixtures("imports_here")
@pytest.mark.parametrize(("line", "words"), ELSE, ids=["an error", "another table"])
def test_a_file_that_imports_as_something_else_is_refused(run, file, tmp_path, line, words):
    """Its own code may do what reading does not see; nothing is written then."""
    file.write_text(f"{file.read_text()}{line}\n")
    out = tmp_path / "new.py"
    code, _, err = run(
        "constants", "export", "--against", file, "--name", "olmo2", "--no-try", "--import", "--out", out
    )
    assert (code, out.exists()) == (2, False)
    assert words in err


def test_dead_entries_are_corrected_when_told(run):
    """PEFT's entries for vit and dinov2 name layers that transformers 5 has renamed."""
    names = named(["vit", "dinov2"])
    _, out, _ = run("constants", "export", *names, "--correct", "--no-import", "--no-try", "--json")
    corrected = {(one["table"], one["name"]): (one["replaces"], one["targets"]) for one in json.loads(out)["corrected"]}
    assert {name for _, name in corrected} == {"vit", "dinov2"}
    assert all(change == (["query", "value"], ["q_proj", "v_proj"]) for change in corrected.values())


def test_what_the_real_peft_refuses_is_left_out(run):
    """I-BERT's linears are of a class PEFT does not take; its norms are as good as any."""
    options = ("constants", "export", *named(["ibert", "olmo2"]), "--no-import", "--json")
    every, tried = (json.loads(run(*options, *more)[1]) for more in (("--no-try",), ()))
    gone = [one for one in every["added"] if one not in tried["added"]]
    assert {one["name"] for one in gone} == {"ibert"}
    refused = {one["table"]: one["reason"] for one in tried["left_out"] if "rejects it" in one["reason"]}
    assert refused.keys() == {one["table"] for one in gone} >= {LORA}
    assert "QuantLinear" in refused[LORA]
    assert tried["diff"].count('+    "ibert"') == every["diff"].count('+    "ibert"') - len(gone)


def test_composites_and_parts_are_left_out_unless_named(run):
    """One entry serves no composite, since its models are free; nobody loads a Q-Former by itself."""
    options = ("constants", "export", "--peft-type", "lora", "--include-unproven", "--no-try", "--no-import", "--json")
    found = json.loads(run(*options)[1])
    reasons = {one["name"]: one["reason"] for one in found["left_out"]}
    assert reasons["vision-encoder-decoder"].startswith("its layers depend on the models that its configuration names")
    assert reasons["instructblip_qformer"].startswith("no auto class loads it: it is a part of other models")
    added = {one["name"] for one in found["added"]}
    assert "olmo2" in added
    assert not added & {"vision-encoder-decoder", "instructblip", "instructblip_qformer", "clipseg_text_model"}
    named_one = json.loads(run(*options, "--name", "clipseg_text_model")[1])
    assert {one["name"] for one in named_one["added"]} == {"clipseg_text_model"}


def test_trials_that_end_early_are_told(run, monkeypatch):
    """A process that dies has not said that PEFT takes the rest."""
    monkeypatch.setattr("loradar.cli.constants.TRIALS", "loradar.no_such_module")
    code, out, err = run("constants", "export", "--name", "olmo2", "--no-import")
    assert (code, out) == (2, b"")
    assert "Trying the entries on peft failed after 0 of 8" in err


def test_a_wish_narrows_the_patch(run):
    """One method, three architectures; and more with what is unproven."""
    options = ("constants", "export", "--peft-type", "osf", "--no-import", "--no-try", "--json")
    found = json.loads(run(*options, "--limit", "3")[1])
    assert ({one["table"] for one in found["added"]}, len(found["added"])) == ({OSF}, 3)
    proved, every = (json.loads(run(*options, *more)[1])["added"] for more in ((), ("--include-unproven",)))
    assert {one["status"] for one in proved} == {"live"}
    assert {one["status"] for one in every} >= {"live", "unproven"}


USED = {
    "a.csv": "model_type,downloads\nolmo2,7\nllama,90\nstarcoder2,9\nolmo2,4\n",
    "b.json": '{"olmo2": 11, "starcoder2": 9}',
}


@pytest.mark.parametrize(("file", "names"), [("a.csv", {"olmo2"}), ("b.json", {"olmo2", "starcoder2"})])
def test_the_most_used_types_come_first(run, tmp_path, file, names):
    """Rows of one type are added up, and types without a figure get no entry."""
    usage, top = tmp_path / file, str(len(names))
    usage.write_text(USED[file])
    options = ("--peft-type", "osf", "--no-import", "--no-try", "--json", "--usage", str(usage), "--top", top)
    assert {one["name"] for one in json.loads(run("constants", "export", *options)[1])["added"]} == names


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (None, ("--top", "3"), "--top needs --usage FILE"),
        ("olmo2,3", (), "--usage needs --top N"),
        ("olmo2,3", ("--top", "3", "--limit", "2"), "--top 3 and --limit 2 are both"),
        ("olmo2,3\nllama,many", ("--top", "3"), "no whole number at entry 2 (llama, many)"),
        ("olmo2", ("--top", "3"), "is no list of model types and counts"),
        ("", ("--top", "3"), "names no model type"),
    ],
)
def test_figures_of_use_are_checked(run, tmp_path, content, options, words):
    """One line, with the way out."""
    given = ("--usage", str(tmp_path / "used.csv")) if content is not None else ()
    (tmp_path / "used.csv").write_text(content or "")
    code, out, err = run("constants", "export", "--no-import", "--no-try", *given, *options)
    assert (code, out, err.count("\n")) == (2, b"", 1)
    assert words in err


EXPORT = ("--no-try", "--no-import")
"""The options of an export that runs nothing."""

BAD = [
    (("--name", "olmo22"), "Unknown architecture 'olmo22'. Closest: 'olmo2'"),
    (("--peft-type", "LORRA"), "Unknown PEFT type 'LORRA'"),
    (("--against", "/no/such/constants.py"), "Cannot read '/no/such/constants.py'"),
    (("--against", __file__, "--name", "olmo2"), "no table"),
    (("--path", "../constants.py"), "'../constants.py'"),
    (("--path", "/etc/constants.py"), "'/etc/constants.py'"),
    (("--path", "a b.py"), "'a b.py'"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=lambda value: " ".join(value)[:40])
def test_bad_input_is_one_line_and_exit_code_2(run, options, words):
    """No traceback, and the message names the value."""
    code, out, err = run("constants", "export", "--no-import", "--no-try", *options)
    assert (code, out, err.count("\n")) == (2, b"", 1)
    assert words in err


@pytest.mark.parametrize(
    "command",
    [
        ("export", "--name", "olmo2", "--no-try", "--no-import", "--out"),
        ("export", "--name", "olmo2", "--no-try", "--no-import", "--readme"),
        ("facts",),
    ],
    ids=["patch", "rows", "facts"],
)
def test_a_file_that_cannot_be_written_is_named(run, tmp_path, command):
    """In one line, with the reason."""
    place = tmp_path / "no" / "such" / "file"
    code, _, err = run("constants", *command, place)
    assert code == 2
    assert err == f"Error: '{place}' cannot be written: No such file or directory. Choose another path.\n"


def test_the_facts_are_written_as_the_seed_has_them(run, tmp_path):
    """`constants facts` makes the file that seeds a registry."""
    out = tmp_path / "facts.json"
    assert run("constants", "facts", out)[0] == 0
    assert load_constants(out) == load_constants()
