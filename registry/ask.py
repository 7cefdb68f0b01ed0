"""One-off questions, for those who hold no registry open."""

from ..domain.mappings import Mapping, Verification
from ..domain.scans import Scan
from ..domain.targets import TargetSpec
from .registry import Registry
from .verification.verify import Verifier


def lookup(
    name: str,
    peft_type: str = "LORA",
    preset: str = "default",
    library: str = "transformers",
    library_version: str | None = None,
) -> Mapping:
    """Look up the mapping of an architecture in the user's registry, which is made and seeded on first use.

    Raises:
        UnknownPeftType: If nothing is known for this PEFT method.
        UnknownPreset: If there is no such preset.
        NotRegistered: If nothing is registered; the message names what is near and how to scan it.
        DatabaseUnusable: If the registry's database cannot be used.
    """
    with Registry.open() as registry:
        return registry.lookup(name, peft_type, preset, library, library_version)


def verify(scan: Scan, spec: TargetSpec, peft_type: str = "LORA", preset: str = "default") -> Verification:
    """Check a target spec against the layers of a scan, without a registry."""
    return Verifier(scan).verify(spec, peft_type, preset)
