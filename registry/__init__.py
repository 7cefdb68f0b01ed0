"""Look up, list and contribute mappings, with their revisions and verifications per library version.

Other packages import from here and from no file below. Nothing in here imports torch. ``lookup`` imports no SQLAlchemy
for a registry in an SQLite file: it has half a second, Python's start included.
"""

import os
import re
from collections.abc import Mapping as Values
from contextlib import closing
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..domain.mappings import Mapping
from ..domain.methods import choose_preset
from ..domain.reports.audits import Verdict
from ..domain.vocabulary import PRESETS
from ..references import describe
from ..settings import Settings
from .catalogs import catalog_entry, catalog_header, compare_catalog, compare_versions, seed_digest
from .contributions.evidence import failure_of, gather_evidence
from .db import shipped
from .db.encoding import MappingKey
from .db.watch import State, StateWatch
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
from .recent_lookups import RecentLookups
from .records import Constant, DatabaseInfo, Outcome, StoreReport
from .references import find_understood
from .releases import Release
from .reports.recorded_audit import AuditFilter, report_audit
from .sqlite_lookup import SqliteLookup
from .verification.audit import peft_report
from .verification.drift import (
    DRIFT,
    Drift,
    Proposals,
    Renewal,
    find_drifts,
    find_earlier,
    find_renewals,
    names_to_scan,
)
from .verification.verify import verify

if TYPE_CHECKING:
    from .answers.static_writing import write_static
    from .checking import check, check_text
    from .contributions.local_backend import Key, LocalBackend
    from .crawls import Crawls
    from .db.backups import back_up, restore
    from .db.checks import check_database
    from .db.database import sqlite_file
    from .db.time_limits import SERVICE_LIMITS
    from .explained import explain, explain_registered
    from .mappings.listing import mapping_place
    from .registry import Registry
    from .reports.scanned import Scanned, pack_scan, unpack_scan
    from .reports.side_by_side import Wanted, put_side_by_side
    from .snippet_lookup import snippet

_IMPORTING_SQLALCHEMY = {
    "back_up": ".db.backups",
    "check_database": ".db.checks",
    "restore": ".db.backups",
    "Key": ".contributions.local_backend",
    "Crawls": ".crawls",
    "LocalBackend": ".contributions.local_backend",
    "Registry": ".registry",
    "SERVICE_LIMITS": ".db.time_limits",
    "explain": ".explained",
    "explain_registered": ".explained",
    "Scanned": ".reports.scanned",
    "Wanted": ".reports.side_by_side",
    "pack_scan": ".reports.scanned",
    "unpack_scan": ".reports.scanned",
    "put_side_by_side": ".reports.side_by_side",
    "snippet": ".snippet_lookup",
    "check": ".checking",
    "check_text": ".checking",
    "mapping_place": ".mappings.listing",
    "sqlite_file": ".db.database",
    "write_static": ".answers.static_writing",
}

__all__ = [
    "DRIFT",
    "PEFT_PATH",
    "SERVICE_LIMITS",
    "AuditFilter",
    "Constant",
    "Crawls",
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
    "Release",
    "Renewal",
    "Scanned",
    "State",
    "StateWatch",
    "StoreReport",
    "Verdict",
    "Wanted",
    "apply_plan",
    "back_up",
    "catalog_entry",
    "catalog_header",
    "check",
    "check_database",
    "check_text",
    "compare_catalog",
    "compare_versions",
    "constants_python",
    "explain",
    "explain_registered",
    "export_constants",
    "failure_of",
    "find_drifts",
    "find_earlier",
    "find_renewals",
    "gather_evidence",
    "import_tables",
    "installed_constants",
    "load_constants",
    "lookup",
    "mapping_place",
    "names_to_scan",
    "pack_scan",
    "parse_constants",
    "peft_mappings",
    "peft_report",
    "put_side_by_side",
    "read_constants",
    "read_source",
    "report_audit",
    "restore",
    "snippet",
    "sqlite_file",
    "support_rows",
    "unpack_scan",
    "verify",
    "write_constants_json",
    "write_static",
]

_FILE_URL = re.compile(r"sqlite(?:\+pysqlite)?:///(?!:memory:|file:)([^?%]+)")
"""URLs of plain SQLite files; SQLAlchemy parses all others."""


def lookup(  # noqa: PLR0913, PLR0917 - what identifies a mapping
    name: str,
    peft_type: str = "LORA",
    preset: str | None = None,
    library: str | None = None,
    library_version: str | None = None,
    parts: Values[str, str] | None = None,
    **choice: Any,
) -> Mapping:
    """Look up a mapping on this machine, as ``loradar.lookup`` does without a service."""
    if name.startswith(("file:", ".", "~")) or "/" in name:
        from ..references.local import find_configuration  # noqa: PLC0415 - reads files

        local = find_configuration(name)
        if local:
            found = lookup(local.reference, peft_type, preset, library, library_version, parts, **choice)
            return replace(found, understood=describe(name, local, ()))
    settings, preset = Settings.from_environment(), choose_preset(preset, peft_type)
    file = _FILE_URL.fullmatch(settings.database_url)
    path = file and os.path.abspath(file[1])  # noqa: PTH100 - a Path takes as long as all the rest
    query = repr((name, peft_type, preset, library, library_version, parts, choice))
    recent = _recent_lookups(path) if path else None
    mapping = recent.find(query) if recent else None
    if mapping is None and path and preset in PRESETS and not parts and not choice:
        mapping = _look_up_fast(Path(path), name, (peft_type.upper(), preset), library, library_version)
    if mapping is None:
        from .registry import Registry  # noqa: PLC0415 - SQLAlchemy, 0.3 s

        with Registry.open(settings) as registry:
            mapping = registry.lookup(name, peft_type, preset, library, library_version, parts, **choice)
    if recent:
        recent.keep(query, mapping)
    return mapping


@cache
def _recent_lookups(file: str) -> RecentLookups:
    """Return the recent lookups of this process in a registry file."""
    return RecentLookups(file)


def _look_up_fast(
    file: Path, name: str, method: tuple[str, str], library: str | None, library_version: str | None
) -> Mapping | None:
    """Return the mapping of a registry in an SQLite file; ``None`` if the standard library's queries are not enough."""
    packaged = None if file.exists() else shipped.find_shipped(seed_digest())
    with closing(SqliteLookup(packaged or file, is_shipped=packaged is not None)) as fast:

        def find(library: str, name: str) -> Mapping | None:
            return fast.find(MappingKey(library, name, *method), library_version)

        return find_understood(name, library, find, fast.list_references) if fast.is_ready() else None


def __getattr__(name: str) -> Any:
    """Import a name whose module imports SQLAlchemy, on first use."""
    if name not in _IMPORTING_SQLALCHEMY:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_IMPORTING_SQLALCHEMY[name], __name__), name)
