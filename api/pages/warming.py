"""Read beforehand what the first page would wait half a second for: templates, names, similar ones."""

import logging
from typing import TYPE_CHECKING

from fastapi import FastAPI

from ...errors import LoradarError
from ...references.knowledge import load
from .rendering import environment

if TYPE_CHECKING:
    from ..dependencies import LazyRegistry

LOGGER = logging.getLogger("loradar.api")


def warm_up(app: FastAPI) -> None:
    """Fill the caches of the process, the application and its registry; what fails now is told to who requests it."""
    templates = environment()
    for name in templates.list_templates():
        templates.get_template(name)
    load()
    try:
        lazy: LazyRegistry = app.state.registry
        registry = lazy.get()
        first = next((one for one in registry.browsing.list_all() if one.architecture.fingerprint), None)
        if first:
            registry.list_similar(first.architecture.library, first.architecture.name, 1)
    except LoradarError as error:
        LOGGER.debug("pages are not prepared: %s", error.message)
