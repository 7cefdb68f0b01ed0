"""Resolve a reference in any spelling into the architectures it may stand for, best first, each with the reason.

What is exact comes before what differs in its spelling only, then classes, checkpoints and nicknames, which are known.
The rest is a guess and says so: the family that the name of a repository begins with, and near names.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..errors import InvalidReference
from .grammar import LIBRARIES, MAX_LENGTH, Reference, check_hub_name
from .knowledge import Fact, load, load_beginnings, registered_facts
from .near import count_alike, list_near
from .understood import How
from .words import MOE, key_of, runs_of, stem_of, words_of

_ADDRESS = r"^(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|^hf://|^hf[-_]hub:|^hub:"
_WRITTEN = r"[A-Za-z0-9_.+ -]+"
"""What names are made of: a text with anything else, which may be an attack or look like another, is none of them."""
_SHORTEST = 4
"""Letters of a type's name that count inside another name; shorter ones are words (``bit``, ``opt``)."""

_LETTERS_A_SLIP = 8
"""Letters of a long name for each slip with which the whole is nearer than a family that it begins with."""

MOST = 8
"""Candidates at most."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An architecture that a text may stand for.

    Attributes:
        reference: ``transformers:qwen3``.
        how: How the text was understood.
        because: The name that has this meaning, as it is written where it is known.
        tag: timm's tag, if the text has one.
    """

    reference: str
    how: How
    because: str
    tag: str | None = None

    @property
    def library(self) -> str:
        """The library of the architecture."""
        return self.reference.partition(":")[0]

    @property
    def name(self) -> str:
        """The name of the architecture in its library."""
        return self.reference.partition(":")[2]

    @property
    def is_guess(self) -> bool:
        """Whether it is a guess, which the hub or the user has to confirm."""
        return self.how in {"class of many", "by name", "near name"}

    def explain(self) -> str:
        """Return the reason in words."""
        if self.how == "by name":
            return f"a guess by its name, which has {self.because!r} in it"
        if self.how == "class of many":
            return f"a guess: {self.because!r} is the class of many architectures"
        if self.how == "near name":
            return f"a guess: {self.because!r} is a near name"
        article = {"nickname": "a nickname", "class": "a class", "checkpoint": "a checkpoint"}.get(self.how, "the name")
        return f"{article}, {self.because!r}" if self.how != "exact" else "exact"


@dataclass(frozen=True)
class _Query:
    """A text in parts: the libraries it may be of, the repository, the name."""

    text: str
    libraries: tuple[str, ...]
    repo: str | None
    name: str

    @classmethod
    def parse(cls, text: str, library: str | None) -> "_Query":
        stripped = re.sub(_ADDRESS, "", text.strip(), flags=re.IGNORECASE)
        scheme, colon, rest = stripped.partition(":")
        libraries: tuple[str, ...] = (library,) if library else LIBRARIES
        if colon and scheme.casefold() in LIBRARIES:
            libraries, stripped = (scheme.casefold(),), rest.strip()
        elif colon:
            return cls(text, (), None, Reference.parse(stripped).registered_name)
        name, has_address = stripped.partition("@")[0], stripped != text.strip()
        parts = (name.rstrip("/") if has_address else name).split("/")
        repo = None
        if len(parts) > 1:
            repo = "/".join(parts[:2] if has_address else parts)
            check_hub_name(text, repo)
        return cls(text, libraries, repo, parts[1] if repo else parts[0])

    @cached_property
    def key(self) -> str:
        return key_of(self.name)

    def allows(self, candidate: Candidate) -> bool:
        """Return whether a candidate is of a requested library; a user's own classes are where all are."""
        return candidate.library in self.libraries or (candidate.library not in LIBRARIES and len(self.libraries) > 1)

    @property
    def is_timm(self) -> bool:
        """Whether it is a repository of timm, or may be one of its names with a tag."""
        return "timm" in self.libraries and (self.repo is None or self.repo.casefold().startswith("timm/"))


def resolve(text: str, library: str | None = None, registered: Collection[str] = ()) -> tuple[Candidate, ...]:
    """Return the architectures that a text may stand for, best first; none if it is like no known name.

    Args:
        text: A reference in any spelling: ``Qwen/Qwen3-8B``, ``LlamaForCausalLM``, ``sdxl``, ``resnet50.a1_in1k``.
        library: Only architectures of this library.
        registered: References of further architectures, those of a registry.

    Raises:
        InvalidReference: If the text is empty or too long.
    """
    if len(text) > MAX_LENGTH:
        message = f"Reference of {len(text)} characters is too long; the limit is {MAX_LENGTH}."
        raise InvalidReference(message, length=len(text), limit=MAX_LENGTH)
    query = _Query.parse(text, library)
    if not query.key:
        message = f"Reference {text!r} needs a name, such as 'llama', 'timm:resnet50' or 'Qwen/Qwen3-8B'."
        raise InvalidReference(message, reference=text)
    return _resolve(query, frozenset(registered)) if re.fullmatch(_WRITTEN, query.name) else ()


@lru_cache(maxsize=1024)
def _resolve(query: _Query, registered: frozenset[str]) -> tuple[Candidate, ...]:
    found: dict[str, Candidate] = {}
    for candidate in _list_candidates(query, dict(registered_facts(registered))):
        if query.allows(candidate):
            found.setdefault(candidate.reference, candidate)
    return tuple(found.values())[:MOST]


def _list_candidates(query: _Query, own: dict[str, Fact]) -> Iterator[Candidate]:
    """Yield candidates, those that are known before guesses; near names only where nothing is known."""
    known = [*_list_exact(query), *_list_tagged(query), *_list_repos(query), *_list_same_key(query, own)]
    known = [*filter(query.allows, known)]
    yield from known
    if any(not candidate.is_guess for candidate in known):
        if query.repo is None:
            yield from _list_by_name(query, load().beginnings)
        return
    slips = _list_near(query, own)
    by_name = [*_list_by_name(query, load_beginnings())]
    yield from by_name if stem_of(query.name) in load_beginnings() else ()
    named = {candidate.reference: candidate for candidate in reversed(by_name)}  # the better reason for the same
    few = max(1, len(query.key) // _LETTERS_A_SLIP) if query.repo is None else 1
    yield from (named.get(slip.reference, slip) for distance, slip in slips if distance <= few)
    yield from by_name
    yield from (candidate for _, candidate in slips)
    yield from _list_longer(query)


def _list_exact(query: _Query) -> Iterator[Candidate]:
    for library in query.libraries if query.repo is None else ():
        if (reference := f"{library}:{query.name}") in load().names:
            yield Candidate(reference, "exact", query.name)


def _list_tagged(query: _Query) -> Iterator[Candidate]:
    """Yield timm's architecture with a tag: ``resnet50.a1_in1k``, ``timm/resnet50.a1_in1k``."""
    base, _, tag = query.name.partition(".")
    facts = load().keys.get(key_of(base), ()) if query.is_timm else ()
    for fact in (one for one in facts if one.how == "spelling" and one.reference.startswith("timm:")):
        if tag in load().tags.get(fact.written, ()):
            yield Candidate(fact.reference, "checkpoint", f"{fact.written}.{tag}", tag)
        elif query.repo:
            yield Candidate(fact.reference, "spelling", fact.written, tag or None)


def _list_repos(query: _Query) -> Iterator[Candidate]:
    fact = load().repos.get(query.repo.casefold()) if query.repo else None
    if fact:
        yield Candidate(fact.reference, "checkpoint", fact.written)


def _list_same_key(query: _Query, own: dict[str, Fact]) -> Iterator[Candidate]:
    """Yield the names of the same letters; of another organisation's repository, one is a guess."""
    facts = [*load().keys.get(query.key, ()), *([own[query.key]] if query.key in own else ())]
    order = ("spelling", "class", "nickname", "checkpoint", "class of many")
    for fact in sorted(facts, key=lambda one: (order.index(one.how), *_rank_in_class(one))):
        if fact.how == "class of many" and (query.repo or fact.how != facts[0].how):
            continue
        if query.repo is None:
            yield Candidate(fact.reference, fact.how, fact.written)
        elif not fact.reference.startswith("timm:"):
            yield Candidate(fact.reference, "by name", fact.written)


def _rank_in_class(fact: Fact) -> tuple[int, int]:
    """Return the place of timm's architecture in its class: by the beginning of its name, then by checkpoints."""
    if fact.how != "class of many":
        return 0, 0
    name = fact.reference.removeprefix("timm:")
    return -count_alike(key_of(fact.written), key_of(name)), -len(load().tags.get(name, ()))


def _list_by_name(query: _Query, beginnings: dict[str, list[Fact]]) -> Iterator[Candidate]:
    """Yield the families in a name: that of its longest beginning, then those that start further on.

    A size counts where it is part of a family's name (``gemma-3-1b``).
    A name may go on with a word for a variant (``Qwen3-Coder-30B-A3B`` is ``qwen3_moe``), and what was distilled into a
    model comes before the word for it (``DeepSeek-R1-Distill-Qwen-7B``).
    """
    sized = (load().sized.get(key) for _, _, key in runs_of(words_of(query.name, sizes=True)))
    yield from (Candidate(fact.reference, "by name", fact.written) for fact in sized if fact)
    words = words_of(query.name)
    start = max((words.index(word) + 1 for word in ("distill", "distilled") if word in words[:-1]), default=0)
    runs = [run for run in runs_of(words) if run[2] in beginnings]
    for _, end, key in sorted(filter(_is_telling, runs), key=lambda run: _rank(run, start)):
        for fact in sorted(beginnings[key], key=lambda one: one.how == "checkpoint"):
            if query.repo is None or not fact.reference.startswith("timm:"):
                yield Candidate(_find_variant(fact, words[end:]) or fact.reference, "by name", fact.written)


def _is_telling(run: tuple[int, int, str]) -> bool:
    """Return whether a run of words is distinctive: a short one inside a name is a word, as in ``8-bit``."""
    first, _, key = run
    return first == 0 or (len(key) >= _SHORTEST and not key.isdigit())


def _rank(run: tuple[int, int, str], start: int) -> tuple[int, int, int]:
    """Return the place of a run: first the whole beginning, then those behind a word for distilling, the longest."""
    first, end, key = run
    if first == 0:
        return (0 if end > start else 2, -end, 0)
    return (1 if first >= start else 3, -len(key), first)


def _find_variant(fact: Fact, rest: list[str]) -> str | None:
    """Return the variant of a type that a later word names, if there is one."""
    library, _, name = fact.reference.partition(":")
    for word in sorted(set(rest), key=lambda one: one != MOE):
        for other in load().beginnings.get(key_of(name) + word, ()) if word.isalpha() and len(word) > 1 else ():
            if other.how == "spelling" and other.reference.startswith(f"{library}:"):
                return other.reference
    return None


def _list_near(query: _Query, own: dict[str, Fact]) -> list[tuple[float, Candidate]]:
    """Return the names that differ by a few slips, with their cost."""
    keys = load().keys
    stem = stem_of(query.name)
    found = list_near(query.key, (*keys, *own))
    found += list_near(stem, keys) if stem != query.key and len(stem) >= _SHORTEST else []
    if query.repo is not None:  # its name is no slip of a person's: with another number it is another model
        found = [(distance, key) for distance, key in found if _digits_of(key) in _digits_of(query.key)]
    return [
        (distance, Candidate(fact.reference, "near name", fact.written))
        for distance, key in sorted(found, key=lambda one: one[0])
        for fact in keys.get(key) or (own[key],)
        if query.repo is None or not fact.reference.startswith("timm:")
    ]


def _digits_of(key: str) -> str:
    return "".join(filter(str.isdigit, key))


def _list_longer(query: _Query) -> Iterator[Candidate]:
    """Yield the names that begin with the text, the shortest first, and the types that a fused word ends with."""
    keys = load().keys
    begun = [key for key in keys if key.startswith(query.key)] if len(query.key) >= _SHORTEST - 1 else []
    for fact in sorted((fact for key in begun for fact in keys[key]), key=lambda one: (len(one.written), one.written)):
        yield Candidate(fact.reference, "near name", fact.written)
    ends = (word[cut:] for word in words_of(query.name) for cut in range(1, len(word) - _SHORTEST + 1))
    for fact in (fact for end in ends for fact in load().beginnings.get(end, ())):
        if not fact.reference.startswith("timm:"):
            yield Candidate(fact.reference, "by name", fact.written)
