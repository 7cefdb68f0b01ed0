"""The error tree."""

import inspect
import subprocess
import sys

import pytest

from loradar import errors
from loradar.errors import LoradarError, MissingExtra, UnknownPreset
from loradar.extras import require
from loradar.similar_names import nearest

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, LoradarError)]

FOUND_WRONG = (errors.AuditLogBroken, errors.SignatureInvalid, errors.SnapshotRejected)
"""What a check found, and no fault of the command."""


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_is_documented_and_has_a_code(error):
    """Programs can tell errors apart by code."""
    assert error.__doc__
    assert error.exit_code == (1 if error in FOUND_WRONG else 2)
    assert 400 <= error.status < 600
    assert sum(other.code == error.code for other in CLASSES) == 1


def test_an_error_has_one_json_shape():
    """Code, message and details."""
    data = UnknownPreset("defualt", ["default"], "Choose one.").to_dict()
    assert data == {
        "error": {
            "code": "unknown_preset",
            "message": "Unknown preset 'defualt'. Closest: 'default'. Choose one.",
            "details": {"name": "defualt", "near": ["default"]},
        }
    }


def test_nearest_names_ignore_case():
    """A wrong capital is no distance."""
    assert nearest("LLAMA", ["llama", "gpt2"]) == ["llama"]
    assert nearest("zzz", ["llama"]) == []


def test_a_missing_extra_names_the_way_to_install_it():
    """Nothing is imported to find out."""
    with pytest.raises(MissingExtra, match=r"'no_such_package' is not installed.*pip install 'loradar\[scan\]'"):
        require("scan", "json", "no_such_package")


@pytest.mark.parametrize(("room", "package"), [("adapters", "torch"), ("discovery", "torch"), ("api", "fastapi")])
def test_a_room_without_its_extra_says_so(room, package):
    """In an installation without the extra, importing the room is a clear error and no ModuleNotFoundError."""
    code = (
        "import importlib.util as util, importlib\n"
        "found = util.find_spec\n"
        f"util.find_spec = lambda name, *rest: None if name == {package!r} else found(name, *rest)\n"
        f"try:\n    importlib.import_module('loradar.{room}')\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert done.stdout == "MissingExtra\n"
