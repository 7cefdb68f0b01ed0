"""registry *looks up* what is known: mappings, their revisions, and how each fared per library version.

Others import from here and from no file below. Nothing in here imports torch. SQLAlchemy is imported only to
write, or to reach a database that is no SQLite file: a lookup has half a second, Python's start included.
"""

from .ask import lookup, verify
from .contributions.evidence import failure_of, weigh
from .contributions.idempotency import Key
from .db.urls import sqlite_file
from .peft_constants.export import Export, ExportOptions, ExportPlan, LeftOut
from .peft_constants.imported_tables import import_tables
from .peft_constants.patch import PEFT_PATH, Patch, apply_plan, export_constants
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
from .reads import mapping_place
from .registry import Registry
from .results import Constant, DatabaseInfo, Outcome, StoreReport, Verdict
from .seed.catalogs import catalog_entry, catalog_header, compare_catalog
from .verification.drift import DRIFT, Drift, Proposals, find_drifts, find_earlier, names_to_scan
from .verification.report import peft_report

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
    "weigh",
    "write_constants_json",
]
