"""Optional dependencies: named with the way to install them before an import of theirs fails."""

from importlib.util import find_spec

from .errors import MissingExtra


def require(extra: str, *packages: str) -> None:
    """Check that the packages an extra brings are installed; nothing is imported.

    Raises:
        MissingExtra: Naming the first that is not, and the extra.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra(package, extra)
