"""Warnings that point at the user's line, from however deep in loradar."""

import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

PASSED_OVER = ("loradar", "torch", "contextlib")
"""Packages between the line of a user and a warning: ours, ``nn.Module.__call__`` and ``with`` blocks."""


def warn(message: str) -> None:
    """Warn with the first line outside of loradar as its place."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as warnings does to find the place
    level = 2
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in PASSED_OVER:
        frame, level = frame.f_back, level + 1
    # As PEFT's where it is imported, for those who filter or expect them: a UserWarning too.
    warnings.warn(message, getattr(sys.modules.get("peft.utils.warning"), "PeftWarning", UserWarning), stacklevel=level)
