"""registry *looks up* what is known: mappings, their revisions, and how each fared per library version.

Others import from here and from no file below. Nothing in here imports torch. SQLAlchemy is imported only to
write, or to reach a database that is no SQLite file: a lookup has half a second, Python's start included.
"""

from .ask import lookup, verify
from .catalog import catalog_entry, catalog_header
from .constants import PeftConstants, installed_constants, parse_constants, read_constants, read_source
from .constants_apply import PEFT_PATH, Patch, apply_plan, export_constants
from .constants_beside import import_beside
from .constants_export import Export, ExportPlan, LeftOut, Wish
from .constants_json import load_constants, write_constants_json
from .constants_python import constants_python
from .constants_readme import support_rows
from .drift import DRIFT, Drift, Proposals, find_drifts, find_earlier, names_to_scan
from .entries import peft_mappings
from .evidence import failure_of, weigh
from .idempotency import Key
from .older import compare_catalog
from .reads import mapping_place
from .records import Constant, DatabaseInfo, Outcome, StoreReport, Verdict
from .registry import Registry
from .report import peft_report

__all__ = [
    "DRIFT",
    "PEFT_PATH",
    "Constant",
    "DatabaseInfo",
    "Drift",
    "Export",
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
    "Wish",
    "apply_plan",
    "catalog_entry",
    "catalog_header",
    "compare_catalog",
    "constants_python",
    "export_constants",
    "failure_of",
    "find_drifts",
    "find_earlier",
    "import_beside",
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
    "support_rows",
    "verify",
    "weigh",
    "write_constants_json",
]
