"""References: one grammar."""

import pytest

from loradar.errors import InvalidReference
from loradar.references import Reference


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
