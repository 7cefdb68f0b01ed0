"""Ids of mappings by their first digits."""

import pytest
from records_zoo import make_scan

from loradar.domain.identities import LOCAL
from loradar.errors import UnknownMapping
from loradar.registry import Registry
from loradar.registry.mappings import history
from loradar.settings import Settings


@pytest.fixture
def mapping_id(registry):
    """The id of a mapping on record."""
    registry.add_scan(make_scan())
    return registry.lookup("olmo2").id


def test_the_first_digits_stand_for_an_id(registry, mapping_id):
    """With the name of the digest or without, in either case, and the whole id of course."""
    digits = mapping_id.removeprefix("sha256:")
    for given in (mapping_id, digits, digits[:8], f"sha256:{digits[:12]}", digits[:9].upper()):
        assert registry.get_revision(given).mapping.id == mapping_id


@pytest.mark.parametrize("given", ["", "1234567", "sha256:", "%%%%%%%%", "0" * 65, "llama", "zzzzzzzz", "0" * 64])
def test_what_is_none_is_refused(registry, given):
    """Too few digits, none at all, or such as no id starts with."""
    with pytest.raises(UnknownMapping, match="Give its id, or the first 8 digits or more"):
        registry.get_revision(given)


def test_digits_that_several_start_with_are_refused(registry, monkeypatch):
    """And those that do are named."""
    monkeypatch.setattr(history, "_DIGITS", history.re.compile("(?:sha256:)?([0-9a-f]{1,64})"))
    with pytest.raises(UnknownMapping, match=r"Ids that start so: sha256:a[0-9a-f]{63}, sha256:a.*Give more digits"):
        registry.get_revision("a")


def test_a_yank_by_the_first_digits_yanks(registry, mapping_id):
    """The revision itself, not a name that nothing has."""
    digits = mapping_id.removeprefix("sha256:")[:8]
    assert registry.backend(LOCAL).yank(digits, "wrong").yanked_at
    assert registry.find("olmo2") is None
    assert registry.backend(LOCAL).restore(digits, "right").yanked_at is None
    assert registry.lookup("olmo2").id == mapping_id


def test_postgresql_finds_the_same(postgres_url, tmp_path):
    """Whatever order its collation gives to texts."""
    with Registry.open(Settings(tmp_path, postgres_url)) as registry:
        held = registry.lookup("llama")
        digits = held.id.removeprefix("sha256:")
        for given in (held.id, digits[:8], f"sha256:{digits[:20]}", digits[:-1]):
            assert registry.get_revision(given).mapping.id == held.id
        with pytest.raises(UnknownMapping, match="Give its id"):
            registry.get_revision("0" * 64)
