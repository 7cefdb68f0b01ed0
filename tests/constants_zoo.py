"""Stored mappings, made by hand: what a registry would hold of an architecture."""

from itertools import count

from loradar.domain.architectures import ArchitectureName
from loradar.domain.mappings import Mapping, Source, Verification
from loradar.domain.targets import TargetSpec

numbers = count()


def mapping(name="olmo2", *targets, status="live", peft_type="LORA", kind="scanner", **spec):
    """Return a stored mapping that was checked with this outcome; ``None`` if it was not."""
    check = Verification(status, "5.24.0", {}, 0.1, ("q matches nothing",)) if status else None
    said = TargetSpec(**({"target_modules": targets or ("q_proj", "v_proj")} | spec))
    source = Source(kind, "0.21.2" if kind == "peft" else "0.1.0")
    return Mapping(
        architecture=ArchitectureName("transformers", name),
        peft_type=peft_type,
        preset="default",
        **said.values,
        id=f"sha256:{next(numbers)}",
        source=source,
        revision=1,
        verification=check,
    )
