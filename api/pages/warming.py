"""Read beforehand what the first page would wait half a second for: templates, known names, similar architectures."""

import logging

from ...errors import LoradarError
from ...references.knowledge import load
from ..dependencies import LazyRegistry
from .rendering import environment

LOGGER = logging.getLogger("loradar.api")


def warm_up(lazy: LazyRegistry) -> None:
    """Fill the caches of the process and of its registry; what fails now is reported to who requests it."""
    templates = environment()
    for name in templates.list_templates():
        templates.get_template(name)
    load()
    try:
        registry = lazy.get()
        first = next((one for one in registry.browsing.list_all() if one.architecture.fingerprint), None)
        if first:
            registry.list_similar(first.architecture.library, first.architecture.name, 1)
    except LoradarError as error:
        LOGGER.debug("pages are not prepared: %s", error.message)
