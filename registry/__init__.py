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
from ..domain.vocabulary import PRESETS
from ..references import describe
from ..settings import Settings
from .catalogs import seed_digest
from .db import shipped
from .db.encoding import MappingKey
from .db.watch import State, StateWatch
from .recent_lookups import RecentLookups
from .references import find_understood
from .sqlite_lookup import SqliteLookup

if TYPE_CHECKING:
    from ..domain.reports.audits import Verdict
    from .answers.static_writing import write_static
    from .catalogs import catalog_entry, catalog_header, compare_catalog, compare_versions
    from .checking import check, check_text
    from .contributions.evidence import failure_of, gather_evidence
    from .contributions.local_backend import Key, LocalBackend
    from .crawls import Crawls
    from .db.backups import back_up, restore
    from .db.database import sqlite_file
    from .db.database_check import check_database
    from .db.time_limits import SERVICE_LIMITS
    from .explained import explain, explain_registered
    from .mappings.listing import mapping_place
    from .peft_constants.constants_text import constants_python, support_rows
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
    from .records import Constant, DatabaseInfo, Outcome, StoreReport
    from .registry import Registry
    from .releases import Release
    from .reports.recorded_audit import AuditFilter, report_audit
    from .reports.scanned import Scanned, pack_scan, unpack_scan
    from .reports.slot_pairs import Wanted, put_side_by_side
    from .snippet_lookup import snippet
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

_HOMES = {
    "AuditFilter": ".reports.recorded_audit",
    "Constant": ".records",
    "Crawls": ".crawls",
    "DRIFT": ".verification.drift",
    "DatabaseInfo": ".records",
    "Drift": ".verification.drift",
    "Export": ".peft_constants.export",
    "ExportOptions": ".peft_constants.export",
    "ExportPlan": ".peft_constants.export",
    "Key": ".contributions.local_backend",
    "LeftOut": ".peft_constants.export",
    "LocalBackend": ".contributions.local_backend",
    "Outcome": ".records",
    "PEFT_PATH": ".peft_constants.export",
    "Patch": ".peft_constants.export",
    "PeftConstants": ".peft_constants.reading",
    "Proposals": ".verification.drift",
    "Registry": ".registry",
    "Release": ".releases",
    "Renewal": ".verification.drift",
    "SERVICE_LIMITS": ".db.time_limits",
    "Scanned": ".reports.scanned",
    "StoreReport": ".records",
    "Verdict": "..domain.reports.audits",
    "Wanted": ".reports.slot_pairs",
    "apply_plan": ".peft_constants.export",
    "back_up": ".db.backups",
    "catalog_entry": ".catalogs",
    "catalog_header": ".catalogs",
    "check": ".checking",
    "check_database": ".db.database_check",
    "check_text": ".checking",
    "compare_catalog": ".catalogs",
    "compare_versions": ".catalogs",
    "constants_python": ".peft_constants.constants_text",
    "explain": ".explained",
    "explain_registered": ".explained",
    "export_constants": ".peft_constants.export",
    "failure_of": ".contributions.evidence",
    "find_drifts": ".verification.drift",
    "find_earlier": ".verification.drift",
    "find_renewals": ".verification.drift",
    "gather_evidence": ".contributions.evidence",
    "import_tables": ".peft_constants.imported_tables",
    "installed_constants": ".peft_constants.reading",
    "load_constants": ".peft_constants.reading",
    "mapping_place": ".mappings.listing",
    "names_to_scan": ".verification.drift",
    "pack_scan": ".reports.scanned",
    "parse_constants": ".peft_constants.reading",
    "peft_mappings": ".peft_constants.reading",
    "peft_report": ".verification.audit",
    "put_side_by_side": ".reports.slot_pairs",
    "read_constants": ".peft_constants.reading",
    "read_source": ".peft_constants.reading",
    "report_audit": ".reports.recorded_audit",
    "restore": ".db.backups",
    "snippet": ".snippet_lookup",
    "sqlite_file": ".db.database",
    "support_rows": ".peft_constants.constants_text",
    "unpack_scan": ".reports.scanned",
    "verify": ".verification.verify",
    "write_constants_json": ".peft_constants.reading",
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
    """Import a name on first use: a lookup needs none of them, and many import SQLAlchemy."""
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_HOMES[name], __name__), name)
