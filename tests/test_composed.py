"""Composed answers against scans of the real make-up: the same layers of the same model."""

import pytest

from loradar.discovery import scan
from loradar.discovery.sources import make_config
from loradar.domain.targets import find_hits
from loradar.registry import Registry
from loradar.settings import Settings

MADE_UP = [
    ("blip-2", {"text": "t5"}, "text_config"),
    ("instructblip", {"text": "llama"}, "text_config"),
    ("llava", {"text": "mistral"}, "text_config"),
    ("vision-text-dual-encoder", {"text": "roberta"}, "text_config"),
]
KINDS = ("default", "attention", "all-linear")


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A registry of the scans that the cases need, without the catalog."""
    folder = tmp_path_factory.mktemp("composed")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("list_catalogs", "list_older"):
            patch.setattr(f"loradar.registry.catalogs.{name}", list)
        with Registry.open(Settings(folder, f"sqlite:///{folder / 'registry.sqlite3'}")) as opened:
            needed = {name for whole, parts, _ in MADE_UP for name in (whole, *parts.values())} | {
                "opt",
                "llama",
                "bert",
            }
            for name in sorted(needed):
                opened.add_scan(scan(name, method="names"))
            yield opened


@pytest.mark.parametrize(("whole", "parts", "field"), MADE_UP)
def test_a_composed_answer_matches_what_a_scan_of_the_make_up_proposes(registry, whole, parts, field):
    """Layer by layer; where PEFT's own entry decides for the part, its names among the layers of the part."""
    ((_, model_type),) = parts.items()
    found = scan(make_config(whole, {field: {"model_type": model_type}}), method="names")
    for preset in KINDS:
        composed = registry.lookup(whole, preset=preset, parts=parts)
        wanted = {layer.path for layer in find_hits(found.propose("LORA", preset).spec, found.layers)}
        assert {layer.path for layer in find_hits(composed.spec, found.layers)} == wanted, preset
        assert composed.matched == len(wanted)
