"""Sphinx's settings for the documentation site, which ``make docs`` builds with every warning an error."""

import inspect
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

project = "loradar"
project_copyright = "the loradar authors"
release = version = version_of("loradar")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "accessible_pages",
    "command_reference",
    "generated_parts",
]
exclude_patterns = ["site", "scripts"]
root_doc = "index"

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
smartquotes = False  # options begin with two hyphens
add_module_names = False
toc_object_entries_show_parents = "hide"
napoleon_use_ivar = True

html_theme = "furo"
html_title = "loradar"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("support-table.js", {"defer": "defer"})]
html_favicon = "static/mark.svg"
html_copy_source = False
html_show_sphinx = False
pygments_style = "a11y-light"
pygments_dark_style = "a11y-dark"


RECORDS = ("loradar.domain.", "loradar.errors.")


def hide_signature_of_record(
    _app: object, what: str, name: str, _record: object, _options: object, signature: str | None, _returns: str | None
) -> tuple[str, str] | None:
    """Leave out the signature of a record: its fields follow, each with its type and meaning."""
    return ("", "") if what == "class" and signature and name.startswith(RECORDS) else None


def skip_all_but_records(app: Any, what: str, name: str, member: Any, *_: object) -> bool | None:
    """Leave out the functions and constants of a module of records: they are for loradar itself."""
    is_internal = what == "module" and (inspect.isfunction(member) or name.isupper())
    return True if is_internal and app.env.docname.startswith("reference/records") else None


def choose_contents(app: Any, docname: str, _source: object) -> None:
    """List the methods of the client and the model beside their page; records are too many for it."""
    app.config.toc_object_entries = docname in {"reference/api", "reference/client-api", "reference/peft-model"}


def link_to_site(_app: object, _path: Path, _parent: str, content: list[str]) -> None:
    """Let README and CONTRIBUTING, which pages include, link to each other's pages."""
    for old, new in (("README.md#to-change-x-open-y", "files.md"), ("CONTRIBUTING.md", "code.md")):
        content[0] = content[0].replace(f"]({old})", f"](docs/registry/{new})")


def setup(app: Any) -> None:
    """Connect the functions above."""
    app.connect("autodoc-process-signature", hide_signature_of_record)
    app.connect("autodoc-skip-member", skip_all_but_records)
    app.connect("source-read", choose_contents)
    app.connect("include-read", link_to_site)
