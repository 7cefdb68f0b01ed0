"""Progress of long work."""

import re

import pytest

from loradar.progress import showing, track
from loradar.registry.db.shipped import copy_shipped

STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def terminal(monkeypatch):
    """Standard error is a terminal of 80 columns, as rich sees it."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("terminal")
def test_steps_are_counted_on_a_terminal(capsys):
    """Each is yielded; the last line has all of them and how long they took; standard output has nothing."""
    assert [*track(iter("abc"), "scanning [x]", 3)] == ["a", "b", "c"]
    printed = capsys.readouterr()
    assert printed.out == ""
    last = STYLE.sub("", printed.err).replace("\r", "\n").strip().splitlines()[-1]
    assert re.fullmatch(r"scanning \[x\] ━+ 3/3 \d:\d\d:\d\d", last)


def test_nothing_is_shown_elsewhere(capsys, monkeypatch):
    """A log would be full of bars."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert [*track("abc", "scanning", 3)] == ["a", "b", "c"]
    with showing("downloading", is_bytes=True) as show:
        show(5, 10)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("terminal")
def test_the_time_left_and_bytes_are_shown(capsys, monkeypatch):
    """From the speed until now: 1 MB in a second of a clock that is set here."""
    now = [0.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: now[0])
    with showing("downloading", is_bytes=True) as show:
        for part in range(1, 4):
            now[0] += 1
            show(part * 1_000_000, 10_000_000, "downloading more")
    last = STYLE.sub("", capsys.readouterr().err).replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith("downloading more ━")
    assert "3.0/10.0 MB" in last
    assert last.endswith("0:00:07")


@pytest.mark.usefixtures("terminal")
def test_a_registry_is_copied_with_a_bar_once_that_takes_a_second(capsys, monkeypatch, tmp_path):
    """Nothing is shown before; the clock is stepped by each look at it."""
    source = tmp_path / "packaged"
    source.write_bytes(bytes(4 << 20))
    monkeypatch.setattr("loradar.progress.monotonic", lambda: 0.0)
    assert copy_shipped(source, tmp_path / "quick")
    assert capsys.readouterr().err == ""
    now = iter(range(10_000))
    monkeypatch.setattr("loradar.progress.monotonic", lambda: next(now))
    assert copy_shipped(source, tmp_path / "slow")
    assert (tmp_path / "slow").read_bytes() == source.read_bytes()
    last = STYLE.sub("", capsys.readouterr().err).replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith("copying the registry ━")
    assert "4.2/4.2 MB" in last
