"""One stored mapping answers for every method of its family."""

from dataclasses import replace

import pytest
from records_zoo import layer, make_scan, proposal

from loradar.domain.architectures import PromptFacts
from loradar.domain.targets import TargetSpec
from loradar.errors import MethodDoesNotFit, NotRegistered, UnknownPeftType
from loradar.registry import Registry
from loradar.settings import Settings

TRANSPOSED = [layer(f"h.{n}.attn.c_attn", "transposed_linear", "attention.qkv") for n in range(2)]
MIXED = [*TRANSPOSED, *(layer(f"h.{n}.fc", role="mlp.up") for n in range(2))]


@pytest.fixture
def registry(seeded, tmp_path):
    """A registry with PEFT's tables, to write to."""
    path = tmp_path / "registry.sqlite3"
    path.write_bytes(seeded.read_bytes())
    with Registry.open(Settings(tmp_path, f"sqlite:///{path}")) as opened:
        yield opened


def test_a_stored_lora_answers_for_the_methods_that_share_its_targets(registry):
    """The answer carries the method asked for, and says whose targets it has."""
    registry.add_scan(make_scan())
    found = registry.lookup("olmo2", "loha")
    assert (found.peft_type, found.spec.target_modules) == ("LOHA", ("q_proj", "v_proj"))
    assert found.reasons[0] == "LOHA shares LORA's targets"
    assert (found.per_rank, registry.lookup("olmo2", "HIRA").per_rank) == (None, 16)
    assert found.id == registry.lookup("olmo2").id  # stored once


def test_pefts_own_entry_for_a_method_comes_before_its_familys(registry):
    """It speaks for the method itself."""
    found = registry.lookup("gpt2", "FOURIERFT")
    assert (found.source.kind, found.spec.target_modules) == ("peft", ("mlp.c_proj",))


def test_what_a_method_cannot_adapt_is_left_out_or_refused(registry):
    """Gpt2's layers are transposed; PEFT's own LOHA entry names them all the same."""
    registry.add_scan(make_scan("gpt2", layers=TRANSPOSED, proposals=(proposal("c_attn"),)))
    with pytest.raises(MethodDoesNotFit, match="LOHA cannot adapt transformers:gpt2: what is registered for LORA"):
        registry.lookup("gpt2", "LOHA")
    registry.add_scan(make_scan("mixed", layers=MIXED, proposals=(proposal("c_attn", "fc"),)))
    found = registry.lookup("mixed", "LOHA")
    assert found.spec.target_modules == ("fc",)
    assert found.matched is None
    assert "left out: what LOHA cannot adapt; with it, the targets are unproven on 5.24.0" in found.reasons


def test_a_method_whose_configuration_has_no_exclusion_gets_a_regex(registry):
    """It hits the same."""
    excluding = replace(proposal("q_proj"), exclude_modules=("x.q_proj",))
    registry.add_scan(make_scan(proposals=(excluding,)))
    assert registry.lookup("olmo2", "LOHA").spec.exclude_modules == ("x.q_proj",)
    spec = registry.lookup("olmo2", "VERA").spec
    assert spec.exclude_modules is None
    assert "(?!" in spec.target_modules


def test_prompt_learning_is_answered_from_a_scan(registry):
    """Facts in place of targets; PEFT's tables alone do not hold them."""
    registry.add_scan(replace(make_scan(), prompt_facts=PromptFacts(2, 4, 16, 2, 8)))
    found = registry.lookup("olmo2", "CARTRIDGE")
    assert (found.spec, found.matched, found.prompt_facts) == (TargetSpec(), 0, PromptFacts(2, 4, 16, 2, 8))
    assert registry.get_architecture("transformers", "olmo2").prompt_facts == PromptFacts(2, 4, 16, 2, 8)
    with pytest.raises(MethodDoesNotFit, match="PROMPT_TUNING cannot adapt transformers:bert: its facts are not known"):
        registry.lookup("bert", "PROMPT_TUNING")


def test_a_name_nobody_registered_is_no_question_of_the_method(registry):
    """And a method PEFT does not have is one."""
    with pytest.raises(NotRegistered, match="Nothing is registered for transformers:olmo2"):
        registry.lookup("olmo2", "LOHA")
    with pytest.raises(UnknownPeftType, match="Closest: 'LOKR'"):
        registry.lookup("llama", "LOKRR")


def test_an_architecture_with_nothing_to_adapt_says_why(registry):
    """As of a tokenizer that gives codes: it was scanned, and another scan would tell the same."""
    scan = make_scan(proposals=())
    registry.add_scan(replace(scan, slots=(replace(scan.slots[0], live=False, proof="its forward returns codes"),)))
    with pytest.raises(
        NotRegistered, match=r"none of its layers is proposed. Of most of them: its forward returns codes"
    ):
        registry.lookup("olmo2")
