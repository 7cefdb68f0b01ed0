"""Run the command of a line of arguments: reject contradictions, print errors as one line, and set the exit code."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import typer
from typer.main import get_command

from ..errors import InvalidRequest, LoradarError

READER_GONE = 141
"""Exit code where the reader of standard output has gone, as of a program that SIGPIPE ends (``| head -1``)."""
INTERRUPTED = 130


def run(app: typer.Typer, argv: Sequence[str]) -> NoReturn:
    """Run a command and exit: 0 if it did its work, 1 if what it examined is wrong, 2 for any error, in one line.

    An error is one JSON object on standard output with ``--json``.
    """
    try:
        code = _run(get_command(app), [*argv])
        sys.stdout.flush()
    except BrokenPipeError:
        code = READER_GONE
    if code == READER_GONE:  # discard the rest of the buffer
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run(command: Any, argv: list[str]) -> int:
    try:
        _reject_contradictions(command, argv)
        # A command ends by returning, or by an exit code.
        result = command.main(args=argv, prog_name="loradar", standalone_mode=False)
    except LoradarError as error:
        return _report(error, is_json="--json" in argv)
    except SystemExit as stopped:  # typer's answer to a reader that has gone is 1, as if the result was wrong
        if isinstance(stopped.__context__, BrokenPipeError):
            return READER_GONE
        raise
    except typer.Abort:
        typer.echo("Aborted.", err=True)
        return INTERRUPTED
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed already
            return 0
        usage = _describe_usage(error, argv)
        if usage is None:
            raise
        return _report(InvalidRequest(usage), is_json="--json" in argv)
    return result if isinstance(result, int) else 0


def _report(error: LoradarError, *, is_json: bool) -> int:
    if is_json:
        typer.echo(json.dumps(error.to_dict()))
    else:
        typer.echo(f"Error: {error.message}", err=True)
    return error.exit_code


def _describe_usage(error: Exception, argv: Sequence[str]) -> str | None:
    """Return in one line what is wrong with the arguments, with the way out; ``None`` if the error is another one."""
    message = getattr(error, "format_message", None)
    if message is None:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "loradar"
    text = " ".join(message().split()).rstrip(".")
    given = [*_list_given(error.param, argv)] if getattr(error, "param", None) else []  # type: ignore[attr-defined]
    value = given[-1].partition(" ")[2] if given else ""
    if value and value not in text:  # pydantic's messages lack it
        text += f", not {value!r}"
    return f"{text}{'' if text.endswith('?') else '.'} See: {command} --help"


def _reject_contradictions(command: Any, argv: Sequence[str]) -> None:
    """Reject an option that is given twice with different values, and a switch that is both on and off.

    The parser would take the last one silently.

    Raises:
        InvalidRequest: Naming both.
    """
    words = [*argv[: argv.index("--")]] if "--" in argv else [*argv]
    while getattr(command, "commands", None) and words:
        found = command.commands.get(words.pop(0))
        command = found or command
    for option in (one for one in command.params if one.param_type_name == "option" and not one.multiple):
        given = [*_list_given(option, words)]
        if len({*given}) > 1:
            first, second = [*dict.fromkeys(given)][:2]
            message = f"{first} and {second} contradict each other: give one of them."
            raise InvalidRequest(message, given=[first, second])


def _list_given(option: Any, words: Sequence[str]) -> Iterator[str]:
    """Yield an option as it is given each time, with its value, or as the switch."""
    names = {*option.opts, *option.secondary_opts}
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            is_switch = getattr(option, "is_flag", False)
            follows = words[at + 1] if at + 1 < len(words) else ""
            yield name if is_switch else f"{name} {value if equals else follows}"
