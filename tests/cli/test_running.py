"""Wrong arguments are one line, contradictions are rejected, and exit codes are those of docs/reference/cli.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["lookup"], "Error: Missing argument 'REFERENCE'. See: loradar lookup --help\n"),
        (["snippet", "llama"], "Error: Missing option '--for'. See: loradar snippet --help\n"),
        (["lookp", "llama"], "Error: No such command 'lookp'. Did you mean 'lookup'? See: loradar --help\n"),
        (
            ["review", "1", "--approve", "--reject", "--comment", "x"],
            "Error: --approve and --reject contradict each other: give one of them.\n",
        ),
        (
            ["lookup", "llama", "--rank", "4", "--rank=8"],
            "Error: --rank 4 and --rank 8 contradict each other: give one of them.\n",
        ),
        (
            ["open", "llama", "--browser", "--no-browser"],
            "Error: --browser and --no-browser contradict each other: give one of them.\n",
        ),
        (
            ["list", "timm", "--installed", "--url", "http://127.0.0.1:1"],
            "Error: --installed lists a library on this machine, and --url asks a service: give one of them.\n",
        ),
        (
            ["scan", "llama", "--method", "guess"],
            "Error: Unknown method 'guess'. Methods: 'auto', 'dataflow', 'names'.\n",
        ),
        (
            ["scan", "llama", "--workers", "2"],
            (
                "Error: --out, --compact, --workers, --seconds and --memory are for --all: "
                "loradar scan --all timm --out FILE\n"
            ),
        ),
    ],
)
def test_wrong_arguments_are_one_line_on_standard_error(run, arguments, line):
    """With the way out, and code 2."""
    assert run(*arguments) == (2, "", line)


def test_with_json_wrong_arguments_are_an_object_too(run):
    """As any error."""
    code, out, _ = run("lookup", "--json")
    assert code == 2
    assert json.loads(out)["error"]["code"] == "invalid_request"


def test_what_is_said_twice_alike_is_no_contradiction(run):
    """Nor are options that can be repeated, or words behind `--`."""
    assert run("lookup", "--help", "--rank", "4", "--rank", "4")[0] == 0
    assert run("drift", "--help", "--name", "a", "--name", "b")[0] == 0


@pytest.mark.parametrize("arguments", [["-h"], ["lookup", "-h"], ["db", "-h"], ["db", "info", "-h"], [], ["db"]])
def test_help_is_everywhere(run, arguments):
    """By `-h` as well, and where a group is named alone."""
    code, out, _ = run(*arguments)
    assert code == 0
    assert "Usage: loradar" in out


def test_an_unknown_method_lists_those_of_peft(run):
    """The nearest first."""
    code, _, err = run("lookup", "llama", "--peft-type", "LORRA")
    assert code == 2
    assert "Closest: 'LORA'" in err
    assert "PEFT's methods: ADALORA, " in err


@pytest.mark.usefixtures("read_settings")
def test_a_misspelt_name_is_not_to_be_scanned(run):
    """Nor one that no library has; a class of the user's own, which is not registered, is."""
    assert "Scan it" not in run("similar", "lama")[2]
    assert "List what is known with: loradar list transformers; what only" in run("similar", "xyzzyplugh")[2]
    assert run("similar", "torch:mine:Model")[2].endswith("Scan it with: loradar scan torch:mine:Model --store\n")


def test_an_unknown_field_of_a_statement_names_the_nearest(run, monkeypatch):
    """And all there are."""
    monkeypatch.setenv("LORADAR_TOKEN", "x")
    code, _, err = run("submit", '{"name": "olmo2", "target_module": ["q_proj"]}')
    assert code == 2
    assert "field 'target_module': There is no such field. Closest: 'target_modules'. Fields: 'library'" in err


@pytest.mark.usefixtures("read_settings")
def test_a_reader_that_goes_ends_the_command_quietly():
    """Code 141, as SIGPIPE has it, never 1, and no traceback."""
    command = 'set -o pipefail; "$0" -m loradar.cli list timm | head -1'
    done = subprocess.run(["bash", "-c", command, sys.executable], capture_output=True, text=True, check=False)  # noqa: S603, S607
    assert done.returncode in {0, 141}
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.usefixtures("read_settings")
def test_rows_fit_a_narrow_terminal(run, monkeypatch):
    """Values are wrapped under each other; what goes to a program has one line each."""
    assert max(map(len, run("lookup", "llama")[1].splitlines())) > 80
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = run("lookup", "llama")
    assert code == 0
    assert max(map(len, out.splitlines()[1:])) <= 40


def test_completion_is_offered_for_the_shell():
    """By the variable that its script sets; ``--show-completion`` needs a shell around it."""
    script = Path(sys.executable).with_name("loradar")
    environment = {**os.environ, "_LORADAR_COMPLETE": "source_bash"}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    assert "_LORADAR_COMPLETE=complete_bash" in done.stdout
