"""``loradar plan``: the memory of training, as a table and as JSON; a bad size is one line."""

import json

import pytest
from rich.table import Table

from loradar.cli import main
from loradar.cli.output.rows import print_table


def run(*arguments):
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(["plan", *arguments])
    return caught.value.code


@pytest.mark.usefixtures("read_settings")
def test_json_has_every_figure_in_bytes(capsys):
    """And the choice that fits."""
    arguments = ("--memory", "8GB", "--batch", "2", "--length", "64", "--preset", "default", "--rank", "8")
    assert run("distilbert", *arguments, "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    (choice,) = planned["choices"]
    assert planned["chosen"] == choice
    assert planned["limit"] == 8 * 10**9
    assert planned["inputs"]["input_ids"] == [2, 64]
    assert choice["fits"] is True
    assert choice["base"] + choice["adapter"] + choice["optimizer"] < choice["peak"] < choice["needed"]


def test_a_bad_size_is_one_line(capsys):
    """With the way out."""
    assert run("llama", "--memory", "24") == 2
    message = "Error: memory='24' is no size. Give a number with a unit: 24GB, 24GiB or 80000MB.\n"
    assert capsys.readouterr().err == message


def test_a_table_is_one_record_for_each_row_on_a_narrow_terminal(capsys, monkeypatch):
    """Seven columns in 40 fold their words letter by letter."""
    table = Table("preset", "rank", "fits")
    table.add_row("recommended", "8", "")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    print_table(table)
    assert capsys.readouterr().out == "  preset  recommended\n  rank    8\n\n"
    monkeypatch.setenv("COLUMNS", "80")
    print_table(table)
    assert len(capsys.readouterr().out.splitlines()) == len(("top", "head", "line", "row", "bottom"))
