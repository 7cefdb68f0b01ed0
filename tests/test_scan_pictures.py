"""The pictures of docs/discovery/how.md: they show what a scan of llama finds."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from loradar import scan

SCRIPT = Path(__file__).parent.parent / "docs/scripts/scan_pictures.py"


@pytest.fixture(scope="module")
def pictures():
    """The script as a module."""
    spec = spec_from_file_location("scan_pictures", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pictures_show_a_scan_of_today(pictures):
    """`python docs/scripts/scan_pictures.py` renews them."""
    llama = scan("llama")
    for name, draw in pictures.PICTURES.items():
        assert (pictures.PAGES / name).read_text("utf-8") == draw(llama), name


def test_a_picture_is_told_in_words(pictures):
    """Whoever does not see it hears the title and what each part shows."""
    for name in pictures.PICTURES:
        root = ET.fromstring((pictures.PAGES / name).read_text("utf-8"))  # noqa: S314 - ours
        title, description = (root.find(f"{{http://www.w3.org/2000/svg}}{tag}").text for tag in ("title", "desc"))
        assert len(title) > 20
        assert len(description) > 60
