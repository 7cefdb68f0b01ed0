"""What a model is built from, kept apart from building it: the settings can be changed in between."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from . import explained
from .filled import filled, wake
from .unfilled import move_to_meta, unfilled

Change = Callable[[Any], Any]
"""Makes other settings out of settings, which it leaves as they are."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is built.

    Attributes:
        reference: What it is the model of, for messages.
        settings: A configuration object, or a constructor's arguments by name.
        make: Builds the model of settings, and of whatever else it needs, each changed.
    """

    reference: str
    settings: Any
    make: Callable[[Any, Change], nn.Module]

    def build_on_meta(self, change: Change = copy.deepcopy) -> nn.Module:
        """Build the model without weights.

        Raises:
            ScanFailed: If the settings do not build.
        """
        with explained(self.reference), unfilled():
            model = self.make(self.settings, change)
            move_to_meta(model)
        return model

    def build_filled(self, change: Change = copy.deepcopy) -> nn.Module:
        """Build the model with weights, on the CPU in single precision; no weight is zero everywhere.

        Raises:
            ScanFailed: If the settings do not build.
        """
        with explained(self.reference), filled():
            model = self.make(self.settings, change).float()
            wake(model)
        return model
