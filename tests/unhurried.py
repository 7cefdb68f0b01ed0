"""Lift the time limits of scans and proofs: on a busy machine the same layers are traced as on an idle one.

Imported for its effect, by the tests' own process and by the workers of sandboxes that they start.
"""

from patience import patience

from loradar.discovery.liveness import proofs
from loradar.discovery.meta_run import running, session

running.SECONDS = patience()
proofs.SECONDS = patience()
proofs.PATIENCE = patience()
session.MOST_WASTE = patience(2 * session.MOST_WASTE)  # processor time, which doubles where workers share a core
