"""registry *looks up* what is known: mappings, their revisions, and how each fared per library version.

Others import from here and from no file below. Nothing in here imports torch. SQLAlchemy is imported only to
write, or to reach a database that is no SQLite file: a lookup has half a second, Python's start included.
"""

from .ask import lookup, verify
from .catalog import catalog_entry, catalog_header
from .constants import PeftConstants, read_constants
from .constants_json import load_constants, write_constants_json
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
    "Constant",
    "DatabaseInfo",
    "Drift",
    "Key",
    "Outcome",
    "PeftConstants",
    "Proposals",
    "Registry",
    "StoreReport",
    "Verdict",
    "catalog_entry",
    "catalog_header",
    "compare_catalog",
    "failure_of",
    "find_drifts",
    "find_earlier",
    "load_constants",
    "lookup",
    "mapping_place",
    "names_to_scan",
    "peft_mappings",
    "peft_report",
    "read_constants",
    "verify",
    "weigh",
    "write_constants_json",
]
