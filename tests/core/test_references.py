"""References: one grammar."""

import pytest

from loradar.errors import InvalidReference, InvalidRequest
from loradar.references import Reference, parse_parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("llama", ("transformers", "llama", None)),
        (" llama ", ("transformers", "llama", None)),
        ("transformers:blip-2", ("transformers", "blip-2", None)),
        ("timm:poolformer_m36.sail_in1k", ("timm", "poolformer_m36", "sail_in1k")),
        ("torch:package.module:Class", ("torch", "package.module:Class", None)),
        ("hub:org/repo@v1.0", ("hub", "org/repo", "v1.0")),
        ("hub:org/repo/sub/folder@refs/pr/1", ("hub", "org/repo/sub/folder", "refs/pr/1")),
        ("file:models/config.json", ("file", "models/config.json", None)),
    ],
)
def test_a_reference_falls_into_its_parts(text, parts):
    """A bare word means transformers; tags belong to timm and revisions to the hub."""
    reference = Reference.parse(text)
    assert (reference.scheme, reference.name, reference.tag) == parts
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a name"),
        ("timm:", "needs a name"),
        ("two words", "without spaces"),
        ("line\nbreak", "without spaces"),
        ("ftp:x", "Unknown scheme 'ftp'"),
        ("x" * 600, "600 characters is too long"),
    ],
)
def test_what_is_no_reference_is_refused(text, words):
    """The message says how one looks."""
    with pytest.raises(InvalidReference, match=words):
        Reference.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "hub:gpt2",
        "hub:org/repo.v2_x-1",
        "hub:org/repo@feature/x",
        "hub:org/repo@refs/convert/parquet",
        f"hub:org/repo@{'0123456789' * 4}",
        "hub:org/repo@user@host",
        "hub:org/repo@v1.0+build,2",
        f"hub:org/repo@{'r' * 255}",
        f"hub:org/{'r' * 96}",
        "hub:org/repo/checkpoint-500/best@main",
    ],
)
def test_names_that_git_and_the_hub_allow_are_accepted(text):
    """Branches with slashes, pull requests, tags, commits and nested subfolders parse and print unchanged."""
    assert str(Reference.parse(text)) == text


BAD_PATHS = (
    *("..", "../x", "x/..", "../../../../pwned", "a..b", ".", ".x", "x/.y", "x.", "x./y", "/x", "x/", "x//y", "@"),
    *("x\\y", "x~1", "x^", "x:y", "x?", "x*", "x[1]", "x.lock", "x.lock/y", "x@{1}", "x" * 256),
    *("x\u202ey", "x\ud800"),
)
"""Revisions and subfolders that git has not, or that another program could read as another path."""


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_revision_outside_the_grammar_is_rejected(path):
    """In text and as a record of its own: no reference to such a revision can be made."""
    for make in (lambda: Reference.parse(f"hub:org/repo@{path}"), lambda: Reference("hub", "org/repo", path)):
        with pytest.raises(InvalidReference):
            make()


@pytest.mark.parametrize("path", [*BAD_PATHS, "", "x@y"])
def test_a_subfolder_outside_the_grammar_is_rejected(path):
    """Whether it is in a record or in a text, where '@' ends it."""
    if "@" not in path:
        with pytest.raises(InvalidReference):
            Reference.parse(f"hub:org/repo/{path}")
    with pytest.raises(InvalidReference):
        Reference("hub", f"org/repo/{path}")


@pytest.mark.parametrize("odd", ["", " ", "a b", "a\nb", "a\x00b", "a\x7fb"])
def test_a_revision_with_spaces_or_controls_is_rejected(odd):
    """Also by the record, which no parser reads first."""
    with pytest.raises(InvalidReference, match="invalid revision"):
        Reference("hub", "org/repo", odd)


@pytest.mark.parametrize(
    "repo",
    [
        *("", "/x", "x/", "..", "../x", "x/..", ".x/y", "x/y.", "-x/y", "x/y-", "x--y/z", "x/a..b", "x/y.git"),
        *("x/\u0430", "x/y%2f", "x\\y/z", "x/" + "y" * 97),
    ],
)
def test_a_repo_outside_the_grammar_is_rejected(repo):
    """Its name becomes a folder of the cache."""
    with pytest.raises(InvalidReference):
        Reference.parse(f"hub:{repo}")
    with pytest.raises(InvalidReference):
        Reference("hub", repo)


def test_the_message_names_the_part_that_is_invalid():
    """The reference, the part, its value, and the way out."""
    with pytest.raises(InvalidReference, match=r"'hub:a/b@\.\./x' has an invalid revision: '\.\./x' contains '\.\.'"):
        Reference.parse("hub:a/b@../x")
    with pytest.raises(InvalidReference, match=r"has an invalid subfolder: 'c\.lock' has the segment 'c\.lock'"):
        Reference.parse("hub:a/b/c.lock")
    with pytest.raises(InvalidReference, match="names no repo: '-a' is not 1 to 96 of"):
        Reference.parse("hub:-a/b")


def test_parts_are_types_by_their_names():
    """In any number; spaces around do not count."""
    assert parse_parts(["text=t5", " vision = vit "]) == {"text": "t5", "vision": "vit"}
    assert parse_parts([]) == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["text"], "'text' names no part. Write NAME=TYPE, such as text=t5."),
        (["=t5"], "names no part"),
        (["text="], "names no part"),
        (["text=t5", "text=opt"], "The part 'text' is given as 't5', 'opt'. Give it once."),
    ],
)
def test_a_part_of_another_form_is_rejected(texts, message):
    """With the text and the form."""
    with pytest.raises(InvalidRequest, match=message):
        parse_parts(texts)
