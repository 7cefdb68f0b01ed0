"""The layout: the wheel holds every file once, and files stay readable. `make lint` checks which way imports point."""

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FOLDERS = (
    "core",
    "cli",
    "client",
    "crawl",
    "sandbox",
    "discovery",
    "registry",
    "adapters",
    "api",
    "migrations",
    "data",
)
SOURCES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def run(*command, folder):
    """Run a Python process and return it."""
    return subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - ours


def tree(path):
    """Return the syntax tree of a file."""
    return ast.parse((ROOT / path).read_text("utf-8"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, built as a user's installer would build it, from a copy: setuptools packs what an old build left."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "registry.sqlite3*"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source), folder=out)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_loradar_and_nothing_else(wheel):
    """A generic `registry` or `api` in site-packages would collide with users' own."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"loradar", f"loradar-{PROJECT['project']['version']}.dist-info"}
    assert {"loradar/py.typed", "loradar/migrations/script.py.mako"} <= set(names)


def test_the_wheel_holds_every_source_and_every_fact(wheel):
    """A folder or file forgotten in pyproject would be missing for users only."""
    held = set(zipfile.ZipFile(wheel).namelist())
    facts = [
        path.relative_to(ROOT) for path in (ROOT / "data").rglob("*") if path.suffix in (".toml", ".json", ".jinja")
    ]
    files = [path for name in ("static", "templates") for path in (ROOT / "api/pages" / name).rglob("*")]
    facts += [path.relative_to(ROOT) for path in files if path.is_file()]
    assert facts
    assert {f"loradar/{path.as_posix().removeprefix('core/')}" for path in (*SOURCES, *facts)} <= held


def test_the_wheel_works_on_its_own(wheel, tmp_path, home):
    """Unpacked elsewhere, two commands give the recommended targets of a checkpoint; nothing is made before a write."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import loradar; assert loradar.__file__.startswith({str(tmp_path)!r})
print(loradar.lookup('Qwen/Qwen3-8B', preset='recommended').spec.target_modules)
from pathlib import Path; assert not Path({str(home)!r}).exists(), 'a lookup made it'
assert 'sqlalchemy' not in sys.modules, 'a lookup took the slow way'
from loradar.registry import Registry
with Registry.open() as registry:
    registry.make()
    assert Path({str(home)!r}, 'registry.sqlite3').stat().st_size > 1 << 20
"""
    done = run("-c", code, folder=tmp_path)
    assert done.stdout.startswith("('q_proj', 'k_proj'"), done.stderr


@pytest.mark.parametrize("folder", ["registry", "api", "discovery", "adapters", "cli", "client", "crawl", "sandbox"])
def test_a_folder_is_not_importable_by_its_bare_name(folder):
    """From the root of the repository that would load every file a second time."""
    assert "ImportError" in run("-c", f"import {folder}", folder=ROOT).stderr


def test_no_file_is_loaded_twice():
    """One file, one module, also after the command line has reached everything."""
    code = (
        "import sys, loradar, loradar.cli, loradar.api, loradar.adapters\n"
        "files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)]\n"
        f"ours = [f for f in files if f.startswith({str(ROOT)!r}) and '.venv' not in f]\n"
        "assert ours and len(ours) == len(set(ours)), sorted(ours)\n"
    )
    done = run("-c", code, folder=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_files_stay_readable(path):
    """A file over 400 lines, or a function body over 40, is where a reader gets lost."""
    assert (ROOT / path).read_text("utf-8").count("\n") <= 400
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "versions" not in path.parts:
            code = node.body[1:] if ast.get_docstring(node) else node.body
            assert not code or (node.end_lineno or 0) - code[0].lineno < 40, node.name


def test_the_top_level_has_its_folders_alone():
    """What a block of a document saves belongs into the folder of its test."""
    made = ("build", "dist", "site", "__pycache__")
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    found = {name for name in folders if name not in made and not name.endswith(".egg-info")}
    assert found == {*FOLDERS, "bench", "data-package", "deploy", "docs", "tests"}


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCES}), ids=str)
def test_a_folder_has_at_most_sixteen_files(folder):
    """A reader who opens a folder sees one subject."""
    assert len(list((ROOT / folder).glob("*.py"))) <= 16


def test_a_folder_of_templates_has_at_most_sixteen_files():
    """Those of pages are sorted as the modules that render them."""
    templates = ROOT / "api/pages/templates"
    folders = [templates, *(path for path in templates.rglob("*") if path.is_dir())]
    assert len(folders) > 1
    assert [folder for folder in folders if sum(path.is_file() for path in folder.iterdir()) > 16] == []


def test_every_package_is_listed():
    """A new folder with code has to be in pyproject, or the wheel lacks it."""
    folders = PROJECT["tool"]["setuptools"]["package-dir"]
    assert set(folders.values()) == {path.parent.as_posix() for path in SOURCES}
    assert set(folders) == set(PROJECT["tool"]["setuptools"]["packages"])


def draw_tree():
    """Return the folders of code, each with the first line of its ``__init__.py``."""
    drawn = []
    for path in (source.parent for source in SOURCES if source.name == "__init__.py"):
        docstring = ast.get_docstring(ast.parse((ROOT / path / "__init__.py").read_text("utf-8")))
        subject = docstring.splitlines()[0].replace("``", "`").rstrip(".")
        drawn.append(f"{'  ' * (len(path.parts) - 1) + path.name + '/':<20} {subject}")
    return "\n".join(drawn)


def test_the_tree_is_drawn_as_it_is():
    """So that a folder that is new, moved or about something else is so in CONTRIBUTING too."""
    assert f"```text\n{draw_tree()}\n```" in (ROOT / "CONTRIBUTING.md").read_text("utf-8")


if __name__ == "__main__":
    sys.stdout.write(draw_tree())
