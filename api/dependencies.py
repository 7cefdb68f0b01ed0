"""Provide what handlers depend on: the open registry, and validated path and query parameters."""

from threading import Lock
from typing import Annotated

from fastapi import Depends, Path, Query, Request

from ..domain.vocabulary import Library
from ..registry import Registry
from ..settings import Settings

NAME_LENGTH = 255
NAME_PATTERN = r"^[^\s\x00-\x1f\x7f-\x9f]+$"
PLACE_PATTERN = r"^(transformers|timm|diffusers|torch):[^\s\x00-\x1f\x7f-\x9f]+"
"""Start of a pagination cursor: an architecture."""
LARGEST_NUMBER = 2**31 - 1
"""Largest id of a submission or token: what every database can compare."""


class LazyRegistry:
    """Open the registry on first use, so that a service whose database is away still answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._registry: Registry | None = None

    def get(self) -> Registry:
        """Return the open registry; the next request repeats an attempt that fails.

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
        description="Version of the library it is for; an unknown one resolves to the nearest, none to the newest",
        examples=["5.23.0"],
    ),
]
