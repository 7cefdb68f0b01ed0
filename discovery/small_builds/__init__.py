"""Build an architecture narrow and shallow, with real weights, for proofs that compute with them.

Others may import: ``list_builds`` (builds of a reference or a live model), its type ``Builds``, ``SmallBuild``, and
``free_memory``.
"""

from .builds import Builds, SmallBuild, free_memory, list_builds, small_builds

__all__ = ["Builds", "SmallBuild", "free_memory", "list_builds", "small_builds"]
