"""``loradar history``, ``changes`` and ``diff``: what was done to mappings, by whom and why, and what it changes."""

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from ..domain.schema import to_json
from ..references import Reference
from .options import AsJson, Url
from .output import history as show_history
from .output import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..domain.changes import Change, Revision
    from ..domain.submissions import Difference
    from ..registry import Registry

PAGE = 500

MappingId = Annotated[str, typer.Argument(help="Id of a mapping, or the first eight digits of it.")]


def history(
    reference: Annotated[str, typer.Argument(help="llama, timm:resnet50")],
    *,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show every revision ever of an architecture's mappings, yanked ones too: who, when and why."""
    asked = Reference.parse(reference)
    library, name = asked.scheme, asked.registered_name
    revisions = _history(library, name, url)
    if as_json:
        listed = [to_json(revision) for revision in revisions]
        show.print_json({"architecture": {"library": library, "name": name}, "revisions": listed})
    else:
        show_history.print_history(revisions)


def _history(library: str, name: str, url: str | None) -> "tuple[Revision, ...]":
    if url:
        from ..client import Client

        with Client(url) as client:
            return client.history(library, name)
    from ..registry import Registry

    with Registry.open() as registry:
        return registry.list_history(library, name)


def changes(
    *,
    since: Annotated[int, typer.Option(min=0, help="Only what came after this serial.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Changes at most.")] = 100,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List what was changed in the registry, oldest first."""
    with _changes(since, url) as found:
        listed = list(islice(found, limit))
    if as_json:
        show.print_json({"changes": [to_json(change) for change in listed]})
    else:
        show_history.print_changes(listed)


@contextmanager
def _changes(since: int, url: str | None) -> "Iterator[Iterator[Change]]":
    if url:
        from ..client import Client

        with Client(url) as client:
            yield client.changes(since)
            return
    from ..registry import Registry

    with Registry.open() as registry:
        yield _pages(registry, since)


def _pages(registry: "Registry", since: int) -> "Iterator[Change]":
    while page := registry.list_changes(since, PAGE):
        yield from page
        since = page[-1].serial


def diff(mapping_id: MappingId, other_id: MappingId, *, url: Url = None, as_json: AsJson = False) -> None:
    """Show which layers the first mapping reaches that the second does not, and the other way round."""
    difference = _diff(mapping_id, other_id, url)
    if as_json:
        show.print_json(to_json(difference))
    else:
        show_history.print_difference(difference)


def _diff(mapping_id: str, other_id: str, url: str | None) -> "Difference":
    if url:
        from ..client import Client

        with Client(url) as client:
            return client.diff(mapping_id, other_id)
    from ..registry import Registry

    with Registry.open() as registry:
        return registry.compare(mapping_id, other_id)
