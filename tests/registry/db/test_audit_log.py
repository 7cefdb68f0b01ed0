"""Whatever is changed behind loradar's back is noticed."""

import pytest
from records_zoo import make_scan
from sqlalchemy import text

from loradar.domain.identities import LOCAL
from loradar.registry.db import audit_log
from loradar.registry.db.audit_log import FIRST
from loradar.schema import to_json


@pytest.fixture
def written(any_registry):
    """A registry with a few changes, and a function that runs SQL on its database."""
    mapping = any_registry.add_scan(make_scan()).added[0]
    any_registry.backend(LOCAL).yank(mapping.id, "wrong")
    any_registry.tokens.create("grace", "admin")

    def run(sql: str, **values) -> None:
        with any_registry._database.write_unlogged() as connection:
            connection.execute(text(sql), {"id": mapping.id, **values})

    return any_registry, run


def test_an_untouched_log_is_whole(written):
    """As many links as the serial says; the head is that of the last."""
    registry, _ = written
    report = registry.verify_log()
    head = registry.list_changes(3)[0].digest
    assert to_json(report) == {"entries": 4, "serial": 4, "head": head, "faults": []}
    assert all(registry.verify_log(change.digest).faults == () for change in registry.list_changes())


def test_small_pages_make_no_difference(written, monkeypatch):
    """The chain runs on from page to page, and every mapping is looked at."""
    monkeypatch.setattr(audit_log, "PAGE", 1)
    registry, run = written
    assert registry.verify_log().faults == ()
    run("UPDATE mappings SET spec = '{}' WHERE id = :id")
    assert len(registry.verify_log().faults) == 1


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("UPDATE changes SET actor = 'eve' WHERE serial = 3", "serial 3 was altered"),
        ("UPDATE changes SET details = '[1]' WHERE serial = 3", "serial 3 was altered"),
        ("UPDATE changes SET details = 'no JSON' WHERE serial = 3", "serial 3 was altered"),
        ("UPDATE changes SET at = '2020' WHERE serial = 4", "serial 4 was altered"),
        ("DELETE FROM changes WHERE serial = 2", "serial 2 is missing"),
        ("DELETE FROM changes WHERE serial IN (1, 2)", "serial 1 to 2 are missing"),
        ("DELETE FROM changes WHERE serial = 4", "serial 4 is missing at the end"),
        ("DELETE FROM changes WHERE serial > 0", "serial 1 to 4 are missing at the end"),
        ("UPDATE serial SET value = 6", "serial 5 to 6 are missing at the end"),
        (
            'UPDATE mappings SET spec = \'{"target_modules": ["x"]}\' WHERE id = :id',
            "its id is not that of its content",
        ),
        ("UPDATE mappings SET spec = 'no JSON' WHERE id = :id", "its id is not that of its content"),
        ("UPDATE mappings SET preset = 'mlp' WHERE id = :id", "its id is not that of its content"),
        ("UPDATE architectures SET name = 'other' WHERE name = 'olmo2'", "its id is not that of its content"),
    ],
)
def test_what_was_altered_is_named(written, sql, fault):
    """A link, a gap, the end, or a revision that the log tells of."""
    registry, run = written
    run("DELETE FROM change_subjects")
    run(sql)
    assert fault in "; ".join(registry.verify_log().faults)


def test_a_link_with_a_new_digest_breaks_the_next_one(written):
    """Who alters a link has to write all later ones anew, and a digest kept elsewhere shows even that."""
    registry, run = written
    kept = registry.verify_log().head
    run("UPDATE changes SET digest = :digest WHERE serial = 2", digest="sha256:" + "1" * 64)
    faults = registry.verify_log(kept).faults
    assert any("serial 3 does not follow on" in fault for fault in faults)


def test_an_end_that_was_cut_off_cleanly_is_told_by_a_digest_kept_elsewhere(written):
    """The log is whole then, and shorter than it was."""
    registry, run = written
    kept = registry.verify_log().head
    run("DELETE FROM change_subjects WHERE serial = 4")
    run("DELETE FROM changes WHERE serial = 4")
    run("UPDATE serial SET value = 3")
    assert registry.verify_log().faults == ()
    assert registry.verify_log(kept).faults == (
        f"{kept}, kept elsewhere, is not in the log: it was cut off or written anew",
    )


def test_a_revision_that_was_deleted_is_missed(written):
    """The log names it."""
    registry, run = written
    run("DELETE FROM verifications WHERE mapping_id = :id")
    run("DELETE FROM mappings WHERE id = :id")
    (fault,) = registry.verify_log().faults
    assert fault.endswith("is in the log, and gone")


def test_a_log_may_start_late_only_where_it_says_so(written):
    """A registry older than the log starts with a link that says ``log.start``."""
    registry, run = written
    run("DELETE FROM change_subjects")
    run("DELETE FROM changes WHERE serial < 4")
    run("UPDATE changes SET action = 'log.start', previous = :first", first=FIRST)
    faults = registry.verify_log().faults
    assert not any("missing" in fault for fault in faults)
    assert any("serial 4 was altered" in fault for fault in faults)


def test_very_many_faults_are_counted(written, monkeypatch):
    """A message has an end."""
    registry, run = written
    monkeypatch.setattr(audit_log, "MOST_FAULTS", 3)
    run("UPDATE mappings SET spec = '{}'")
    faults = registry.verify_log().faults
    assert len(faults) == 4
    assert faults[-1] == f"and {registry.info().counts['mappings'] - 3} more"
