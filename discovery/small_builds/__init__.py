"""Small real builds: an architecture made narrow and shallow, with weights, for what has to be computed for real."""

from .builds import SmallBuild, small_builds

__all__ = ["SmallBuild", "small_builds"]
