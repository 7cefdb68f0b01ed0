"""Every answer that the packaged catalog gives has size, coverage, reasons and verification, or says why it cannot."""

import pytest

from loradar.domain.methods import UNTARGETED, get_family, list_methods
from loradar.errors import LoradarError
from loradar.registry import Registry
from loradar.settings import Settings

SIZED = ("LORA", "IA3", "LN_TUNING", "OSF", "BEFT")
"""The methods that scans propose layers for: the others share theirs."""
UNCLASSED = {"RefinedWeb", "RefinedWebModel", "btlm", "chatglm", "rwkv7"}
"""Types of PEFT's tables that no release of transformers has a class for, so that none can be scanned."""
UNSIZED = {("gpt2", "OSF")}
"""Entries of PEFT for layers of a kind that the method does not adapt."""
EVERY = 400
"""One architecture of so many is asked for every method of PEFT."""


@pytest.fixture(scope="module")
def known(seeded):
    """The registry of the packaged catalog, which everybody reads."""
    with Registry.open(Settings(seeded.parent, f"sqlite:///{seeded}")) as opened:
        yield opened


def answers(known, library, methods, names):
    """Yield each answer of a lookup for some architectures."""
    for name in names:
        for method in methods:
            for preset in get_family(method.family).presets or ("default",):
                try:
                    found = known.find(name, method.name, preset, library)
                except LoradarError:
                    continue
                if found is not None:
                    yield found


def gaps_of(answer):
    """Return the parts that an answer lacks without saying so."""
    every = answer.formula, answer.coverage, answer.verification
    words = "size", "coverage", "verification"
    said = [reason.partition(":")[0] for reason in answer.reasons if reason.startswith("no ")]
    lacking = [word for word, part in zip(words, every, strict=True) if not part]
    return [word for word in lacking if not any(word in reason for reason in said)] + ["reasons"] * (not answer.reasons)


@pytest.mark.parametrize("library", ["transformers", "diffusers", "timm"])
def test_every_stored_answer_is_complete_or_says_why_not(known, library):
    """Of each architecture, for each method with layers of its own and each preset; what is lacking is listed here."""
    summaries = known.list_architectures(library)
    methods = [method for method in list_methods() if method.name in SIZED]
    count = 0
    for answer in answers(known, library, methods, [each.architecture.name for each in summaries]):
        count += 1
        assert not gaps_of(answer), (answer.name, answer.peft_type, answer.preset)
        unsized = answer.name in UNCLASSED or (answer.name, answer.peft_type) in UNSIZED
        assert bool(answer.formula) is not unsized, (answer.name, answer.peft_type)
        assert bool(answer.verification) is (answer.name not in UNCLASSED), (answer.name, answer.peft_type)
        blocks = {each.block.partition(" ")[0] for each in answer.coverage}
        assert bool(blocks) is not any(reason.startswith("no ") and "coverage" in reason for reason in answer.reasons)
    assert count > 2 * len(summaries)


def test_every_method_of_peft_has_complete_answers(known):
    """For PEFT's own entries and for some of the catalog; methods that share layers say whose."""
    for library in ("transformers", "diffusers", "timm"):
        summaries = known.list_architectures(library)
        names = [x.architecture.name for n, x in enumerate(summaries) if "peft" in x.sources or n % EVERY == 0]
        methods = [method for method in list_methods() if method.name not in SIZED]
        for answer in answers(known, library, methods, names):
            assert not gaps_of(answer), (answer.name, answer.peft_type, answer.preset)


def test_what_a_method_cannot_adapt_is_left_out_of_its_evidence(known):
    """A mixture of experts: most methods of LoRA's family leave the fused experts out."""
    whole, part = (known.lookup("mixtral", method, "all-linear") for method in ("LORA", "VERA"))
    assert whole.verification.status == "live"
    assert (whole.matched, part.matched) == (192, 128)
    assert part.coverage == whole.coverage
    assert "left out: what VERA cannot adapt; with it, the targets are live on 5.24.0" in part.reasons
    assert "no verification: none is on record for these targets" in part.reasons
    hira = known.lookup("mixtral", "HIRA", "all-linear")
    assert hira.formula == known.lookup("mixtral", "LORA", "attention").formula


def test_methods_without_layers_say_so(known):
    """Their facts are the reasons."""
    for method in (method for method in list_methods() if method.family in UNTARGETED):
        try:
            answer = known.lookup("llama", method.name)
        except LoradarError:
            continue
        assert answer.reasons[-1] == "no size, coverage or verification: it names no layers"
