"""The commands of a shell script, with the values of their options and the lines they are on; nothing is run."""

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from .documents import Document, Entry

_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|(\w+))")
_ASSIGNMENT = re.compile(r"(\w+)=(.*)", re.DOTALL)
_ENDS = {";", "&&", "||", "|", "&"}


class _Word(NamedTuple):
    text: str
    line: int


def read_shell(text: str) -> tuple[Document, ...]:
    """Return the commands that have options; variables set before in the script are filled in."""
    variables: dict[str, str] = {}
    commands = (_set_variables(command, variables) for command in _list_commands(text))
    documents = (_read_command(words) for words in commands if words)
    return tuple(document for document in documents if document.entries)


def _set_variables(command: list[_Word], variables: dict[str, str]) -> list[_Word]:
    """Set the variables that a command assigns, and return its other words with variables filled in."""
    is_export = bool(command) and command[0].text == "export"
    for at, word in enumerate(command[is_export:], start=int(is_export)):
        assigned = _ASSIGNMENT.fullmatch(word.text)
        if assigned is None:
            return [] if is_export else [_Word(_fill(each.text, variables), each.line) for each in command[at:]]
        variables[assigned[1]] = _fill(assigned[2], variables)
    return []


def _list_commands(text: str) -> Iterator[list[_Word]]:
    """Yield the words of each command; a backslash at the end of a line continues it, as an open quote does."""
    command: list[_Word] = []
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        pending += line
        is_continued = pending.endswith("\\")
        words = _split(pending.removesuffix("\\"))
        if words is None:  # a quote is open
            pending += "\n"
            continue
        for word in words:
            if word in _ENDS:
                yield command
                command = []
            else:
                command.append(_Word(word, start))
        pending, start = "", 0
        if not is_continued:
            yield command
            command = []
    yield command


def _split(line: str) -> list[str] | None:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return None


def _fill(text: str, variables: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[3], found[2] or found[0]), text)


def _read_command(words: list[_Word]) -> Document:
    """Return a command: the words before its first option are the program."""
    first = next((at for at, word in enumerate(words) if word.text.startswith("--")), len(words))
    given: dict[str, tuple[int, list[_Word]]] = {}
    name, program = "", [word.text for word in words[:first]]
    for word in words[first:]:
        if word.text.startswith("--"):
            name, equals, value = word.text[2:].partition("=")
            name = name.replace("-", "_")
            given[name] = word.line, [_Word(value, word.line)] if equals else []
        elif word.text.endswith((".py", ".yaml", ".yml")) and word.text.count("/") != len(word.text):
            program.append(word.text)  # `accelerate launch --num_processes 2 train.py --lora_rank 8`
            given[name][1].append(word)
        else:
            given[name][1].append(word)
    return Document("shell", {key: _entry(*value) for key, value in given.items()}, " ".join(program), words[0].line)


def _entry(line: int, values: list[_Word]) -> Entry:
    texts = [word.text for word in values]
    is_read = not any(map(_VARIABLE.search, texts))
    if len(texts) < 2:  # noqa: PLR2004 - several words are a list
        return Entry(texts[0] if texts else True, values[0].line if values else line, is_read=is_read)
    return Entry(texts, line, tuple(word.line for word in values), is_read)
