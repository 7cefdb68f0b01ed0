"""Write docs/reference/cli.md: every command with its arguments and options, as `--help` has them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from loradar.cli import app

PAGE = Path(__file__).parents[1] / "reference" / "cli.md"
HEAD = """\
# The command line
Every command of `loradar`, written by `docs/scripts/cli_reference.py` from what `--help` prints.

## Conventions
- `-h` and `--help` describe a command; `--json` prints one JSON document, of an error too.
- An error is one line on standard error: what is wrong, the value and the way out.
- Options that contradict each other are rejected: `--approve --reject`, or one option with two values.
- Tables and trees fit the terminal and have its colours; `NO_COLOR=1` prints none, and neither does a pipe.

| exit code | meaning |
| --- | --- |
| 0 | the command did its work |
| 1 | what it examined is wrong: an unsound adapter or configuration, dead mappings, failed checks, a changed log |
| 2 | an error, such as an unknown name or an invalid option |
| 130 | interrupted by Ctrl-C |
| 141 | the reader of its output has gone, as with `head -1` |

## Completion
`loradar --install-completion` installs completion for the shell in use (bash, zsh, fish, PowerShell), and
`loradar --show-completion` prints its script. Commands, options, presets and tools are completed.

"""


def write() -> str:
    """Return the page."""
    return HEAD + "\n".join(_describe(get_command(app), "loradar")) + "\n"


def _describe(command: Any, path: str) -> Iterator[str]:
    """Yield the lines of a command and those below it."""
    for name, below in sorted(getattr(command, "commands", {}).items()):
        if getattr(below, "commands", None):
            yield from _describe(below, f"{path} {name}")
            continue
        yield f"## `{path} {name}`"
        yield " ".join((below.help or "").split())
        yield ""
        if rows := [_row(parameter) for parameter in below.params if parameter.name != "help"]:
            yield from ("| argument or option | meaning |", "| --- | --- |", *rows, "")


def _row(parameter: Any) -> str:
    """Return the row of an argument or an option."""
    names = [*parameter.opts, *parameter.secondary_opts]
    shown = parameter.metavar or parameter.name.upper() if parameter.param_type_name == "argument" else ", ".join(names)
    shown += "..." if parameter.param_type_name == "argument" and parameter.nargs == -1 else ""
    help_text = " ".join((parameter.help or "").split()).replace("|", r"\|")
    required = " Required." if parameter.required and parameter.param_type_name == "option" else ""
    return f"| `{shown}` | {help_text}{required} |".replace("`FILE|JSON|-`", r"`FILE\|JSON\|-`")


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text("utf-8") != write())
    PAGE.write_text(write(), "utf-8")
