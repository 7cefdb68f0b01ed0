"""The tree of modules that ``loradar scan`` prints on a terminal."""

import io
import os
import re
from dataclasses import replace

import pytest
from rich.console import Console

from loradar.cli import main
from loradar.cli.output.scan_tree import print_scan_tree
from loradar.discovery import scan
from loradar.discovery.scanner import make_slots
from loradar.domain.architectures import Architecture
from loradar.domain.layers import Layer
from loradar.domain.scans import Proposal, Scan

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def make_scan(*layers, targets=("up",)):
    """Return a scan of layers given as (path, role), each 4 by 2."""
    found = tuple(Layer(path, "linear", "Linear", (4, 2), role=role) for path, role in layers)
    proposal = Proposal(
        peft_type="LORA", preset="mlp", target_modules=targets, matched=1, formula=None, reasons=("a test",)
    )
    own = Architecture("torch", "sent")
    return Scan(
        architecture=own, method="names", layers=found, towers={}, slots=make_slots(found), proposals=(proposal,)
    )


def draw(scanned, width=100, *, is_terminal=True):
    """Return what a console of a width shows of a scan."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=is_terminal, color_system="standard")
    print_scan_tree(scanned, scanned.proposals[0], console)
    return file.getvalue()


def read(text):
    """Return the lines without styles."""
    return [line.rstrip() for line in STYLE.sub("", text).splitlines()]


def test_repeated_blocks_are_folded_in_the_order_of_the_model():
    """With the role and shape of each layer, and a mark at the targets alone."""
    blocks = [(f"model.layers.{n}.{leaf}", f"mlp.{leaf}") for n in range(32) for leaf in ("up", "down")]
    assert read(draw(make_scan(("model.tokens", "other"), *blocks, ("head", "head")))) == [
        "● target of LORA mlp",
        "├── model",
        "│   ├── tokens    other  4x2",
        "│   └── layers.*  x32",
        "│       ├── up   ●  mlp.up    4x2",
        "│       └── down    mlp.down  4x2",
        "└── head    head  4x2",
    ]


def test_what_only_some_blocks_hold_is_counted():
    """Stages of different depth, and a layer that the last stage lacks."""
    blocks = [(f"stages.{stage}.blocks.{n}.up", "mlp.up") for stage, depth in enumerate((2, 6)) for n in range(depth)]
    drawn = read(draw(make_scan(*blocks, ("stages.0.reduce", "other"))))
    assert "├── blocks.*  x2-6" in "\n".join(drawn)
    assert any(line.endswith("reduce    other  4x2  in 1 of 2") for line in drawn)


def test_a_part_of_the_blocks_as_targets_is_told():
    """As with ``--blocks``."""
    layers = [(f"layers.{n}.up", "mlp.up") for n in range(4)]
    drawn = draw(make_scan(*layers, targets=("layers.3.up",)))
    assert "up ●  mlp.up  4x2  1 of 4 are targets" in read(drawn)[-1]


def test_shapes_state_and_ties_stand_beside_a_layer():
    """More than one shape, a layer that cannot learn, and a shared weight."""
    made = make_scan(("a.0.up", "mlp.up"), ("a.1.up", "mlp.up"), ("dead", "other"), ("tied", "head"))
    first, second, dead, tied = made.layers
    layers = (
        first,
        replace(second, shape=(8, 2)),
        replace(dead, live=False, proof="no gradient"),
        replace(tied, tied_to="a.0.up"),
    )
    drawn = "\n".join(read(draw(replace(made, layers=layers, slots=make_slots(layers)))))
    assert "mlp.up  4x2 and 1 more" in drawn
    assert "other  4x2  dead" in drawn
    assert "head   4x2  tied to a.0.up" in drawn


def test_roles_have_colours_that_no_color_takes_away(monkeypatch):
    """The mark is a sign, and stays."""
    scanned = make_scan(("q", "attention.query"), ("up", "mlp.up"))
    colours = COLOUR.findall(draw(scanned))
    assert len({*colours}) == 2
    monkeypatch.setenv("NO_COLOR", "1")
    plain = draw(scanned)
    assert not COLOUR.search(plain)
    assert "up ●" in "\n".join(read(plain))


def test_forty_columns_are_enough():
    """Of a model with experts in blocks: nothing is cut, each line fits."""
    scanned = scan("torch:discovery_zoo:Decoder")
    wide, narrow = read(draw(scanned)), read(draw(scanned, 40))
    assert max(map(len, narrow)) <= 40
    words = {word for line in wide for word in re.findall(r"[\w.*]+", line)}
    assert words == {word for line in narrow for word in re.findall(r"[\w.*]+", line)}


def test_a_name_cannot_control_the_terminal():
    """Names come from files of strangers."""
    drawn = draw(make_scan(("layers.0.\x1b]0;title\x07up", "mlp.up"), ("[red]", "other")))
    assert "\x1b]" not in drawn
    assert "[red]" in "\n".join(read(drawn))


@pytest.mark.usefixtures("read_settings")
def test_a_terminal_gets_the_tree_and_a_pipe_the_table(run, monkeypatch):
    """With the same proposals."""
    piped = run("scan", "torch:zoo:MLP")[1]
    assert "Slots" in piped
    assert "\x1b" not in piped
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    code, shown, err = run("scan", "torch:zoo:MLP")
    assert (code, err) == (0, "")
    assert "Slots" not in shown
    assert "● target of LORA default" in read(shown)
    assert "seq.* (2 layers)" in piped
    assert "seq.* (" not in shown  # the tree has it
    assert "left out: 1 head layer" in shown
    headings = [[line for line in read(out) if "layers, trains" in line] for out in (piped, shown)]
    assert headings[0] == headings[1] != []


@pytest.mark.usefixtures("read_settings")
def test_a_reader_that_goes_ends_a_scan_quietly(monkeypatch, capfd):
    """Code 141, no traceback."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w", encoding="utf-8") as gone:
        monkeypatch.setattr("sys.stdout", gone)
        with pytest.raises(SystemExit) as stopped:
            main(["scan", "torch:zoo:MLP"])
    assert stopped.value.code == 141
    assert "Traceback" not in capfd.readouterr().err
