"""The facts a new registry starts with: PEFT's tables, from the copy in ``data/constants``."""

from typing import TYPE_CHECKING

from .constants_json import load_constants
from .store import add_constants
from .write import Write

if TYPE_CHECKING:
    from sqlalchemy import Connection


def add_seed(connection: "Connection") -> None:
    """Fill a migrated, empty registry."""
    with Write(connection) as write:
        add_constants(write, load_constants())
