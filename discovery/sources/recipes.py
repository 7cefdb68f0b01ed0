"""Recipes: the settings of a model apart from its construction, so that they can be changed in between."""

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ...data import read_facts
from ...errors import LoradarError, ScanFailed
from .weights import filled, move_to_meta, unfilled, wake

Change = Callable[[Any], Any]
"""Makes other settings out of settings, which it leaves unchanged."""


@contextmanager
def explained(reference: str) -> Iterator[None]:
    """Turn any error of foreign code that builds ``reference`` into one clear ``ScanFailed``.

    Raises:
        LoradarError: As raised inside, such as ``MissingExtra``.
        ScanFailed: If the architecture does not build; the first line of the cause is in the message.
    """
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():  # some print when they are imported
            warnings.simplefilter("ignore")  # a scan cannot fix the causes of a library's warnings
            yield
    except LoradarError:
        raise
    except Exception as error:  # model code of others may raise anything
        cause = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
        message = f"{reference} could not be built from its default configuration ({cause})."
        raise ScanFailed(message, reference=reference, cause=cause) from error


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a model, and the way to build it from them.

    Attributes:
        reference: The reference of the model, for messages.
        settings: A configuration object, or a constructor's arguments by name.
        make: Builds the model from settings, and from any other settings it needs, each changed.
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


@dataclass(frozen=True, slots=True)
class Override:
    """The smallest change that lets one architecture build whole, from ``data/build_overrides.toml``.

    Attributes:
        reason: Why its default configuration does not build it whole.
        config: Fields of the configuration; a nested table is a sub-configuration.
        models: Arguments that are models of the same library, by their names.
        model_class: Class to build where the library's own tables name none.
        unbuilt: Whether nothing helps; the reason then has the cause.
    """

    reason: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    models: dict[str, list[str]] = field(default_factory=dict)
    model_class: str | None = None
    unbuilt: bool = False

    def check(self, reference: str) -> None:
        """Raise ``ScanFailed`` if an architecture is known to fail, with the reason."""
        if self.unbuilt:
            raise ScanFailed(f"{reference} cannot be built: {self.reason}", reference=reference)

    def find_class(self) -> Any:
        """Return the named class of transformers, if one is named."""
        import transformers

        return getattr(transformers, self.model_class) if self.model_class else None


def find_override(library: str, name: str) -> Override:
    """Return the override of one architecture; an empty one for most."""
    return Override(**read_facts("build_overrides.toml").get(library, {}).get(name, {}))
