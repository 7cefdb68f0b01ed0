"""dataflow *follows*: it runs a model's own forward and tells from where its tensors go what each layer does.

One way, each step one function: ``trace`` (a model) -> ``Recorder`` (a ``Tape`` of operations) -> ``follow``
(a ``Flow`` of sources) -> ``Graph`` (the flow seen with the layers) -> ``tell_roles`` and ``tell_layouts``.
"""

from .graph import Saying
from .traced import Trace, trace

__all__ = ["Saying", "Trace", "trace"]
