"""Write values as people read them; each result is text, escaped by the template, but for links to sources."""

import json
import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from ...domain.mappings import Mapping
from ...domain.vocabulary import list_some

MOST_TARGETS = 8
LONGEST_REGEX = 80

_PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_BENCH = "docs/evidence/placement.md"


def number(value: int) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,}"


def count(value: float) -> str:
    """Return a large number in short: ``8.0 B``, ``125 M``."""
    for power, unit in ((4, "T"), (3, "B"), (2, "M"), (1, "k")):
        if value >= 1000**power:
            short = value / 1000**power
            return f"{short:.0f} {unit}" if short >= 100 else f"{short:.1f} {unit}"  # noqa: PLR2004 - three digits
    return str(int(value))


def python(value: str | Sequence[str] | dict[str, int]) -> str:
    """Return a value of PEFT's configuration as Python writes it; a regex as a raw string."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python(name)}: {rank}" for name, rank in value.items()) + "}"
    if isinstance(value, str):
        is_raw = "\\" in value and '"' not in value and value.isprintable() and not value.endswith("\\")
        return f'r"{value}"' if is_raw else json.dumps(value)
    return json.dumps([*value])


def short_targets(mapping: Mapping) -> str:
    """Return the targets of a mapping in one line, the first of many."""
    spec = mapping.spec
    modules, parameters = spec.target_modules or (), spec.target_parameters or ()
    if isinstance(modules, str):
        modules = (modules if len(modules) <= LONGEST_REGEX else modules[:LONGEST_REGEX] + "…",)
    return list_some((*modules, *parameters), MOST_TARGETS) or "—"


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".") if text else ""


def cite(text: str, placement: str) -> Markup:
    """Return a text, escaped, with its papers and our bench, whose page is at a link, as links."""
    cited = _PAPER.sub(r'<a href="https://arxiv.org/abs/\1" rel="noreferrer">arXiv:\1</a>', str(escape(text)))
    return Markup(cited.replace(_BENCH, f'<a href="{escape(placement)}">placements compared</a>'))  # noqa: S704 - escaped


def without_command(message: str, command: str | None) -> str:
    """Return the message of an error up to the sentence with a command of the terminal, which a browser has not."""
    before, found, _ = message.partition(command or "\n")
    return before[: before.rfind(". ") + 1] or message if found else message


FILTERS = {each.__name__: each for each in (number, count, python, short_targets, sentence, cite, without_command)}
