"""Keep one scan apart from the registry, as a small registry of its own that is packed into bytes.

What people scan is stored nowhere until it is reviewed. As a registry of its own it gives every lookup, selection and
size that a registered architecture has, by the same code.
"""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, text

from ...domain.architectures import StoredFacts
from ...domain.mappings import ArchitectureDetail
from ...domain.scans import Scan
from ...errors import InvalidRequest
from ...schema import from_json, to_json
from ..db import HEAD, tables
from ..db.database import Database
from ..db.schema_revision import VERSIONS
from ..registry import Registry

LENGTH_BYTES = 8
MOST_LISTED = 10_000
"""Layers up to which they are listed beside it, for a submission: about 600 KB."""

_IN_MEMORY = "sqlite://"


@dataclass(frozen=True)
class Scanned:
    """One scan, opened.

    Attributes:
        registry: A registry of it alone, in memory.
        library: Library of the architecture.
        name: Name of the architecture.
        stored: What was read of stored weights, if any were.
        layers: Its layers with their shapes, a line each; empty if there are too many.
        notes: What a reader has to know of the scan.
    """

    registry: Registry
    library: str
    name: str
    stored: StoredFacts | None
    layers: str
    notes: tuple[str, ...]

    @property
    def detail(self) -> ArchitectureDetail:
        """The architecture."""
        return self.registry.get_architecture(self.library, self.name)


def pack_scan(scan: Scan) -> bytes:
    """Return a registry of a scan alone, as bytes."""
    database = _create()
    registry = Registry(database)
    registry.add_scan(scan)
    is_listed = len(scan.layers) <= MOST_LISTED
    lines = (f"{layer.path} {'x'.join(map(str, layer.shape))}" for layer in scan.layers)
    about = {
        "library": scan.architecture.library,
        "name": scan.architecture.name,
        "stored": to_json(scan.stored) if scan.stored else None,
        "layers": "\n".join(lines) if is_listed else "",
        "notes": ["time ran out before every forward was tried"] if scan.is_cut_short else [],
    }
    head = json.dumps(about).encode()
    with database.engine.connect() as connection:
        content: bytes = _driver_of(connection).serialize()
    registry.close()
    return len(head).to_bytes(LENGTH_BYTES, "little") + head + content


def unpack_scan(packed: bytes) -> Scanned:
    """Return a scan from its bytes.

    Raises:
        InvalidRequest: If they are none of ``pack_scan``.
    """
    end = LENGTH_BYTES + int.from_bytes(packed[:LENGTH_BYTES], "little")
    try:
        about = json.loads(packed[LENGTH_BYTES:end])
        stored = from_json(StoredFacts, about["stored"]) if about["stored"] else None
        database = Database(_IN_MEMORY)
        with database.engine.connect() as connection:
            _driver_of(connection).deserialize(packed[end:])
        registry = Registry(database)
        return Scanned(registry, about["library"], about["name"], stored, about["layers"], tuple(about["notes"]))
    except (ValueError, KeyError) as error:
        raise InvalidRequest("This is no packed scan. Scan the model again.") from error


def _create() -> Database:
    database = Database(_IN_MEMORY)
    tables.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        # A write checks the revision of the schema, which is Alembic's table and none of ours.
        connection.execute(text(f"CREATE TABLE {VERSIONS.name} (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(insert(VERSIONS).values(version_num=HEAD))
        connection.execute(insert(tables.serial).values(id=1, value=0))
    return database


def _driver_of(connection: Any) -> Any:
    """Return the connection of the driver, which reads and writes a whole database as bytes."""
    return connection.connection.driver_connection
