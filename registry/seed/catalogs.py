"""A scan as an entry of the catalog: with a check of its proposals and of what PEFT says of the architecture."""

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, cast

from ...catalog.entries import CatalogEntry, CatalogHeader, list_catalogs, read_catalog
from ...catalog.older_versions import older_lines
from ...domain.scans import Scan
from ...domain.versions import parse_version
from ...errors import InvalidRequest
from ..mappings.entries import Entry
from ..peft_constants.reading import SEED_VERSION, entries_of_constants, load_constants
from ..verification.verify import Verifier
from ..versions.renames import find_renames

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


def compare_catalog(file: Traversable) -> Iterator[str]:
    """Yield the lines that tell what the catalog of an older version differs in (``loradar.catalog.older_versions``).

    Raises:
        InvalidRequest: If the file is no catalog, or not one of an older version of a library that has one.
    """
    older = read_catalog(file)
    bases = (read_catalog(one) for one in list_catalogs())
    base = next((one for one in bases if one.header.library == older.header.library), None)
    own = older.header.library_version
    if base is None or parse_version(own) >= parse_version(base.header.library_version):
        known = f"the catalog is of {base.header.library_version}" if base else "there is no catalog of that library"
        message = f"{file} is of {older.header.library} {own}, but {known}. Scan under an older version."
        raise InvalidRequest(message, file=str(file), library_version=own)
    slots = {entry.architecture.name: entry.slots for entry in base.entries}
    both = [entry for entry in older.entries if entry.architecture.name in slots]
    renames = {one.architecture.name: find_renames(one.slots, slots[one.architecture.name]) for one in both}
    return older_lines(older, base, renames)
