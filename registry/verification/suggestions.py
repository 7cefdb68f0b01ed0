"""What to put in the place of a mapping that is wrong: the scan's own proposal for the same question."""

from collections.abc import Iterable
from functools import cache

from ...domain.mappings import Mapping
from ...domain.scans import Scan
from ...domain.targets import TargetSpec
from ..peft_constants.facts_file import load_constants, peft_type_of

CONVENTION = "LORA"

Suggestions = dict[tuple[str, str, str], TargetSpec]
"""Target specs by architecture, PEFT type and preset."""


def suggestions_on_record(proposed: Iterable[Mapping]) -> Suggestions:
    """Return the scanner's stored mappings of a library as suggestions."""
    return {(mapping.name, mapping.peft_type, mapping.preset): mapping.spec for mapping in proposed}


def suggestions_of(scan: Scan) -> Suggestions:
    """Return the proposals of a scan as suggestions."""
    return {(scan.architecture.name, p.peft_type, p.preset): p.spec for p in scan.proposals}


def find_suggestion(mapping: Mapping, known: Suggestions) -> TargetSpec | None:
    """Return the proposal for what a mapping answers, or the one for LoRA if the method shares LoRA's targets."""
    own = known.get((mapping.name, mapping.peft_type, mapping.preset))
    if own or mapping.peft_type not in _sharing():
        return own
    return known.get((mapping.name, CONVENTION, mapping.preset))


@cache
def _sharing() -> frozenset[str]:
    """Return the PEFT types whose table is a copy of LoRA's for most architectures they have in common."""
    tables = {peft_type_of(name): table for name, table in load_constants().tables.items()}
    convention = tables[CONVENTION]
    agreeing = {
        peft_type: [targets == convention[name] for name, targets in table.items() if name in convention]
        for peft_type, table in tables.items()
        if peft_type
    }
    return frozenset(peft_type for peft_type, same in agreeing.items() if 2 * sum(same) > len(same))
