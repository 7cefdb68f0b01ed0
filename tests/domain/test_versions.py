"""Versions of a library: order, ranges, neighbours."""

import pytest

from loradar.domain.versions import VersionedRename, Versions, nearest, neighbours, newest
from loradar.errors import InvalidRequest
from loradar.schema import from_json, to_json


@pytest.mark.parametrize(
    ("version", "is_in"),
    [
        ("4.57.1", True),
        ("5.23.0", True),
        ("5.23", True),
        ("5.0.0rc1", True),
        ("4.100.0", True),
        ("4.9.0", False),
        ("5.23.1", False),
        ("5.100", False),
    ],
)
def test_a_range_holds_what_pip_says_lies_between(version, is_in):
    """By number and not by letter; both ends belong to it."""
    assert Versions("4.57.1", "5.23.0").hold(version) is is_in


def test_a_range_is_extended_at_either_end():
    """And stays what it is for a version inside."""
    known = Versions("4.57.1", "5.3.0")
    assert known.extended("5.23.0") == Versions("4.57.1", "5.23.0")
    assert known.extended("4.9.0") == Versions("4.9.0", "5.3.0")
    assert known.extended("5.0.0") == known


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("5.0.0", "5.23.0"), ("4.60.0", "4.57.1"), ("3.0", "4.57.1"), ("9.0", "5.23.0"), ("4.57.1.0", "4.57.1")],
)
def test_the_nearest_version_is_the_neighbour_with_most_in_common(version, wanted):
    """A major version keeps more names than a number keeps distance; one beyond all has one neighbour."""
    assert nearest(version, ["5.23.0", "4.57.1"]) == wanted


def test_of_several_only_neighbours_count():
    """5.1.0 is numerically nearer to 6.0.0 than 5.23.0 is, but 5.23.0 lies between."""
    assert nearest("6.0.0", ["5.1.0", "5.23.0"]) == "5.23.0"
    assert neighbours("5.2.0", ["4.57.1", "5.1.0", "5.23.0"]) == ["5.1.0", "5.23.0"]
    assert nearest("5.2.0", ["4.57.1", "5.1.0", "5.23.0"]) == "5.1.0"
    assert newest(["5.9.0", "5.23.0", "4.57.1"]) == "5.23.0"


def test_what_is_no_version_is_refused():
    """The message names it and shows one."""
    with pytest.raises(InvalidRequest, match=r"version 'new': give one such as '5.24.0'"):
        nearest("new", ["5.23.0"])


def test_a_rename_survives_its_json_form():
    """As it goes over REST."""
    way = VersionedRename("4.57.1", "5.23.0", "a.b", "a.c", "why")
    assert from_json(VersionedRename, to_json(way)) == way
