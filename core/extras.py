"""Check that optional dependencies are installed."""

from importlib.util import find_spec

from .errors import MissingExtra


def require(extra: str, *packages: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Raises:
        MissingExtra: Naming the first missing package and the extra.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra(package, extra)
