"""No name that users' programs rely on is lost (``tests/golden/contract.txt``)."""

from contract import RECORD, list_contract


def test_no_recorded_name_is_lost_or_changes_its_type():
    """What goes or changes on purpose is in CHANGELOG.md, under "Upgrading"; then ``python tests/contract.py``."""
    recorded = set(RECORD.read_text("utf-8").splitlines())
    assert sorted(recorded - list_contract()) == []
    assert len(recorded) > 1000
