"""The content of a repo of a hub: models by their structure, an adapter, or the reason why neither could be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from ..vocabulary import Library

Outcome = Literal[
    "model",
    "adapter",
    "gated",
    "closed",
    "gone",
    "missing_config",
    "unnamed",
    "no_weights",
    "pickled",
    "gguf",
    "unreadable",
    "redirected",
    "throttled",
    "unreachable",
    "worker_lost",
    "error",
]
"""The kind of a repo that was read, or the cause why it was not."""

CAUSES: Mapping[str, str] = {
    "gated": "access must be requested",
    "closed": "this account has no access",
    "gone": "the repo or the file was removed since it was listed",
    "missing_config": "has weights, but no config.json",
    "unnamed": "config.json names no architecture",
    "no_weights": "has no weights",
    "pickled": "has pickled weights alone, which are never opened",
    "gguf": "has weights as GGUF alone, which a crawl does not read",
    "unreadable": "the configuration, the index or the header of the weights is invalid",
    "redirected": "the hub redirects to another host, which is not followed",
    "throttled": "the hub accepts no more requests for now",
    "unreachable": "the hub does not answer",
    "worker_lost": "the worker died while it read the repo",
    "error": "loradar failed on it: please report it",
}
"""Causes why a repo was not read, in words."""

TRANSIENT: frozenset[str] = frozenset({"throttled", "unreachable", "worker_lost", "error"})
"""Causes that may be gone the next time: the next crawl tries again. Others last until the repo has a new commit."""


@dataclass(frozen=True, slots=True)
class Structure:
    """The layers of a model by their names without numbers, whatever their sizes and the number of blocks.

    Attributes:
        library: Library of the architecture that the configuration names.
        name: Name of the architecture.
        class_name: Class that the configuration names, if any.
        layers: Patterns of the weights with their dimensions, sorted: ``model.layers.*.mlp.up_proj 2``.
    """

    library: Library
    name: str
    class_name: str | None
    layers: tuple[str, ...]

    @property
    def digest(self) -> str:
        """``sha256:`` over the layers alone: architectures with equal layers share it."""
        return f"sha256:{sha256(chr(10).join(self.layers).encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class CrawledAdapter:
    """The adapter in a repo.

    Attributes:
        base: Repo of the base model; ``None`` if it names none, such as a folder of its author's.
        base_architecture: Library and name of the architecture that this repo is known for offline, if any.
        peft_type: ``LORA``; ``UNKNOWN`` if no configuration states it.
        targets: The layers its author chose: names, or one regex; empty if they are not stated.
    """

    base: str | None
    base_architecture: tuple[str, str] | None
    peft_type: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CrawledRepo:
    """A repo that a crawl visited.

    Attributes:
        name: ``org/repo``.
        commit: Commit that was read.
        modified: Time of that commit, ISO 8601, if the hub states it.
        outcome: What it is, or why it was not read.
        message: The problem in words, if there is one.
        models: The structure of each model in it, by its folder; empty for the top.
        adapter: Its adapter.
        requests: Requests that it took.
        transferred: Bytes of the files that were read.
    """

    name: str
    commit: str | None
    modified: str | None
    outcome: Outcome
    message: str | None = None
    models: Sequence[tuple[str, Structure]] = ()
    adapter: CrawledAdapter | None = None
    requests: int = 0
    transferred: int = 0
