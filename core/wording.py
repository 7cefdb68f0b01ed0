"""Phrases that several parts of loradar share."""

from collections.abc import Iterable

from .domain.vocabulary import Role


def count_layers(count: int, role: str = "") -> str:
    """Return a number of layers in words: ``1 head layer``."""
    return " ".join(filter(None, (str(count), role, "layer" if count == 1 else "layers")))


def describe_slot(pattern: str, role: Role, count: int) -> str:
    """Return a slot in words: ``model.layers.*.q_proj is attention.query (32 layers)``."""
    known = "" if role == "other" else f" is {role}"
    return f"{pattern}{known} ({count_layers(count)})"


def list_some(names: Iterable[str], limit: int = 3) -> str:
    """Return the first names and the number of the others: ``a, b, c and 2 more``."""
    names = [*names]
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
