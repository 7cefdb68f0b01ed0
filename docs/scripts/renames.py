"""Write the table of ``docs/registry/versions.md``: the most frequent renames in ``data/versions``.

python docs/scripts/renames.py
"""

from collections import defaultdict
from pathlib import Path

from loradar.catalog.entries import list_catalogs, list_older, read_all_older, read_catalog
from loradar.domain.versions import Rename

PAGE = Path(__file__).parent.parent / "registry/versions.md"
START, END = "<!-- renames: made by docs/scripts/renames.py -->\n", "<!-- end -->"
ROWS = 25
SHOWN = 4


def changed(rename: Rename) -> tuple[str, str]:
    """Return both paths of a rename without their common first segments."""
    old, new = rename.old.split("."), rename.new.split(".")
    while len(old) > 1 and len(new) > 1 and old[0] == new[0]:
        old, new = old[1:], new[1:]
    return ".".join(old), ".".join(new)


def table() -> str:
    """Return the table, the most frequent renames first."""
    catalogs = [read_catalog(file) for file in list_catalogs()]
    lines = ["| between | was | is | architectures |", "| --- | --- | --- | --- |"]
    for older in read_all_older(list_older(), catalogs):
        where: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
        for name, ways in older.renames.items():
            for way in ways:
                where[changed(way.rename)][name] = None
        between = next(f"{w.from_version} and {w.to_version}" for ways in older.renames.values() for w in ways)
        largest = sorted(where.items(), key=lambda item: (-len(item[1]), item[0]))[:ROWS]
        for (old, new), names in largest:
            some = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            lines.append(f"| {between} | `{old}` | `{new}` | {len(names)}: {some} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """Return the page with a new table."""
    before, _, rest = text.partition(START)
    return before + START + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
