"""A worker of the service without a process of its own; the bounds of real ones are tested in test_isolation.py."""

from pkgutil import resolve_name
from typing import Any


class InProcess:
    """A worker of the service without a process of its own, which would import torch once more."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def run(self, name: str, *args: Any) -> Any:
        """Run a task by its name."""
        return resolve_name(name)(*args)

    def close(self) -> None:
        """Stop nothing."""
