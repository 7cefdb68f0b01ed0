"""docs/registry/contributing-mappings.md: every command prints what it says, from the first token to the last."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from patience import patience

from loradar.api import running
from loradar.cli.options import TOKEN_VARIABLE

TEXT = (Path(__file__).parent.parent / "docs/registry/contributing-mappings.md").read_text("utf-8")
EXAMPLE_HOST = "localhost:8000"
EXAMPLE = "waiting.py"
BASH = shutil.which("bash")

TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?")
"""What differs whenever it is done."""


README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


def test_the_variable_is_documented():
    """And where to read on."""
    assert TOKEN_VARIABLE in README
    assert "docs/registry/contributing-mappings.md" in README


def files():
    """Return (name, text) of each file the reader is told to write, and of the example in Python."""
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    return [*re.findall(r"`(\w+\.toml)`:\n```toml\n(.*?)```", TEXT, re.DOTALL), (EXAMPLE, example)]


def commands():
    """Return (command, what it prints) of every command, in order."""
    blocks = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    (output,) = re.findall(r"```\n```text\n(.*?)```", TEXT, re.DOTALL)
    blocks.append(f"$ python {EXAMPLE}\n{output}")
    entries = [entry for block in blocks for entry in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    found = (re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*\n)(.*)", entry, re.DOTALL) for entry in entries)
    return [(match[1], match[2]) for match in found if match]


def printed(folder, url):
    """Run all commands in one shell, in a folder, and return what each printed."""
    end = "--- end of a command ---"
    lines = [f"{command}echo '{end}'\n".replace(EXAMPLE_HOST, url.partition("//")[2]) for command, _ in commands()]
    paths = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": paths, "HF_HUB_OFFLINE": "1"}
    environment.pop(TOKEN_VARIABLE, None)
    done = subprocess.run(  # noqa: S603 - our own document
        [str(BASH)],
        input="exec 2>&1\n" + "".join(lines),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=patience(),
        check=False,
    )
    told = done.stdout.replace(url.partition("//")[2], EXAMPLE_HOST).split(f"{end}\n")
    assert len(told) == len(lines) + 1, done.stdout
    return told[:-1]


@pytest.mark.skipif(
    "CI" not in os.environ and not (BASH and shutil.which("curl")), reason="the document is for bash and curl"
)
def test_the_commands_of_the_document_print_what_it_says(seeded_settings, tmp_path, monkeypatch):
    """One after the other, at one registry, as a contributor, a reviewer and over REST."""
    # The service has the same registry: it checks what it is sent, and leaves to the commands what is theirs.
    monkeypatch.setattr("loradar.api.workers.PAUSE", 3600.0)
    with running(seeded_settings) as url:
        for name, text in files():
            (tmp_path / name).write_text(text.replace(f"http://{EXAMPLE_HOST}", url), "utf-8")
        told = printed(tmp_path, url)
    assert len(told) > 10
    for (command, expected), found in zip(commands(), told, strict=True):
        assert TIME.sub("TIME", found) == TIME.sub("TIME", expected), command
