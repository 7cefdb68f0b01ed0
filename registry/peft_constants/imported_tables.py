"""Import ``constants.py`` files beside the installed PEFT and print their tables; always in a process of its own.

``python -m loradar.registry.peft_constants.imported_tables FILE ...`` imports each file under another name in
``peft.utils``, so that relative imports reach the installed package, and prints one JSON object per file. Importing
runs the file: only a command whose user trusts it does so, never the service.
"""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from ...errors import ConstantsUnreadable
from .syntax import is_table

SECONDS = 300
"""PEFT imports torch and transformers, which takes a while on a cold disk."""

Tables = dict[str, dict[str, Any]]


def import_tables(*paths: Path) -> list[Tables]:
    """Import files beside the installed PEFT in a process of their own, and return the tables of each.

    Raises:
        ConstantsUnreadable: If one cannot be imported, or that takes too long; names the cause.
    """
    import subprocess  # noqa: PLC0415 - a lookup does without

    # -P: what lies in the folder one stands in is no package.
    command = [sys.executable, "-P", "-m", __name__, *map(str, paths)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603 - ours
    except subprocess.TimeoutExpired:
        message = f"Importing beside peft took more than {SECONDS} s. Try again, or with --no-import."
        raise ConstantsUnreadable(message, seconds=SECONDS) from None
    if done.returncode:
        cause = (done.stderr.strip().splitlines() or ["no output"])[-1]
        message = f"It cannot be imported beside the installed peft: {cause}. Give peft's own file, or --no-import."
        raise ConstantsUnreadable(message, cause=cause)
    return [json.loads(line) for line in done.stdout.splitlines()[-len(paths) :]]


def _load(number: int, path: Path) -> Tables:
    """Return the tables of a file, imported as a module of ``peft.utils``."""
    name = f"peft.utils.loradar_{number}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path} is no Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return {table: _plain(value) for table, value in vars(module).items() if is_table(table)}


def _plain(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table in the form in which it is read: a function is its name, a set is sorted."""
    plain = {name: {"function": value.__name__} if callable(value) else value for name, value in table.items()}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in plain.items()}


def _main(paths: Sequence[str]) -> None:
    import_module("peft.utils")
    for number, path in enumerate(paths):
        sys.stdout.write(json.dumps(_load(number, Path(path))) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1:])
