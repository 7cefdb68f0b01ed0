"""Write the reference of the command line from the commands themselves."""

import re
from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from loradar.cli import app as commands


class CommandReference(SphinxDirective):
    """``.. command-reference::``: a section for every command, with its arguments and options."""

    def run(self) -> list[nodes.Node]:
        """Return the sections, in the order of ``loradar --help``."""
        root = typer.main.get_command(commands)
        text = "\n".join(describe(name, command) for name, command in list_commands(root, "loradar"))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def list_commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with its full name; a group may do so too."""
    inner = getattr(command, "commands", None)
    if not command.hidden and (inner is None or (command.invoke_without_command and name != "loradar")):
        yield name, command
    for word, each in (inner or {}).items():
        yield from list_commands(each, f"{name} {word}")


def describe(name: str, command: Any) -> str:
    """Return the section of a command as reStructuredText."""
    shown = [parameter for parameter in command.params if not parameter.hidden]
    arguments = [parameter for parameter in shown if isinstance(parameter, typer.core.TyperArgument)]
    options = [parameter for parameter in shown if parameter not in arguments]
    usage = " ".join([name, *map(usage_of, arguments), *(["[OPTIONS]"] if options else [])])
    lines = [name, "-" * len(name), "", f".. program:: {name}", "", f"``{usage}``", "", *paragraphs(command.help), ""]
    lines += [f"- ``{metavar_of(argument)}``: {escaped(argument.help)}" for argument in arguments]
    for option in options:
        names = ", ".join(f"{each}{value_of(option)}" for each in (*option.opts, *option.secondary_opts))
        lines += ["", f".. option:: {names}", "", f"   {escaped(option.help)}{default_of(option)}"]
    return "\n".join([*lines, ""])


def paragraphs(text: str | None) -> Iterator[str]:
    """Yield the lines of a command's help, escaped."""
    yield from map(escaped, (text or "").split("\n"))


def escaped(text: str | None) -> str:
    """Return a text whose code stands between double backticks, and nothing else of which is markup."""
    parts = re.split(r"`([^`]+)`", " ".join((text or "").split()))
    return "".join(f"``{part}``" if n % 2 else re.sub(r"([\\*_|`])", r"\\\1", part) for n, part in enumerate(parts))


def metavar_of(argument: Any) -> str:
    """Return the name of an argument, as ``--help`` writes it."""
    return str(argument.metavar or argument.name).upper()


def usage_of(argument: Any) -> str:
    """Return an argument in a line of usage: in brackets if it may be left out, with dots if it repeats."""
    name = metavar_of(argument) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def value_of(option: Any) -> str:
    """Return what stands behind an option, such as ``" NUMBER"``; nothing for a switch."""
    if option.is_flag:
        return ""
    kind = getattr(option.type_descriptor.annotation, "__name__", "")
    return f" {option.metavar or {'int': 'NUMBER', 'float': 'NUMBER', 'Path': 'FILE'}.get(kind, 'TEXT')}"


def default_of(option: Any) -> str:
    """Return the sentence about the default of an option, if it has one that says anything."""
    value = option.default
    is_said = option.show_default and not callable(value) and value not in (None, False, True, "", ()) and value != []
    return f" Default: ``{value}``." if is_said else ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("command-reference", CommandReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
