"""Write docs/evidence/peft-agreement.md: the scanner's defaults beside PEFT's tables, with reasons for the differences.

    python docs/scripts/agreement.py

The scanner never reads PEFT's tables; this script compares both layer by layer. A rule of data/agreement.toml explains
a kind of difference, never a single architecture.
"""

import tomllib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from loradar.discovery import quiet_libraries, scan_named
from loradar.domain.layers import Layer
from loradar.domain.methods import get_method
from loradar.domain.scans import Scan
from loradar.domain.targets import TargetSpec, find_hits
from loradar.errors import LoradarError, MethodDoesNotFit
from loradar.registry import load_constants, peft_mappings

FAMILIES = ("LORA", "IA3", "LN_TUNING", "OSF")
OUT = Path(__file__).parent.parent / "evidence/peft-agreement.md"


@dataclass(frozen=True, slots=True)
class Comparison:
    """An entry of PEFT and the scan's proposal: the layers that only one of them adapts, and the proposal's towers."""

    name: str
    peft_type: str
    theirs: frozenset[Layer]
    ours: frozenset[Layer]
    towers: frozenset[str]


def compare_all() -> Iterator[Comparison | str]:
    """Yield a comparison for each of PEFT's entries, or its label if its architecture is unknown."""
    for name, peft_type, spec in peft_mappings(load_constants()):
        if peft_type in FAMILIES:
            found = scan_once(name)
            yield compare(found, name, peft_type, spec) if found else f"`{name}` ({peft_type})"


@cache
def scan_once(name: str) -> Scan | None:
    """Return the scan of an architecture, or ``None`` if transformers has none of this name."""
    try:
        return scan_named("transformers", name)
    except LoradarError:
        return None


def compare(found: Scan, name: str, peft_type: str, spec: TargetSpec) -> Comparison:
    """Compare the layers that PEFT's spec matches with those of the scan's proposal."""
    theirs = frozenset(find_hits(spec, found.layers))
    try:
        ours = frozenset(find_hits(found.propose(peft_type).spec, found.layers))
    except MethodDoesNotFit:
        ours = frozenset()
    towers = frozenset(layer.tower for layer in find_hits(found.propose().spec, found.layers))
    return Comparison(name, peft_type, theirs - ours, ours - theirs, towers)


def explain(comparison: Comparison) -> tuple[list[str], list[Layer]]:
    """Return the explanations of a comparison, and the layers without one."""
    lines: dict[str, list[Layer]] = {}
    unexplained = []
    for only, layers in (("peft", comparison.theirs), ("scan", comparison.ours)):
        for layer in sorted(layers, key=lambda layer: layer.path):
            rule = next((rule for rule in rules() if applies(rule, layer, only, comparison)), None)
            if rule is None:
                unexplained.append(layer)
            else:
                lines.setdefault(rule["says"], []).append(layer)
    return [says.format(roles=_roles(found), towers=_towers(found)) for says, found in lines.items()], unexplained


def applies(rule: dict[str, Any], layer: Layer, only: str, comparison: Comparison) -> bool:
    """Return whether a rule applies to a layer that only one side adapts."""
    if rule["only"] != only or comparison.peft_type not in rule.get("in", FAMILIES):
        return False
    if rule.get("other_tower"):
        return layer.tower not in comparison.towers
    if rule.get("kind"):
        return comparison.peft_type == "OSF" and not get_method("OSF").fits(layer.kind)
    return layer.role in rule["roles"]


@cache
def rules() -> list[dict[str, Any]]:
    """Return the rules in their order of precedence."""
    text = (resources.files("loradar.data") / "agreement.toml").read_text("utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text)["difference"]
    return found


def _roles(layers: list[Layer]) -> str:
    return ", ".join(sorted({f"`{layer.role}`" for layer in layers}))


def _towers(layers: list[Layer]) -> str:
    return " and ".join(sorted({layer.tower for layer in layers}))


def render() -> str:
    """Return the page."""
    found = [*compare_all()]
    compared = [item for item in found if isinstance(item, Comparison)]
    absent = [item for item in found if isinstance(item, str)]
    of = Counter(item.peft_type for item in compared)
    agreeing = Counter(item.peft_type for item in compared if not item.theirs and not item.ours)
    table = [f"| {family} | {of[family]} | {agreeing[family]} |" for family in FAMILIES]
    rows = [
        f"| `{item.name}` | {item.peft_type} | {'; '.join(explain(item)[0])} |"
        for item in sorted(compared, key=lambda item: (FAMILIES.index(item.peft_type), item.name))
        if item.theirs or item.ours
    ]
    head = HEAD.format(version=metadata.version("transformers"))
    return head + "\n".join(table) + MIDDLE + "\n".join(rows) + END.format(absent=", ".join(absent))


HEAD = """# Agreement with PEFT's tables
Written by `docs/scripts/agreement.py`; do not edit. Each entry of PEFT 0.21.2's tables for LORA, IA3, LN_TUNING and OSF
is compared layer by layer with the default that the scanner proposes for the same architecture of transformers
{version}. The scanner never reads those tables.

| family | entries compared | the same layers |
| --- | --- | --- |
"""
MIDDLE = """

## Every difference
Each line follows from a rule of `data/agreement.toml` about roles, towers and kinds of layers, none about one name.

| architecture | family | why |
| --- | --- | --- |
"""
END = """

Not compared, because transformers has no such model type: {absent}.
"""


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    quiet_libraries()
    OUT.write_text(render(), "utf-8")
