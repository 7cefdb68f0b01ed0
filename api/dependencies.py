"""What handlers depend on: the registry, and the bounds of names they are asked for."""

from threading import Lock
from typing import Annotated

from fastapi import Depends, Path, Query, Request

from ..domain.vocabulary import Library
from ..registry import Registry
from ..settings import Settings

NAME_LENGTH = 255
NAME_PATTERN = r"^[^\s\x00-\x1f\x7f-\x9f]+$"
PLACE_PATTERN = r"^(transformers|timm|diffusers|torch):[^\s\x00-\x1f\x7f-\x9f]+"
"""How a place in a list begins: with an architecture."""
LARGEST_NUMBER = 2**31 - 1
"""Of a submission or a token: what every database can compare."""


class LazyRegistry:
    """Opens the registry when it is first needed: a service whose database is away still says so."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._registry: Registry | None = None

    def get(self) -> Registry:
        """Return the open registry; an attempt that fails is repeated by the next request.

        Raises:
            DatabaseUnusable: If it cannot be opened.
        """
        with self._lock:
            self._registry = self._registry or Registry.open(self._settings)
            return self._registry

    def close(self) -> None:
        """Close the registry if it was opened."""
        with self._lock:
            if self._registry:
                self._registry.close()
            self._registry = None


def get_registry(request: Request) -> Registry:
    """Return the application's registry."""
    lazy: LazyRegistry = request.app.state.registry
    return lazy.get()


OpenRegistry = Annotated[Registry, Depends(get_registry)]

Name = Annotated[
    str,
    Path(
        max_length=NAME_LENGTH,
        pattern=NAME_PATTERN,
        description="Name of the architecture",
        examples=["llama"],
    ),
]
LibraryName = Annotated[Library, Path(description="Library the architecture belongs to", examples=["transformers"])]
LibraryQuery = Annotated[Library, Query(description="Library the architecture belongs to")]
VersionQuery = Annotated[
    str | None,
    Query(
        max_length=64,
        pattern=NAME_PATTERN,
        description="Version of the library it is for, or the nearest seen; the newest known one if left out",
        examples=["5.23.0"],
    ),
]
