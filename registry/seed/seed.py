"""The facts a registry starts with, and is brought up to by a newer loradar: scans of libraries and PEFT's tables."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.version import Version
from sqlalchemy import insert, select

from ...catalog.entries import Catalog, read_catalog
from ...catalog.older_versions import read_older
from ...domain.mappings import Mapping
from ..db import tables
from ..db.transaction import Write
from ..peft_constants.facts_file import load_constants
from ..peft_constants.reading import PeftConstants
from ..store import add_constants
from .seed_files import seed_catalogs, seed_digest, seed_older
from .seed_scans import put_scans
from .verifications import put_checks

if TYPE_CHECKING:
    from sqlalchemy import Connection


def add_seed(connection: "Connection") -> None:
    """Bring a migrated registry up to what this loradar brings along; what users stored is kept.

    If a newer loradar seeded it already, nothing is loaded: two versions on one registry must not undo each other.
    """
    ours = metadata.version("loradar")
    with Write(connection, "loradar", "seed") as write:
        write.tell(loradar=ours, digest=seed_digest())
        seeds = write.select(select(tables.seeds.c.loradar, tables.seeds.c.digest))
        if any(seed["digest"] == seed_digest() for seed in seeds):
            return
        if all(Version(ours) >= Version(seed["loradar"]) for seed in seeds):
            with _uncollected():
                _load(write)
        write.change(insert(tables.seeds).values(digest=seed_digest(), loradar=ours, serial=write.serial))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause the search for reference cycles: over as many records as a seed has it takes a second, and finds none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _load(write: Write) -> None:
    constants = load_constants()
    catalogs = [read_catalog(file) for file in seed_catalogs()]
    older = [found for file in seed_older() if (found := read_older(file, catalogs))]
    for catalog in catalogs:
        put_scans(write, catalog, [one for one in older if one.catalog.header.library == catalog.header.library])
    if not _knows_newer_peft(write, constants):
        report = add_constants(write, constants)
        for catalog in (*catalogs, *(one.catalog for one in older)):
            if catalog.header.peft == constants.version:
                _put_peft_checks(write, (*report.added, *report.unchanged), catalog)


def _knows_newer_peft(write: Write, constants: PeftConstants) -> bool:
    """Tell whether somebody imported the tables of a newer PEFT: ours would be a step back."""
    table = tables.sources.c
    known = write.select(select(table.version).where(table.kind == "peft"))
    return any(Version(row["version"]) > Version(constants.version) for row in known)


def _put_peft_checks(write: Write, stated: Iterable[Mapping], catalog: Catalog) -> None:
    """Store how PEFT's entries fared on the architectures scanned."""
    outcomes = {
        (entry.architecture.library, entry.architecture.name, peft_type): check
        for entry in catalog.entries
        for peft_type, check in entry.peft
    }
    keyed = ((mapping, outcomes.get((mapping.library, mapping.name, mapping.peft_type))) for mapping in stated)
    put_checks(write, [(mapping, check) for mapping, check in keyed if check])
