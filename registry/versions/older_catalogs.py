"""The catalog of an older version of a library, compared with the one that comes with loradar."""

from collections.abc import Iterator
from importlib.resources.abc import Traversable

from ...catalog.entries import list_catalogs, read_catalog
from ...catalog.older_versions import older_lines
from ...domain.versions import parse_version
from ...errors import InvalidRequest
from .renames import find_renames


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
