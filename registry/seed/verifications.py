"""The checks of a seed: many verifications at once."""

from collections.abc import Sequence

from sqlalchemy import bindparam, insert, select, update

from ...domain.mappings import Mapping, Verification
from ..db import tables
from ..db.transaction import Write
from ..mappings.resolve import to_verification
from ..store import settle, verification_row


def put_checks(write: Write, checked: Sequence[tuple[Mapping, Verification]]) -> None:
    """Store how mappings fared, all at the same library version, unless that is what is on record."""
    if not checked:
        return
    known = _known(write, checked[0][1].library_version)
    new, changed = [], []
    for mapping, check in checked:
        prior = known.get(mapping.id)
        row = {**verification_row(write, settle(prior, check)), "mapping_id": mapping.id}
        if prior is None:
            new.append(row)
        elif settle(prior, check) != prior:
            changed.append({**row, "at_mapping": mapping.id, "at_version": check.library_version})
    table = tables.verifications
    is_it = (table.c.mapping_id == bindparam("at_mapping")) & (table.c.library_version == bindparam("at_version"))
    write.change(insert(table), new)
    write.change(update(table).where(is_it), changed)


def _known(write: Write, library_version: str) -> dict[str, Verification]:
    """Return every verification for a library version by the id of its mapping."""
    table = tables.verifications.c
    columns = (table.mapping_id, table.status, table.library_version, table.counts, table.reached, table.findings)
    rows = write.select(select(*columns).where(table.library_version == library_version))
    return {row["mapping_id"]: to_verification(row) for row in rows}
