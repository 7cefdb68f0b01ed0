"""``explain``: why a layer of an architecture is a target or not, from the registry or from a scan."""

from ..domain.explaining.explanations import Explanation, Subject
from ..domain.explaining.explanations import explain as explain_layer
from ..domain.scans import Scan
from ..errors import UnknownArchitecture
from ..references.resolver import resolve
from .registry import Registry


def explain(reference: str | Scan, layer: str, library: str | None = None) -> Explanation:
    """Explain why layers of a model are targets or not: their role, its evidence, each preset and reasons against.

    Args:
        reference: An architecture in any spelling, as in ``lookup``, or the result of ``scan``, whose evidence is kept.
        layer: The path of a layer, a pattern with ``*``, the end of paths as in a target (``q_proj``), or a module.
        library: Only names of this library.

    Raises:
        UnknownLayer: If no layer has the name; lists the nearest, and those of its kind.
        NotRegistered: If the architecture, or its layers, are not on record.
        DatabaseUnusable: If the registry's database cannot be used.
    """
    if isinstance(reference, Scan):
        return explain_layer(Subject.of_scan(reference), layer)
    with Registry.open() as registry:
        return explain_registered(registry, reference, layer, library)


def explain_registered(registry: Registry, reference: str, layer: str, library: str | None = None) -> Explanation:
    """Explain layers of an architecture that a registry knows, in any spelling."""
    first = next(iter(resolve(reference, library, registry.list_references())), None)
    if first is None or first.how == "near name":
        found = registry.lookup(reference, library=library).architecture  # or its error, with the way out
        return explain_layer(Subject.of_registry(registry.get_architecture(found.library, found.name)), layer)
    try:
        detail = registry.get_architecture(first.library, first.name)
    except UnknownArchitecture:
        registry.lookup(first.name, library=first.library)
        raise
    return explain_layer(Subject.of_registry(detail), layer)
