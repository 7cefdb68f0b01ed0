"""Read pasted text: a message of an error, with the names of models in the traceback around it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..data import read_facts
from .knowledge import Fact, load
from .resolver import Candidate
from .words import key_of

LONGEST = 16_000
"""Characters that are read; a traceback has a few thousand."""

_MODULE = re.compile(r"\bmodels[/\\.](\w{1,80})[/\\.](?:modeling|modular|configuration)_")
"""A file of transformers, whose folder is the type of the model."""
_TYPE = re.compile(r"model_type[\"'`]?\s*[:=]?\s*[\"'`]?(\w[\w.-]{0,80})")
_CLASS = re.compile(r"\b[A-Z]\w{3,120}")
_REPO = re.compile(r"(?<![\w./-])[\w.-]{1,96}/[\w.-]{1,96}(?![\w/-])")


@dataclass(frozen=True, slots=True)
class Pasted:
    """A pasted text.

    Attributes:
        says: What its message means; empty if it is none that is known.
        candidates: The architectures that it names, in the order of how surely.
    """

    says: str
    candidates: tuple[Candidate, ...]

    @property
    def is_message(self) -> bool:
        """Whether it is a message rather than a name."""
        return bool(self.says or self.candidates)


def read_pasted(text: str) -> Pasted:
    """Return what a text means as a message of an error; nothing is guessed."""
    text = text[:LONGEST]
    folded = text.casefold()
    messages = read_facts("error_messages.toml")["message"]
    says = next((str(one["says"]) for one in messages if one["contains"].casefold() in folded), "")
    found: dict[str, Candidate] = {}
    for candidate in _list_named(text) if says or _is_long(text) else ():
        found.setdefault(candidate.reference, candidate)
    return Pasted(says, tuple(found.values()))


def _is_long(text: str) -> bool:
    """Return whether a text is more than a name may be."""
    return len(text.split()) > 3 or "\n" in text.strip()  # noqa: PLR2004 - "stable diffusion xl"


def _list_named(text: str) -> Iterator[Candidate]:
    """Yield the architectures that a text names: repos, then classes, then types of models."""
    repos = (load().repos.get(repo.rstrip(".").casefold()) for repo in _REPO.findall(text))
    yield from (_to_candidate(fact) for fact in repos if fact)
    for pattern, how in ((_CLASS, "class"), (_TYPE, "spelling"), (_MODULE, "spelling")):
        for name in dict.fromkeys(pattern.findall(text)):
            facts = load().keys.get(key_of(name), ())
            yield from (_to_candidate(fact) for fact in facts if fact.how == how and fact.written == name)


def _to_candidate(fact: Fact) -> Candidate:
    return Candidate(fact.reference, fact.how, fact.written)
