"""A sample of every library, scanned again: the catalog says what this scanner says of this library."""

import json
import re
from importlib import metadata

import pytest
from packaged import packaged_catalogs

from loradar.catalog.entries import CatalogEntry
from loradar.discovery import How, scan_named
from loradar.errors import LoradarError
from loradar.registry import catalog_entry
from loradar.schema import to_json

STEPS = {"transformers": 107, "timm": 274, "diffusers": 37}
"""Every how manieth architecture is scanned again; about 15 in all."""

WAY_OUT = "If the scanner or the library has changed, `make catalog` renews the catalog."
CATALOGS = packaged_catalogs()
SAMPLE = [
    entry
    for catalog in CATALOGS
    for entry in catalog.entries[:: STEPS[catalog.header.library]]
    if all(check.status == "live" for check in entry.checks)
    if not re.search("OutOfTime|time was up|allocate|primitive", json.dumps(to_json(entry)))
]
"""What is not wholly proved is left out: what it says depends on the time and the memory that a machine has for it."""


def differences(kept, found, where=""):
    """Yield each field in which two JSON values differ, with both."""
    if isinstance(kept, dict) and isinstance(found, dict):
        for name in sorted({*kept, *found}):
            yield from differences(kept.get(name), found.get(name), f"{where}.{name}" if where else name)
    elif isinstance(kept, list) and isinstance(found, list) and len(kept) == len(found):
        for number, (one, other) in enumerate(zip(kept, found, strict=True)):
            yield from differences(one, other, f"{where}[{number}]")
    elif kept != found:
        yield f"{where}: the catalog has {shortened(kept)}, the scan {shortened(found)}"


def shortened(value):
    """Return a value as text that fits into a message."""
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "..."


def rescan(entry):
    """Return the JSON form of the entry a new scan would make, with a proof if there was one."""
    seen = entry.architecture
    try:
        return to_json(catalog_entry(scan_named(seen.library, seen.name, How(proved=entry.proof is not None))))
    except LoradarError as error:
        return to_json(CatalogEntry(seen, unscanned=error.message))


@pytest.mark.parametrize("catalog", CATALOGS, ids=lambda catalog: catalog.header.library)
def test_the_catalog_is_of_the_installed_library(catalog):
    """A catalog of another version cannot be compared."""
    versions = (catalog.header.library_version, metadata.version(catalog.header.library))
    assert versions[0] == versions[1], WAY_OUT


def without_sizes(data):
    """Return an entry as JSON without the sizes of differences, which processors round otherwise.

    The catalog has PEFT's entries in the order of their outcomes.
    """
    data = {**data, "peft": sorted(data["peft"], key=lambda one: one[0])}
    return json.loads(re.sub(r"(merging changes the outputs by) [\w.+-]+", r"\1 so much", json.dumps(data)))


@pytest.mark.parametrize("entry", SAMPLE, ids=lambda entry: entry.architecture.reference)
def test_a_scan_says_what_the_catalog_says(entry):
    """Roles, towers, slots, proposals, reasons and what PEFT's entries hit."""
    kept, found = to_json(entry), rescan(entry)
    different = list(differences(without_sizes(kept), without_sizes(found)))
    assert not different, "\n".join([f"{entry.architecture.reference} differs.", *different[:20], WAY_OUT])
