"""Read the words of a name: those to compare, and the sizes, which are independent of its architecture."""

import re
import string
from collections.abc import Iterator, Sequence

_DROPPED = str.maketrans("", "", string.punctuation + string.whitespace)
_CAMEL = r"(?<=[a-z])(?=[A-Z])"
_WORD = r"[a-z]+|\d+"
_ACTIVE = r"(?<![a-z0-9])a\d+(?:\.\d+)?[bm](?![a-z0-9])"
_SIZE = r"(?<![a-z0-9.])(?:\d+x)?e?\d+(?:\.\d+)?[bmk](?![a-z0-9])|(?<![a-z0-9.])\d+e(?![a-z0-9])"

MOE = "moe"
"""The word for active parameters: ``A3B`` in ``Qwen3-30B-A3B`` is what a mixture of experts runs for a token."""

MARKS = frozenset(
    [
        "hf",
        "it",
        "chat",
        "instruct",
        "base",
        "large",
        "small",
        "medium",
        "tiny",
        "mini",
        "nano",
        "xl",
        "xxl",
        "huge",
        "uncased",
        "cased",
        "pretrained",
        "preview",
        "v",
    ]
)
"""Words that follow the name of a family in those of its checkpoints, and are no part of it."""


def key_of(text: str) -> str:
    """Return a name without case, spaces, ``-``, ``_``, ``.`` and the like."""
    return text.casefold().translate(_DROPPED)


def words_of(text: str, *, sizes: bool = False) -> list[str]:
    """Return the words and numbers of a name, without sizes: ``Qwen3-VL-30B-A3B`` is ``qwen 3 vl moe``.

    Names are in ASCII: a text with other letters, which may look like these, has no words.
    """
    if not text.isascii():
        return []
    split = re.sub(_CAMEL, " ", text).casefold()
    return re.findall(_WORD, split if sizes else re.sub(_SIZE, " ", re.sub(_ACTIVE, f" {MOE} ", split)))


def stem_of(text: str) -> str:
    """Return the key of a checkpoint's name without sizes and the marks at its end: ``llama32vision``."""
    words = words_of(text)
    while len(words) > 1 and words[-1] in MARKS:
        words.pop()
    return "".join(words)


def runs_of(words: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield the first word, the end and the key of every run of words, the longest from each word first."""
    for first in range(len(words)):
        for end in range(len(words), first, -1):
            yield first, end, "".join(words[first:end])
