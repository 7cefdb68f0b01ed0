"""What must be set before an architecture builds from its default configuration: ``data/build_overrides.toml``."""

from dataclasses import dataclass, field
from typing import Any

from ...errors import ScanFailed
from ..facts.data_files import read_facts


@dataclass(frozen=True, slots=True)
class Override:
    """The smallest change that lets one architecture build whole.

    Attributes:
        reason: Why its default configuration does not do.
        config: Fields of the configuration; a nested table is a sub-configuration.
        models: Arguments that are models of the same library, by their names.
        model_class: Class to build where the library's own tables name none.
        unbuilt: Whether nothing helps; the reason then says why.
    """

    reason: str
    config: dict[str, Any] = field(default_factory=dict)
    models: dict[str, list[str]] = field(default_factory=dict)
    model_class: str | None = None
    unbuilt: bool = False

    def find_class(self) -> Any:
        """Return the named class of transformers, if one is named."""
        import transformers

        return getattr(transformers, self.model_class) if self.model_class else None


NONE = Override(reason="")


def find_override(library: str, name: str) -> Override:
    """Return what is known of one architecture; the empty override for most."""
    entry = read_facts("build_overrides.toml").get(library, {}).get(name)
    return Override(**entry) if entry else NONE


def refuse_unbuilt(override: Override, reference: str) -> None:
    """Refuse what is known not to build, with its reason.

    Raises:
        ScanFailed: If the override says so.
    """
    if override.unbuilt:
        raise ScanFailed(f"{reference} cannot be built: {override.reason}", reference=reference)
