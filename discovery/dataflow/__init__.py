"""Run a model's own forward, and infer the role of each layer from where its tensors go.

Each step is one function: ``trace`` (a model) -> ``Recorder`` (a ``Tape`` of operations) -> ``follow`` (a ``Flow`` of
sources) -> ``Graph`` (the flow with the layers) -> ``vote_on_roles`` and ``find_layouts``.
"""

from .ends import Ends
from .graph import Verdict
from .roles import Trace, trace

__all__ = ["Ends", "Trace", "Verdict", "trace"]
