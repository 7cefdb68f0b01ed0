"""Small builds: real builds of an architecture with weights, narrow and shallow, for proofs that compute with them.

Others may import: ``list_builds`` (builds of a reference or a live model), its type ``Builds``, and ``SmallBuild``.
"""

from .builds import Builds, SmallBuild, list_builds, small_builds

__all__ = ["Builds", "SmallBuild", "list_builds", "small_builds"]
