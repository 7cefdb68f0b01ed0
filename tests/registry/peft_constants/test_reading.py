"""Reading PEFT's constants: the real file against the real module, and every construct by itself."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from loradar.errors import ConstantsUnreadable, InvalidRequest, MissingExtra
from loradar.registry import PeftConstants, load_constants, read_constants, write_constants_json
from loradar.registry.peft_constants import reading as constants_module
from loradar.registry.peft_constants.reading import peft_type_of

LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
BOFT = "TRANSFORMERS_MODELS_TO_BOFT_TARGET_MODULES_MAPPING"
POSTPROCESS = "TRANSFORMERS_MODELS_TO_PREFIX_TUNING_POSTPROCESS_MAPPING"


def plain(value):
    """Return a value of the real module in the JSON form it is read into."""
    if callable(value) and hasattr(value, "__name__"):
        return {"function": value.__name__}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set):
        return sorted(value)
    return {"expression": str(value)} if type(value).__name__ == "dtype" else value


@pytest.fixture(scope="module")
def installed() -> PeftConstants:
    """What is read from the installed package."""
    return read_constants()


def read(tmp_path: Path, source: str) -> PeftConstants:
    """Return what is read from a file with this source."""
    path = tmp_path / "constants.py"
    path.write_text(source)
    return read_constants(path, "1.0")


def test_every_constant_is_what_the_real_module_has(installed):
    """Nothing is missing, invented or changed, compared with importing the module."""
    real = import_module("peft.utils.constants")
    expected = {name: plain(value) for name, value in vars(real).items() if name.isupper()}
    found = {**installed.tables, **installed.values}
    conditional = {entry.name for entry in installed.conditional}
    assert found.keys() == expected.keys()
    for name in found.keys() - conditional:
        assert found[name] == expected[name], name


def test_conditional_entries_hold_every_entry_the_real_module_may_have(installed):
    """Which branches ran depends on the transformers installed; what they set is among what was read."""
    real = import_module("peft.utils.constants")
    read_entries = {entry.key: entry.value for entry in installed.conditional if entry.name == POSTPROCESS}
    assert read_entries.keys() == {"bloom", "gpt_bigcode"}
    assert plain(getattr(real, POSTPROCESS)).items() <= read_entries.items()


def test_every_table_of_targets_is_for_a_peft_type(installed):
    """The PEFT type told from a table's name is one PEFT has."""
    real = {member.value for member in import_module("peft").PeftType}
    types = {name: peft_type_of(name) for name in installed.tables if name.endswith("_TARGET_MODULES_MAPPING")}
    assert set(types.values()) <= real
    assert types["TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING"] == "LN_TUNING"
    assert peft_type_of(POSTPROCESS) is None


def test_the_copy_in_data_is_what_the_installed_package_has(installed):
    """The JSON that seeds a registry is the file the documented command writes."""
    assert load_constants(version=installed.version) == installed


def test_the_copy_in_data_is_written_byte_for_byte(installed, tmp_path):
    """Writing the facts again gives the very file that is in the repository."""
    write_constants_json(installed, tmp_path / "again.json")
    kept = Path(import_module("loradar.data").__path__[0], "constants", f"peft-{installed.version}.json")
    assert (tmp_path / "again.json").read_bytes() == kept.read_bytes()


def test_reading_imports_neither_peft_nor_torch():
    """The installed package is found and read without running any of it."""
    code = (
        "import sys; from loradar.registry import read_constants; read_constants();"
        "print([name for name in ('peft', 'torch', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert found.stdout.strip() == "[]"


def test_the_file_is_never_run(tmp_path):
    """Code at the top of the file has no effect."""
    marker = tmp_path / "ran"
    read(tmp_path, f"open({str(marker)!r}, 'w')\n{LORA} = {{}}\n")
    assert not marker.exists()


def test_a_later_copy_starts_over(tmp_path):
    """PEFT copies into C3A's table twice; what was set between the two is gone."""
    source = f"{LORA} = {{'a': ['q']}}\n{BOFT} = {LORA}.copy()\n{BOFT}['b'] = ['x']\n{BOFT} = {LORA}.copy()\n"
    assert read(tmp_path, source).tables[BOFT] == {"a": ["q"]}


def test_a_copy_does_not_follow_its_original(tmp_path):
    """What is set after the copy is in one table only."""
    source = f"{LORA} = {{'a': ['q']}}\n{BOFT} = {LORA}.copy()\n{LORA}['b'] = ['x']\n"
    assert read(tmp_path, source).tables == {LORA: {"a": ["q"], "b": ["x"]}, BOFT: {"a": ["q"]}}


def test_a_second_name_follows_the_first(tmp_path):
    """Two names for one dict see each other's changes, as in Python."""
    source = f"{LORA} = {{'a': ['q']}}\n{BOFT} = {LORA}\n{LORA}['b'] = ['x']\n"
    assert read(tmp_path, source).tables[BOFT] == {"a": ["q"], "b": ["x"]}


def test_values_may_come_from_what_was_read_before(tmp_path):
    """An unpacked table, a named constant and an entry of another table are all known."""
    source = (
        f"QV = ('q', 'v')\n{LORA} = {{'a': QV, 'b': {{'z', 'y'}}, 'c': 1}}\n"
        f"{BOFT}: dict = {{**{LORA}, 'd': {LORA}['a']}}\n"
    )
    assert read(tmp_path, source).tables[BOFT] == {"a": ["q", "v"], "b": ["y", "z"], "c": 1, "d": ["q", "v"]}


def test_branches_are_kept_with_their_conditions(tmp_path):
    """Both sides of an ``if`` are read, neither is believed, and nested conditions are joined."""
    source = (
        f"{LORA} = {{'a': ['q']}}\nif new:\n    {LORA}['b'] = ['x']\n    if newer:\n        {LORA}['c'] = ['y']\n"
        f"else:\n    {LORA}['b'] = ['z']\nif new:\n    LIMIT = 3\n"
    )
    found = read(tmp_path, source)
    assert found.tables[LORA] == {"a": ["q"]}
    assert [(entry.key, entry.value, entry.condition) for entry in found.conditional] == [
        ("b", ["x"], "new"),
        ("c", ["y"], "(new) and (newer)"),
        ("b", ["z"], "not (new)"),
        (None, 3, "new"),
    ]


def test_a_certain_entry_outranks_conditional_ones(tmp_path):
    """Of an entry set both ways only the certain one is offered as a mapping; a copy takes conditions along."""
    source = (
        f"{LORA} = {{'a': ['q']}}\nif new:\n    {LORA}['a'] = ['x']\n    {LORA}['b'] = ['y']\n{BOFT} = {LORA}.copy()\n"
        f"{BOFT}['b'] = ['z']\n"
    )
    found = read(tmp_path, source)
    assert [*found.entries(LORA)] == [("a", ["q"], None), ("b", ["y"], "new")]
    assert [*found.entries(BOFT)] == [("a", ["q"], None), ("b", ["z"], None)]


def test_a_table_made_in_a_branch_is_conditional(tmp_path):
    """A dict that only one branch makes has only conditional entries."""
    found = read(tmp_path, f"if new:\n    {LORA} = {{'a': ['q']}}\n")
    assert found.tables == {LORA: {}}
    assert [*found.entries(LORA)] == [("a", ["q"], "new")]


@pytest.mark.parametrize(
    ("line", "source"),
    [
        (1, f"{LORA} = make()"),
        (1, f"{LORA} = OTHER.copy()"),
        (1, f"{LORA} = {{'a': make()}}"),
        (1, f"{LORA} = {{1: ['q']}}"),
        (1, f"{LORA} = {{'a': [f'{{x}}']}}"),
        (1, f"{LORA}['a'] = ['q']"),
        (2, f"{LORA} = {{}}\n{LORA}.update(a=['q'])"),
        (2, f"{LORA} = {{}}\n{LORA} |= {{'a': ['q']}}"),
        (2, f"{LORA} = {{}}\n{LORA}[name] = ['q']"),
        (2, f"{LORA} = {{}}\nfor name in names:\n    {LORA}[name] = ['q']"),
        (2, f"{LORA} = {{}}\ndel {LORA}['a']"),
        (3, f"{LORA} = {{'a': ['q']}}\nif new:\n    {LORA} = {{'b': ['q']}}"),
        (3, f"{LORA} = {{'a': ['q']}}\n{BOFT} = {{}}\n{BOFT}['b'] = {LORA}['missing']"),
    ],
)
def test_a_table_built_in_another_way_is_refused_with_its_line(tmp_path, line, source):
    """Nothing is guessed and nothing left out in silence."""
    with pytest.raises(ConstantsUnreadable, match=f"line {line}: cannot read") as caught:
        read(tmp_path, source)
    assert caught.value.details["line"] == line


def test_what_is_no_constant_is_passed_over(tmp_path):
    """Loggers, imports, classes and loops of others do not matter; an odd constant keeps its source."""
    source = (
        "import os\nlogger = make()\nclass A: ...\nfor x in y:\n    print(x)\nos.environ['A'] = '1'\n"
        "state['a'] = 1\nSIZE = 2 ** 3\n"
    )
    found = read(tmp_path, source)
    assert (found.tables, found.values) == ({}, {"SIZE": {"expression": "2 ** 3"}})


@pytest.mark.parametrize("content", [b"def (", b"\x00", b"\xff\xfe", b"x = " + b"(" * 5000])
def test_what_is_not_python_is_refused(tmp_path, content):
    """A broken file is one clear error."""
    path = tmp_path / "constants.py"
    path.write_bytes(content)
    with pytest.raises(ConstantsUnreadable, match="is not Python"):
        read_constants(path, "1.0")


def test_a_missing_file_is_named(tmp_path):
    """The path is in the message."""
    with pytest.raises(ConstantsUnreadable, match=r"nowhere\.py"):
        read_constants(tmp_path / "nowhere.py", "1.0")


def test_the_version_is_read_from_the_package_around(tmp_path):
    """A checkout's ``__init__.py`` says which version its constants are of."""
    folder = tmp_path / "peft" / "utils"
    folder.mkdir(parents=True)
    (folder / "constants.py").write_text(f"{LORA} = {{}}\n")
    (folder.parent / "__init__.py").write_text("import nothing\n__version__ = '0.99'\n")
    assert read_constants(folder / "constants.py").version == "0.99"


def test_an_unknown_version_is_asked_for(tmp_path):
    """A lone file without a version is refused, since the source of a fact includes one."""
    (tmp_path / "constants.py").write_text(f"{LORA} = {{}}\n")
    with pytest.raises(ConstantsUnreadable, match="Give the version"):
        read_constants(tmp_path / "constants.py")


@pytest.mark.parametrize("version", ["newest", '0.99"""\nimport os\n"""'])
def test_what_is_no_version_is_refused(tmp_path, version):
    """It stands in the file that the service hands out to be imported."""
    path = tmp_path / "constants.py"
    path.touch()
    with pytest.raises(InvalidRequest, match="Invalid library version"):
        read_constants(path, version)


@pytest.mark.parametrize("version", [None, "0.21.2"])
def test_without_peft_the_extra_is_named(monkeypatch, version):
    """Reading the installed package needs one."""
    monkeypatch.setattr(constants_module, "find_spec", lambda _name: None)
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "0.21.2")
    with pytest.raises(MissingExtra, match=r"loradar\[peft\]"):
        read_constants(version=version)


def test_the_json_form_round_trips(tmp_path):
    """Reading what was written gives the same facts, conditions included."""
    found = read(tmp_path, f"{LORA} = {{'a': ['q'], 'é': '.*x'}}\nif new:\n    {LORA}['b'] = ['x']\nSIZE = 3\n")
    write_constants_json(found, tmp_path / "facts.json")
    assert load_constants(tmp_path / "facts.json") == found
    assert json.loads((tmp_path / "facts.json").read_text())["conditional"][0]["if"] == "new"


def test_empty_facts_are_valid_json(tmp_path):
    """Facts without tables, values or conditions are written and read too."""
    empty = PeftConstants("1.0", {}, {})
    write_constants_json(empty, tmp_path / "facts.json")
    assert load_constants(tmp_path / "facts.json") == empty


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1}'])
def test_a_file_that_is_not_ours_is_refused(tmp_path, content):
    """Bad JSON and foreign JSON are one clear error."""
    (tmp_path / "facts.json").write_text(content)
    with pytest.raises(ConstantsUnreadable, match="constants facts"):
        load_constants(tmp_path / "facts.json")
