"""Repeated lookups of a process: kept as long as the registry is as it was, and never an older answer."""

import shutil

import pytest
from records_zoo import make_scan, proposal

import loradar
from loradar import registry as registries
from loradar.registry import Registry
from loradar.registry.db import watch


@pytest.fixture
def made(monkeypatch):
    """The names that were looked up in a file."""
    names, look_up = [], registries._look_up_fast

    def note(file, name, *rest):
        names.append(name)
        return look_up(file, name, *rest)

    monkeypatch.setattr(registries, "_look_up_fast", note)
    return names


@pytest.mark.usefixtures("seeded_settings")
def test_a_repeated_lookup_is_not_made_again(made, monkeypatch):
    """Each preset and spelling is kept apart; so are the choices computed from slots."""
    monkeypatch.setattr(watch, "SETTLED", -1)
    loradar.lookup("t5")  # opening a new file touches it
    first, *others = [loradar.lookup("llama") for _ in range(4)]
    assert all(other is first for other in others)
    assert made[-2:] == ["t5", "llama"]
    made.clear()
    assert loradar.lookup("llama", "IA3").peft_type == "IA3"
    assert loradar.lookup("LlamaForCausalLM").understood is not None
    assert len(made) == 2


def test_a_change_is_seen_at_once(seeded_settings):
    """Made through another connection, however soon after the last."""
    with Registry.open(seeded_settings) as other:
        for target in ["q_proj", "k_proj"] * 10:
            other.add_scan(make_scan("zaza", proposals=(proposal(target),)))
            assert {loradar.lookup("zaza").spec.target_modules for _ in range(3)} == {(target,)}


def test_another_file_under_the_same_link_is_another_registry(seeded_settings, monkeypatch):
    """As when a new copy of a registry is put in place of the old one."""
    monkeypatch.setattr(watch, "SETTLED", -1)
    file = seeded_settings.home / "registry.sqlite3"
    for number, target in enumerate(["q_proj", "k_proj"]):
        with Registry.open(seeded_settings) as opened:
            opened.add_scan(make_scan("zaza", proposals=(proposal(target),)))
        shutil.copy(file, seeded_settings.home / f"{number}.sqlite3")
    file.unlink()
    for number, target in ((0, "q_proj"), (1, "k_proj"), (0, "q_proj")):
        file.unlink(missing_ok=True)
        file.symlink_to(seeded_settings.home / f"{number}.sqlite3")
        assert {loradar.lookup("zaza").spec.target_modules for _ in range(3)} == {(target,)}
