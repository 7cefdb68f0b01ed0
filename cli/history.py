"""``loradar history``, ``changes`` and ``diff``: show the changes of mappings, their authors, reasons and effects."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from ..references import Reference
from ..schema import to_json
from .options import AsJson, MappingId, ReferenceText, Url
from .output import history as show_history
from .output import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..domain.changes import Change
    from ..registry import Registry

PAGE = 500
"""Changes read from the registry at once."""


def history(reference: ReferenceText, *, url: Url = None, as_json: AsJson = False) -> None:
    """Show every revision of an architecture's mappings, yanked ones too: author, time and reason."""
    parsed = Reference.parse(reference)
    library, name = parsed.scheme, parsed.registered_name
    if url:
        from ..client import Client

        with Client(url) as client:
            revisions = client.history(library, name)
    else:
        from ..registry import Registry

        with Registry.open() as registry:
            revisions = registry.list_history(library, name)
    if as_json:
        listed = [to_json(revision) for revision in revisions]
        show.print_json({"architecture": {"library": library, "name": name}, "revisions": listed})
    else:
        show_history.print_history(revisions)


def changes(
    *,
    since: Annotated[int, typer.Option(min=0, help="Only changes after this serial.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Changes at most.")] = 100,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the changes of the registry, oldest first."""
    if url:
        from ..client import Client

        with Client(url) as client:
            listed = list(islice(client.changes(since), limit))
    else:
        from ..registry import Registry

        with Registry.open() as registry:
            listed = list(islice(_iterate_changes(registry, since), limit))
    if as_json:
        show.print_json({"changes": [to_json(change) for change in listed]})
    else:
        show_history.print_changes(listed)


def _iterate_changes(registry: "Registry", since: int) -> "Iterator[Change]":
    while page := registry.list_changes(since, PAGE):
        yield from page
        since = page[-1].serial


def diff(mapping_id: MappingId, other_id: MappingId, *, url: Url = None, as_json: AsJson = False) -> None:
    """Show the layers that only the first mapping matches, and those that only the second does."""
    if url:
        from ..client import Client

        with Client(url) as client:
            difference = client.diff(mapping_id, other_id)
    else:
        from ..registry import Registry

        with Registry.open() as registry:
            difference = registry.compare(mapping_id, other_id)
    if as_json:
        show.print_json(to_json(difference))
    else:
        show_history.print_difference(difference)
