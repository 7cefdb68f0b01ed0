"""Texts from outside that may be paths, and those that can be none."""

import os

import pytest

from loradar.errors import InvalidReference, WeightsUnreadable
from loradar.references.local import find_configuration
from loradar.references.local_paths import find_path, is_folder
from loradar.weights import read_weights
from loradar.weights.stores import Folder


def test_a_path_is_found_with_and_without_its_scheme(tmp_path):
    """A file and a folder; what is not there is none."""
    file = tmp_path / "a"
    file.touch()
    assert find_path(f"file:{file}") == find_path(str(file)) == file
    assert is_folder(str(tmp_path))
    assert not is_folder(str(file))
    assert find_path(str(tmp_path / "b")) is None


@pytest.mark.parametrize("text", ["x" * 5000, "~nobody-of-this-name/a", "a\0b", "file:" + "x/" * 3000])
def test_a_text_that_can_be_no_path_names_none(text):
    """It is too long, of an unknown user, or holds a zero; commands reject it in one line."""
    assert find_path(text) is None
    for read in (read_weights, find_configuration):
        with pytest.raises(InvalidReference) as caught:
            read(f"file:{text.removeprefix('file:')}")
        assert len(str(caught.value)) < 300
        assert str(caught.value).isprintable()


def test_a_deep_configuration_is_rejected(tmp_path):
    """Its depth is that of the text."""
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(InvalidReference, match="cannot be read as JSON"):
        find_configuration(f"file:{tmp_path}")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    """An index names it, so that the list of files does not leave it out."""
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(WeightsUnreadable, match="is no file of this folder"):
        Folder(tmp_path).read("model.safetensors", 0, 8)
