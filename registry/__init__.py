"""Look up, list and contribute mappings, with their revisions and verifications per library version.

Other packages import from here and from no file below. Nothing in here imports torch. ``lookup`` imports no SQLAlchemy
for a registry in an SQLite file: it has half a second, Python's start included.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .catalogs import catalog_entry, catalog_header, compare_catalog
from .contributions.evidence import failure_of, gather_evidence
from .peft_constants.export import (
    PEFT_PATH,
    Export,
    ExportOptions,
    ExportPlan,
    LeftOut,
    Patch,
    apply_plan,
    export_constants,
)
from .peft_constants.imported_tables import import_tables
from .peft_constants.reading import (
    PeftConstants,
    installed_constants,
    load_constants,
    parse_constants,
    peft_mappings,
    read_constants,
    read_source,
    write_constants_json,
)
from .peft_constants.rendering import constants_python, support_rows
from .quick_lookup import lookup
from .records import Constant, DatabaseInfo, Outcome, StoreReport, Verdict
from .verification.audit import peft_report
from .verification.drift import DRIFT, Drift, Proposals, find_drifts, find_earlier, names_to_scan
from .verification.verify import verify

if TYPE_CHECKING:
    from .contributions.idempotency import Key
    from .contributions.local_backend import LocalBackend
    from .db.database import sqlite_file
    from .mappings.listing import mapping_place
    from .registry import Registry

_IMPORTING_SQLALCHEMY = {
    "Key": ".contributions.idempotency",
    "LocalBackend": ".contributions.local_backend",
    "Registry": ".registry",
    "mapping_place": ".mappings.listing",
    "sqlite_file": ".db.database",
}

__all__ = [
    "DRIFT",
    "PEFT_PATH",
    "Constant",
    "DatabaseInfo",
    "Drift",
    "Export",
    "ExportOptions",
    "ExportPlan",
    "Key",
    "LeftOut",
    "LocalBackend",
    "Outcome",
    "Patch",
    "PeftConstants",
    "Proposals",
    "Registry",
    "StoreReport",
    "Verdict",
    "apply_plan",
    "catalog_entry",
    "catalog_header",
    "compare_catalog",
    "constants_python",
    "export_constants",
    "failure_of",
    "find_drifts",
    "find_earlier",
    "gather_evidence",
    "import_tables",
    "installed_constants",
    "load_constants",
    "lookup",
    "mapping_place",
    "names_to_scan",
    "parse_constants",
    "peft_mappings",
    "peft_report",
    "read_constants",
    "read_source",
    "sqlite_file",
    "support_rows",
    "verify",
    "write_constants_json",
]


def __getattr__(name: str) -> Any:
    """Import a name whose module imports SQLAlchemy, on first use."""
    if name not in _IMPORTING_SQLALCHEMY:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_IMPORTING_SQLALCHEMY[name], __name__), name)
