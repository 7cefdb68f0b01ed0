"""Import ``constants.py`` files next to the installed PEFT and print their tables; always in a process of its own.

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
    """Import files next to the installed PEFT in another process, and return the tables of each.

    Raises:
        ConstantsUnreadable: If a file cannot be imported, or the imports take too long; the message names the cause.
    """
    import subprocess  # noqa: PLC0415 - a lookup does without

    # -P: files in the working folder must not shadow packages.
    command = [sys.executable, "-P", "-m", __name__, *map(str, paths)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603 - ours
    except subprocess.TimeoutExpired:
        message = f"Timed out after {SECONDS} s importing the file next to peft. Try again, or with --no-import."
        raise ConstantsUnreadable(message, seconds=SECONDS) from None
    if done.returncode:
        cause = (done.stderr.strip().splitlines() or ["no output"])[-1]
        message = f"Cannot import the file next to the installed peft: {cause}. Give peft's own file, or --no-import."
        raise ConstantsUnreadable(message, cause=cause)
    return [json.loads(line) for line in done.stdout.splitlines()[-len(paths) :]]


def main(paths: Sequence[str]) -> None:
    """Import each file as a module of ``peft.utils`` and print its tables, in the form in which they are parsed."""
    import_module("peft.utils")
    for number, path in enumerate(paths):
        name = f"peft.utils.loradar_{number}"
        spec = spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            sys.exit(f"{path} is not a Python file")
        module = module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        tables = {table: entries for table, entries in vars(module).items() if is_table(table)}
        text = json.dumps(  # as :mod:`.syntax` parses them: a set is sorted, a function is its name
            tables, default=lambda value: sorted(value) if isinstance(value, set) else {"function": value.__name__}
        )
        sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
