"""A short soak: writers against a service that is killed; ``make soak`` is the long one."""

from soak import Soak


def test_nothing_is_lost_and_nothing_is_there_twice(seeded_settings):
    """Three writers, and a kill after writes that were acknowledged."""
    soak = Soak(seeded_settings, 3)
    outcome = soak.run(kills=1, after=4)
    soak.check()
    assert outcome.kills == 1
    assert len(outcome.submitted) >= 3
