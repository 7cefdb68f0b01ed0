"""The error tree."""

import inspect

import pytest

from loradar import errors
from loradar.errors import LoradarError, UnknownPreset, nearest

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, LoradarError)]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_is_drawn_documented_and_has_a_code(error):
    """The tree in the module's docstring is complete; programs can tell errors apart by code."""
    assert error.__name__ in (errors.__doc__ or "")
    assert error.__doc__
    assert error.exit_code == 2
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
