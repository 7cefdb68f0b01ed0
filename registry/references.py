"""Find a mapping by a reference in any spelling, and explain why there is none.

The standard library's queries and SQLAlchemy's share this: each gives ``find`` a mapping by its exact name.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..domain.mappings import Mapping
from ..errors import InvalidReference, NotRegistered, quoted
from ..references import Reference, describe, explain_invalid_repo
from ..settings import hub_endpoint

if TYPE_CHECKING:
    from ..references.resolver import Candidate

Find = Callable[[str, str], Mapping | None]
"""Return the mapping of an architecture by library and exact name."""


def exact_name(text: str, library: str | None) -> tuple[str, str]:
    """Return the library and the name that a text is read as literally; a bare word is transformers'."""
    scheme, colon, rest = text.partition(":")
    if library and not (colon and scheme == library):
        return library, text
    if colon:
        return scheme, Reference.parse(text).registered_name if scheme == "torch" else rest
    return "transformers", text


def find_understood(
    text: str, library: str | None, find: Find, registered: Callable[[], Iterable[str]]
) -> Mapping | None:
    """Return the mapping of what a text stands for; ``None`` if there is none, or only near names."""
    try:
        found = find(*exact_name(text, library))
        if found:
            return found
        from ..references.resolver import resolve  # noqa: PLC0415 - 10 ms, which an exact name does without

        first, *others = resolve(text, library) or (None,)
        if first is None or first.is_guess:  # it may be an architecture of the registry's own, which takes time to list
            first, *others = resolve(text, library, frozenset(registered())) or (None,)
    except InvalidReference:
        return None
    if first is None or first.how == "near name":
        return None
    found = find(first.library, first.name)
    return found and replace(found, understood=describe(text, first, others))


def not_understood(text: str, library: str | None, candidates: "Iterable[Candidate]") -> NotRegistered:
    """Return the error for a text that is no known name: near ones, and a command that works."""
    near = [one.reference.removeprefix("transformers:") for one in candidates]
    repo = text.removeprefix("hub:").partition("@")[0]
    command = f"loradar lookup {near[0]}" if near else "loradar list"
    of_library = f" of {library}" if library else ""
    message = f"No architecture, class, checkpoint or nickname{of_library} is called {text!r}."
    if repo.count("/") == 1 and ":" not in repo and explain_invalid_repo(repo) is None:
        scan = f"loradar scan hub:{text.removeprefix('hub:')}"
        command = command if near else scan
        message = (
            f"{text!r} is not known offline. To read its config.json and the headers of its weights from "
            f"{hub_endpoint()} (no weights, none of its code), run: {scan}."
        )
    closest = f" Closest: {quoted(near)}." if near else ""
    way_out = f" {'Try' if near else 'List what is known with'}: {command}" if command not in message else ""
    read_as = library or (text.partition(":")[0] if ":" in text else "transformers")
    error = NotRegistered(text, (), f"{message}{closest}{way_out}", library=read_as, command=command, has={})
    error.near = error.details["near"] = near
    return error
