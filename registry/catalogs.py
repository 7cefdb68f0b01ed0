"""Make the packaged catalog from scans, and list the files that seed a registry.

Imports no SQLAlchemy, since ``sqlite_lookup`` does without.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from hashlib import sha256
from importlib import metadata
from importlib.resources.abc import Traversable
from itertools import chain
from typing import TYPE_CHECKING, cast

from ..catalog.entries import (
    Catalog,
    CatalogEntry,
    CatalogHeader,
    list_catalogs,
    list_make_ups,
    list_older,
    older_lines,
    read_catalog,
)
from ..domain.architectures import split_make_up
from ..domain.scans import Scan
from ..domain.versions import parse_version
from ..errors import InvalidRequest
from .mappings.renames import find_renames
from .peft_constants.reading import SEED_VERSION, constants_file, entries_of_constants, load_constants
from .records import Entry
from .verification.verify import Verifier

if TYPE_CHECKING:
    from ..domain.vocabulary import Library

_TAIL = 1 << 16


def catalog_header(library: str) -> CatalogHeader:
    """Return the header of a catalog of an installed library: the versions it is made from."""
    return CatalogHeader(cast("Library", library), metadata.version(library), metadata.version("loradar"), SEED_VERSION)


def catalog_entry(scan: Scan) -> CatalogEntry:
    """Return a scan as a catalog entry, with verifications of its proposals and of PEFT's entries."""
    verifier = Verifier(scan)
    checks = tuple(verifier.verify(p.spec, p.peft_type, p.preset) for p in scan.proposals)
    stated = _peft_entries().get((scan.architecture.library, scan.architecture.name), ())
    return CatalogEntry(
        architecture=scan.architecture,
        method=scan.method,
        untraced=scan.untraced,
        proof=scan.proof,
        digest=scan.digest,
        prompt_facts=scan.prompt_facts,
        parts=scan.parts,
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
    """Yield the lines of the differences of an older version's catalog (``loradar.catalog.entries``).

    Raises:
        InvalidRequest: If the file is not a catalog, or its library has no catalog of a newer version.
    """
    older = read_catalog(file)
    catalogs = (read_catalog(packaged) for packaged in list_catalogs())
    base = next((one for one in catalogs if one.header.library == older.header.library), None)
    version = older.header.library_version
    if base is None or parse_version(version) >= parse_version(base.header.library_version):
        known = f"the catalog is of {base.header.library_version}" if base else "there is no catalog of that library"
        message = f"{file} is of {older.header.library} {version}, but {known}. Scan under an older version."
        raise InvalidRequest(message, file=str(file), library_version=version)
    return compare_versions(older, base)


def compare_versions(older: Catalog, newer: Catalog) -> Iterator[str]:
    """Yield the lines of the differences of an older version's catalog from a newer one's."""
    slots = {entry.architecture.name: entry.slots for entry in newer.entries}
    both = [entry for entry in older.entries if entry.architecture.name in slots]
    renames = {one.architecture.name: find_renames(one.slots, slots[one.architecture.name]) for one in both}
    return older_lines(older, newer, renames)


def seed_files() -> tuple[list[Traversable], list[Traversable]]:
    """Return the catalog files a registry is seeded from, and those on older library versions."""
    return list_catalogs(), list_older()


def read_catalogs(files: Iterable[Traversable]) -> list[Catalog]:
    """Read catalog files; the packaged make-ups of composite types that they have are added as further entries."""
    catalogs = [read_catalog(file) for file in files]
    made_up = [read_catalog(file) for file in list_make_ups()] if catalogs else []
    completed = []
    for catalog in catalogs:
        names = {entry.architecture.name for entry in catalog.entries}
        same = (entry for other in made_up if other.header.library == catalog.header.library for entry in other.entries)
        own = (entry for entry in same if split_make_up(entry.architecture.name)[0] in names)
        completed.append(replace(catalog, entries=(*catalog.entries, *own)))
    return completed


def seed_digest() -> str:
    """Return ``sha256:`` and the digest of the files a registry is seeded from.

    It is computed whenever a registry is opened. Of a scan's file only the header, the size and the last lines are
    read, which together change with any scan of a library.
    """
    digest = sha256(constants_file().read_bytes())
    for file in chain(*seed_files(), list_make_ups()):
        with file.open("rb") as content:
            digest.update(content.readline())
            size = content.seek(0, os.SEEK_END)
            content.seek(max(0, size - _TAIL))
            digest.update(f"{size}".encode() + content.read())
    return f"sha256:{digest.hexdigest()}"
