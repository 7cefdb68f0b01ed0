"""Every dense layer of a tower, beside what other projects select there: the facts are in ``towers_elsewhere.toml``."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from test_selected import CASES, belongs, is_below

from loradar.domain.presets import ADDED, NEVER
from loradar.registry import Registry
from loradar.registry.mappings.composition import match_slots
from loradar.settings import Settings

FACTS = tomllib.loads((Path(__file__).parent / "towers_elsewhere.toml").read_text("utf-8"))
SEEING = [(name, prefixes) for name, prefixes in CASES if "vision" in prefixes]
SWIFT = [(name, layout) for layout in FACTS["swift"].values() for name in layout["types"].split()]
DENSE = ("linear", "transposed_linear")


@pytest.fixture(scope="module")
def known(seeded):
    """The registry of the packaged catalog, which everybody reads."""
    with Registry.open(Settings(seeded.parent, f"sqlite:///{seeded}")) as opened:
        yield opened


def select(known, name, tower):
    """Return the dense slots that preset all-linear adapts in a tower, and all slots of the model."""
    slots = known.list_slots("transformers", name)
    mapping = known.lookup(name, preset="all-linear", towers=tower)
    return {slot for slot in match_slots(mapping.spec, slots) if slot.kind in DENSE}, slots


def why_left(slot):
    """Return why no preset but everything adapts a dense layer; empty if one should."""
    if slot.live is False or slot.bypassed or slot.kernel:
        return "no gradient"
    if "*" not in slot.pattern:
        return "outside the blocks"
    return "never adapted" if slot.role in NEVER | ADDED else ""


def check_exact(ours, theirs, context):
    """Check that a tower has exactly the layers that its modules hold, but for those left with a reason."""
    assert not {slot.pattern for slot in ours - theirs}, context
    assert not {slot.pattern for slot in theirs - ours if not why_left(slot)}, context


@pytest.mark.parametrize(("name", "prefixes"), SEEING, ids=[name for name, _ in SEEING])
def test_a_tower_is_every_dense_layer_below_its_modules(known, name, prefixes):
    """By the prefixes of its modules, of 66 vision-language types."""
    for tower in ("language", "vision"):
        ours, slots = select(known, name, tower)
        theirs = {slot for slot in slots if slot.kind in DENSE and belongs(slot.pattern, tower, prefixes)}
        assert ours or (name, tower) == ("align", "vision")  # an EfficientNet
        check_exact(ours, theirs, (name, tower))


@pytest.mark.parametrize(("name", "layout"), SWIFT, ids=[name for name, _ in SWIFT])
def test_ms_swift_freezes_and_trains_the_same_modules(known, name, layout):
    """``freeze_vit``, ``freeze_llm`` and ``freeze_aligner``, each of which leaves one part."""
    prefixes = {part: " ".join(layout[part]) for part in ("language", "projector", "vision")}
    for tower in ("language", "vision"):
        ours, slots = select(known, name, tower)
        check_exact(ours, {x for x in slots if x.kind in DENSE and belongs(x.pattern, tower, prefixes)}, (name, tower))
    slots = known.list_slots("transformers", name)
    theirs = {x for x in slots if x.kind in DENSE and is_below(x.pattern, prefixes["projector"])}
    assert theirs or name == "gemma3"  # a bare matrix
    if theirs:
        assert select(known, name, "projector")[0] == theirs


@pytest.mark.parametrize("name", FACTS["factory"])
def test_llama_factory_finds_the_same_towers_by_parts_of_paths(known, name):
    """The language model is what is neither vision nor projector; its heads are saved, not adapted."""
    parts = FACTS["factory"][name]

    def has(slot, kind):
        return any(f".{part}." in f".{slot.pattern}." for part in parts[kind])

    for tower in ("language", "vision"):
        ours, slots = select(known, name, tower)
        dense = [slot for slot in slots if slot.kind in DENSE and not has(slot, "projector")]
        check_exact(ours, {slot for slot in dense if has(slot, "vision") is (tower == "vision")}, (name, tower))


def select_by_tags(slots, tower):
    """Return the linears that have a tag of the tower, then one of a component, then a name that is not unique."""
    counts = Counter()
    for slot in slots:
        counts[slot.pattern.rpartition(".")[2]] += slot.count if slot.kind == "linear" else 0
    tags, components = ("|".join(FACTS["unsloth"][kind]) for kind in (tower, "component"))
    names = "|".join(re.escape(name) for name, count in counts.items() if count > 1)
    found = re.compile(rf".*?(?:{tags}).*?(?:{components}).*?(?:{names})")
    return {slot for slot in slots if slot.kind == "linear" and found.fullmatch(slot.pattern.replace("*", "0"))}


def test_unsloth_selects_the_same_by_tags_but_where_listed(known):
    """39 of 66 types exactly; the differences are those of the table, each with its reason."""
    listed = {side: set() for side in ("ours", "theirs")}
    for each in FACTS["differences"]:
        listed[each["side"]] |= {*each["types"].split()}
    found = {"ours": set(), "theirs": set()}
    for name, _ in SEEING:
        for tower in ("language", "vision"):
            ours, slots = select(known, name, tower)
            theirs = select_by_tags(slots, tower)
            assert all(map(why_left, theirs - ours)) or name == "glm5_next", (name, tower)
            if {slot for slot in ours - theirs if slot.kind == "linear"}:
                found["ours"].add(name)
            if theirs - ours:
                found["theirs"].add(name)
    assert found == listed
    assert len(SEEING) >= 60
    assert len(SEEING) - len(found["ours"] | found["theirs"]) == 39
