"""What the documents say is so: examples run, and nothing a user can set or call is left out."""

import contextlib
import dataclasses
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from loradar import IA3Config, LoraConfig, PeftModel, settings
from loradar.api import create_app
from loradar.cli import main
from loradar.snippets import list_tools

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language, text=README):
    """Return the code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.usefixtures("read_settings")
def test_the_readme_example_prints_what_it_says():
    """Word for word."""
    (code,), (expected,) = blocks("python"), blocks("text")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own README
    assert printed.getvalue() == expected


@pytest.mark.usefixtures("read_settings")
def test_the_readme_commands_print_what_it_says(capsys):
    """Every `$ loradar ...` and what follows it."""
    for entry in blocks("console")[0].split("$ ")[1:]:
        command, _, expected = entry.partition("\n")
        with pytest.raises(SystemExit):
            main(shlex.split(command)[1:])
        printed = capsys.readouterr()
        assert printed.out + printed.err == expected


@pytest.mark.usefixtures("read_settings")
def test_the_snippet_is_what_the_document_says(capsys):
    """The example of docs/training/snippets.md, word for word, and every tool with its form and methods."""
    text = (ROOT / "docs/training/snippets.md").read_text("utf-8")
    (entry,) = blocks("console", text)
    command, _, expected = entry.removeprefix("$ ").partition("\n")
    with pytest.raises(SystemExit):
        main(shlex.split(command)[1:])
    assert capsys.readouterr().out == expected
    forms = {"python": "Python", "yaml": "YAML", "shell": "shell"}
    for tool in list_tools():
        assert f"| `{tool.name}` | {forms[tool.form]} | {', '.join(tool.methods)} |" in text


@pytest.mark.usefixtures("read_settings")
def test_the_planned_memory_is_what_the_document_says(capsys):
    """The example of docs/training/plan.md, word for word."""
    (entry,) = blocks("console", (ROOT / "docs/training/plan.md").read_text("utf-8"))
    command, _, expected = entry.removeprefix("$ ").partition("\n")
    with pytest.raises(SystemExit):
        main(shlex.split(command)[1:])
    assert capsys.readouterr().out == expected


VARIABLES = [value for name, value in vars(settings).items() if name.endswith("_VARIABLE")]


@pytest.mark.parametrize("name", VARIABLES)
def test_every_setting_is_documented(name):
    """A variable nobody knows of is no setting."""
    assert name in README


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


def test_the_example_error_is_what_the_service_answers(registry):
    """docs/service/rest.md shows a real one."""
    (example,) = blocks("json", (ROOT / "docs/service/rest.md").read_text("utf-8"))
    with pytest.raises(Exception, match="lama") as caught:
        registry.lookup("lama")
    assert json.loads(example) == caught.value.to_dict()


def test_every_make_target_named_exists():
    """Documents name no target that is not there."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {name for path in DOCUMENTS for name in re.findall(r"`make ([a-z]+)`", path.read_text("utf-8"))}
    assert named <= targets
    assert {"demo", "test", "lint", "types", "serve", "catalog", "bench"} <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_named_exists(path):
    """Links and `folder/file.py` in the text lead somewhere."""
    text = path.read_text("utf-8")
    links = re.findall(r"\]\(([^):]+)\)", text)
    folders = "core|cli|client|sandbox|discovery|registry|adapters|api|migrations|data|tests|bench|docs"
    files = re.findall(rf"`((?:{folders})/[\w./-]+)`", text)
    missing = [name for name in links if not (path.parent / name.partition("#")[0]).exists()]
    missing += [name for name in files if "VERSION" not in name and not (ROOT / name).exists()]
    assert not missing


@pytest.mark.usefixtures("read_settings")
def test_the_peft_examples_print_what_they_say():
    """docs/training/peft-defaults.md, block by block."""
    text = (ROOT / "docs/training/peft-defaults.md").read_text("utf-8")
    for code, expected in zip(blocks("python", text), blocks("text", text), strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "peft-defaults.md", "exec"), {})  # noqa: S102 - our own document
        assert printed.getvalue() == expected


@pytest.mark.usefixtures("read_settings")
def test_the_adapter_examples_print_what_they_say(tmp_path, monkeypatch):
    """docs/training/adapters.md, one block after the other; what prints nothing talks to the hub."""
    text = (ROOT / "docs/training/adapters.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    for code, expected in examples:
        if not expected:
            assert "hub" in code
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "adapters.md", "exec"), names)  # noqa: S102 - our own document
        assert printed.getvalue() == expected
    assert len(names) > len(examples)


@pytest.mark.usefixtures("read_settings")
def test_the_importance_example_prints_what_it_says():
    """docs/training/importance.md, word for word."""
    text = (ROOT / "docs/training/importance.md").read_text("utf-8")
    (code,), (expected,) = blocks("python", text), blocks("text", text)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "importance.md", "exec"), {})  # noqa: S102 - our own document
    assert printed.getvalue() == expected


def test_every_method_of_an_adapted_model_is_documented():
    """docs/training/adapters.md names what a PeftModel can do, and every field of both configurations."""
    text = (ROOT / "docs/training/adapters.md").read_text("utf-8")
    methods = {name for name, value in vars(PeftModel).items() if callable(value) or isinstance(value, classmethod)}
    fields = {field.name for config in (LoraConfig, IA3Config) for field in dataclasses.fields(config)}
    told = {name for name in methods | fields if not name.startswith("_")} - UNTOLD
    assert not [name for name in sorted(told) if f"`{name}" not in text and f".{name}(" not in text]


UNTOLD = {"add_prepared", "adapt", "blank", "get_base_model", "get_nb_trainable_parameters", "hold", "peft_class"}
"""What is for loradar itself, and what needs no words."""
