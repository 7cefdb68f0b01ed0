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
from .entries import peft_mappings
from .older import compare_catalog
from .records import Constant, DatabaseInfo, Outcome, StoreReport, Verdict
from .registry import Registry
from .report import peft_report

__all__ = [
    "PEFT_PATH",
    "Constant",
    "DatabaseInfo",
    "Export",
    "ExportPlan",
    "LeftOut",
    "Outcome",
    "Patch",
    "PeftConstants",
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
    "import_beside",
    "installed_constants",
    "load_constants",
    "lookup",
    "parse_constants",
    "peft_mappings",
    "peft_report",
    "read_constants",
    "read_source",
    "support_rows",
    "verify",
    "write_constants_json",
]
