"""The packaged catalogs, read once for all modules of tests that need them."""

from functools import cache

from loradar.catalog.entries import Catalog, list_catalogs, read_catalog


@cache
def packaged_catalogs() -> tuple[Catalog, ...]:
    """Return the packaged catalogs, sorted by name of the library; nobody changes them."""
    return tuple(map(read_catalog, list_catalogs()))
