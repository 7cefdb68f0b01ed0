"""Done in this process, where the product takes another, which would import torch and transformers once more.

The bounds of real workers are tested in test_isolation.py; of a module, one test runs it as it is run.
"""

import subprocess
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pkgutil import resolve_name
from typing import Any


class InProcess:
    """A worker of the service without a process of its own."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def run(self, name: str, *args: Any) -> Any:
        """Run a task by its name."""
        return resolve_name(name)(*args)

    def close(self) -> None:
        """Stop nothing."""


def run_module(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Run ``python -P -m MODULE ARGUMENT ...`` as ``subprocess.run`` does."""
    name, *arguments = command[3:]
    out, err, code = StringIO(), StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            import_module(name).main(arguments)
        except Exception:  # noqa: BLE001 - a process ends with a traceback, whatever is raised
            traceback.print_exc()
            code = 1
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
