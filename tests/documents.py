"""Read and run the code blocks of the documents.

A block runs, and prints what follows it, unless an HTML comment in the line above says otherwise::

    <!-- not run: it needs a hub -->          with the reason
    <!-- run by tests/test_checking.py -->    by a test of its own, which names the page

A comment ``<!-- every block: run by tests/test_x.py -->`` at the top of a page holds for all its blocks. The blocks of
a page run in order, in one folder and one Python session. A ``text`` block is what the block before it prints; in a
``console`` block what a ``$ command`` prints follows it.

``python tests/documents.py PAGE...`` writes into pages what their blocks print now; each page runs in an empty folder.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

from loradar.cli import main

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLE_HOST = "localhost:8000"

DIRECTIVE = re.compile(r"\{[\w-]+\}.*")
"""The language of a block that Sphinx reads, such as ``{toctree}``."""

MARKER = re.compile(r"<!-- (?:every block: )?(not run|run by):? (.+?) -->")
WHOLE_PAGE = re.compile(r"<!-- every block: .+? -->")
SHELL = set("|<>;$\\")
"""Characters by which a command is one for bash; any other of loradar runs in this process."""


@dataclass(frozen=True)
class Block:
    """A code block: its first line and the one after its last, counted from 0, and its marker if it has one."""

    page: Path
    start: int
    end: int
    language: str
    code: str
    marker: tuple[str, str] | None

    @property
    def place(self):
        """The page and the line, for the message of a failure."""
        return f"{self.page.relative_to(ROOT)}:{self.start + 1}"


def read_blocks(page):
    """Return the code blocks of a page in order, but those of Sphinx."""
    text = page.read_text("utf-8")
    lines, whole = text.split("\n"), WHOLE_PAGE.search(text)
    found = []
    for token in MarkdownIt().parse(text):
        if token.type not in {"fence", "code_block"} or DIRECTIVE.fullmatch(token.info):
            continue
        start, end = token.map
        marker = (start and MARKER.fullmatch(lines[start - 1].strip())) or (whole and MARKER.search(whole[0]))
        language = token.info if token.type == "fence" else "indented"
        found.append(Block(page, start, end, language, token.content, (marker[1], marker[2]) if marker else None))
    return found


def rerun(page, host=EXAMPLE_HOST):
    """Run the blocks of a page, and return the page with what they print in place of what it says.

    Args:
        page: The page.
        host: Host and port of a running service, for blocks with ``localhost:8000``.
    """
    lines, names, edits = page.read_text("utf-8").split("\n"), {}, []
    before = printed = None
    for block in (block for block in read_blocks(page) if not block.marker):
        if block.language == "text":
            edits.append((block.start, block.end, f"```text\n{printed}```"))
            before = printed = None
            continue
        if printed:  # and no block says so
            edits.append((before.end, before.end, f"```text\n{printed}```"))
        before, printed = block, RUNNERS[block.language](block, block.code.replace(EXAMPLE_HOST, host), names)
        if block.language == "console":
            edits.append((block.start, block.end, f"```console\n{printed.replace(host, EXAMPLE_HOST)}```"))
            printed = None
    if printed:
        edits.append((before.end, before.end, f"```text\n{printed}```"))
    for start, end, text in reversed(edits):
        lines[start:end] = text.split("\n")
    return "\n".join(lines)


def run_python(block, code, names):
    """Run a block of Python, and return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, block.place, "exec"), names)  # noqa: S102 - our own documents
    return printed.getvalue()


def run_commands(_block, code, _names):
    """Run each ``$ command``, and return the block with what they print."""
    commands = re.findall(r"^\$ ((?:[^\n]*\\\n)*[^\n]*)\n", code, re.MULTILINE)
    return "".join(f"$ {command}\n{run_command(command)}" for command in commands)


def run_command(command):
    """Run a command, and return what it prints."""
    if command.startswith("loradar ") and not set(command) & SHELL:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), contextlib.suppress(SystemExit):
            main(shlex.split(command)[1:])
        return printed.getvalue()
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(  # noqa: S603 - our own documents
        [str(shutil.which("bash")), "-c", command],
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def parse(block, code, _names):
    """Parse a block of data."""
    PARSERS[block.language](code)


PARSERS = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
RUNNERS = {"python": run_python, "console": run_commands, **dict.fromkeys(PARSERS, parse)}

if __name__ == "__main__":
    for path in [Path(argument).resolve() for argument in sys.argv[1:]]:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # blocks save adapters where they run
            path.write_text(rerun(path), "utf-8")
