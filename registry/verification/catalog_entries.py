"""A scan as an entry of the catalog: with a check of its proposals and of what PEFT says of the architecture."""

from collections import defaultdict
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, cast

from ...catalog.entries import CatalogEntry, CatalogHeader
from ...domain.scans import Scan
from ..mappings.entries import Entry, entries_of_constants
from ..peft_constants.facts_file import SEED_VERSION, load_constants
from .verify import Verifier

if TYPE_CHECKING:
    from ...domain.vocabulary import Library


def catalog_header(library: str) -> CatalogHeader:
    """Return what a catalog of an installed library is made from."""
    return CatalogHeader(cast("Library", library), metadata.version(library), metadata.version("loradar"), SEED_VERSION)


def catalog_entry(scan: Scan) -> CatalogEntry:
    """Return what the registry would store of a scan."""
    verifier = Verifier(scan)
    checks = tuple(verifier.verify(p.spec, p.peft_type, p.preset) for p in scan.proposals)
    stated = _peft_entries().get((scan.architecture.library, scan.architecture.name), ())
    return CatalogEntry(
        architecture=scan.architecture,
        method=scan.method,
        untraced=scan.untraced,
        proof=scan.proof,
        prompt_facts=scan.prompt_facts,
        towers=scan.towers,
        slots=scan.slots,
        proposals=scan.proposals,
        checks=checks,
        peft=tuple((entry.peft_type, verifier.verify(entry.spec, entry.peft_type)) for entry in stated),
    )


@cache
def _peft_entries() -> dict[tuple[str, str], list[Entry]]:
    """Return PEFT's entries by library and name."""
    entries: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries_of_constants(load_constants()):
        entries[entry.library, entry.name].append(entry)
    return entries
