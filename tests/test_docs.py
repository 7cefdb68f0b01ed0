"""The documents: their code blocks run and print what follows, and all that a user can set or call is in them."""

import contextlib
import dataclasses
import json
import os
import re
import runpy
import shlex
import shutil

import pytest
import typer
from documents import DOCUMENTS, EXAMPLE_HOST, ROOT, RUNNERS, read_blocks, rerun

from loradar import IA3Config, LoraConfig, PeftModel, settings
from loradar.api import create_app, running
from loradar.cli import app
from loradar.snippets import list_tools

README = (ROOT / "README.md").read_text("utf-8")
LANGUAGES = {*RUNNERS, "text", "sh"}
RUN = [page for page in DOCUMENTS if any(not block.marker for block in read_blocks(page))]


def name_of(page):
    """Return the path of a page."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_every_block_prints_what_follows(page, tmp_path, monkeypatch, read_settings):
    """`python tests/documents.py PAGE` writes what it prints now."""
    monkeypatch.chdir(tmp_path)
    text, host = page.read_text("utf-8"), EXAMPLE_HOST
    if "$ curl" in text and "CI" not in os.environ and not shutil.which("curl"):
        pytest.skip("the page is for curl")
    with contextlib.ExitStack() as stack:
        if any(EXAMPLE_HOST in block.code for block in read_blocks(page) if not block.marker):
            host = stack.enter_context(running(read_settings)).partition("//")[2]
        assert rerun(page, host) == text


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_every_block_is_held_to_something(page):
    """It is fenced, names its language, and runs here or says where it runs or why it does not."""
    for block in read_blocks(page):
        kind, detail = block.marker or ("", "")
        assert block.language in LANGUAGES, f"{block.place}: the language is {block.language!r}"
        assert block.marker or block.language in {*RUNNERS, "text"}, (
            f"{block.place} needs a marker (tests/documents.py)"
        )
        if kind == "run by":
            assert page.name in (ROOT / detail).read_text("utf-8"), f"{block.place}: {detail} does not name the page"
        elif kind:
            assert len(detail.split()) > 1, f"{block.place}: {detail!r} is no reason"
            check_unrun(block)


def check_unrun(block):
    """Check of a block that does not run that its Python compiles, and that its commands and options exist."""
    if block.language == "python":
        compile(block.code, block.place, "exec")
    lines = re.findall(r"^(?:\$ )?(?:[\w./]*/)?loradar ([^\n|>]*)", block.code, re.MULTILINE)
    for line in lines if block.language in {"console", "sh"} else ():
        command, words = typer.main.get_command(app), shlex.split(line, comments=True)
        while getattr(command, "commands", None) and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{block.place}: there is no command {line!r}"
            command = command.commands[words.pop(0)]
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert not [word for word in words if word.startswith("--") and word.partition("=")[0] not in options], line


def test_the_reference_of_the_command_line_is_what_help_prints():
    """`python docs/scripts/cli_reference.py` writes it; every command, argument and option has a line."""
    page = runpy.run_path(str(ROOT / "docs/scripts/cli_reference.py"))["write"]()
    assert (ROOT / "docs/reference/cli.md").read_text("utf-8") == page
    assert not re.findall(r"^\| `[^`]*` \|\s*\|$", page, re.MULTILINE), "an option without a description"
    assert not re.findall(r"^## .*\n\n", page, re.MULTILINE), "a command without a description"


def test_every_tool_of_snippets_is_documented():
    """With its form and methods, in docs/training/snippets.md."""
    text = (ROOT / "docs/training/snippets.md").read_text("utf-8")
    forms = {"python": "Python", "yaml": "YAML", "shell": "shell"}
    for tool in list_tools():
        assert f"| `{tool.name}` | {forms[tool.form]} | {', '.join(tool.methods)} |" in text


def test_every_setting_is_documented():
    """A variable nobody knows of is no setting, and one that nothing reads is none either; the defaults are right."""
    rows = re.findall(
        r"^\| `(LORADAR_\w+)` \| ([^|]*) \|", (ROOT / "docs/service/settings.md").read_text("utf-8"), re.MULTILINE
    )
    folders = ("core", "cli", "client", "crawl", "sandbox", "discovery", "registry", "adapters", "api", "migrations")
    texts = [path.read_text("utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert {name for name, _ in rows} == {name for text in texts for name in re.findall(r"\bLORADAR_[A-Z_]+\b", text)}
    stated = {name: default.strip("`") for name, default in rows}
    default = settings.Settings.from_environment({})
    assert stated["LORADAR_WORKERS"] == str(default.workers)
    assert stated["LORADAR_LOG_FORMAT"] == default.log_format
    assert stated["LORADAR_LOG_LEVEL"] == default.log_level
    limits = dataclasses.asdict(default.limits)
    assert stated["LORADAR_LIMITS"] == ",".join(f"{name}={number}" for name, number in limits.items())


def test_every_limit_is_documented():
    """With its default, in docs/service/rest.md."""
    text = (ROOT / "docs/service/rest.md").read_text("utf-8")
    for field in dataclasses.fields(settings.RequestLimits):
        assert f"| `{field.name}` | {field.default} |" in text


def test_every_route_is_documented():
    """The table of docs/service/rest.md is complete, whatever the method, and has nothing that is not served."""
    documented = re.findall(r"\| `([A-Z]+) (/[^`]*)` \|", (ROOT / "docs/service/rest.md").read_text("utf-8"))
    paths = create_app().openapi()["paths"]
    assert sorted(documented) == sorted((method.upper(), path) for path in paths for method in paths[path])


def test_every_page_is_documented():
    """With its JSON twin, in docs/service/rest.md."""
    table = (ROOT / "docs/service/rest.md").read_text("utf-8").partition("| page | JSON twin |")[2].partition("\n\n")[0]
    assert dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", table, re.MULTILINE)) == create_app().state.twins


def test_the_example_error_is_what_the_service_answers(registry):
    """docs/service/rest.md shows a real one."""
    (example,) = [block.code for block in read_blocks(ROOT / "docs/service/rest.md") if block.language == "json"]
    with pytest.raises(Exception, match="lama") as caught:
        registry.lookup("lama")
    assert json.loads(example) == caught.value.to_dict()


def test_every_make_target_named_exists():
    """Documents name no target that is not there."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {name for path in DOCUMENTS for name in re.findall(r"`make ([a-z]+)`", path.read_text("utf-8"))}
    assert named <= targets
    assert {"demo", "test", "lint", "types", "serve", "catalog", "bench"} <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_file_named_exists(path):
    """Links and `folder/file.py` in the text lead somewhere."""
    text = path.read_text("utf-8")
    links = re.findall(r"\]\(([^):]+)\)", text)
    folders = "core|cli|client|sandbox|discovery|registry|adapters|api|migrations|data|tests|bench|docs"
    files = re.findall(rf"`((?:{folders})/[\w./-]+)`", text)
    missing = [name for name in links if not (path.parent / name.partition("#")[0]).exists()]
    missing += [name for name in files if "VERSION" not in name and not (ROOT / name).exists()]
    assert not missing


def test_every_method_of_an_adapted_model_is_documented():
    """docs/training/adapters.md names what a PeftModel can do, and every field of both configurations."""
    text = (ROOT / "docs/training/adapters.md").read_text("utf-8")
    methods = {name for name, value in vars(PeftModel).items() if callable(value) or isinstance(value, classmethod)}
    fields = {field.name for config in (LoraConfig, IA3Config) for field in dataclasses.fields(config)}
    told = {name for name in methods | fields if not name.startswith("_")} - UNTOLD
    assert not [name for name in sorted(told) if f"`{name}" not in text and f".{name}(" not in text]


UNTOLD = {"add_prepared", "adapt", "blank", "get_base_model", "get_nb_trainable_parameters", "hold", "peft_class"}
"""What is for loradar itself, and what needs no words."""
