"""State which models a composite architecture is made of, and choose others for its free parts.

Imports no SQLAlchemy, since ``sqlite_lookup`` does without.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Values
from dataclasses import replace

from ...domain.architectures import ModelPart, is_composite
from ...domain.mappings import Mapping
from ...errors import InvalidRequest, UnknownName

_ENDING = "_config"


def with_make_up(mapping: Mapping) -> Mapping:
    """Return a mapping with reasons that name its make-up and the way to ask for another, if it is of a composite."""
    if not is_composite(mapping.parts):
        return mapping
    free = [part.name for part in mapping.parts if part.is_free]
    others = f"another {' or '.join(free)} model may have other layers: name it as part {free[0]}=TYPE"
    reasons = (f"of the default configuration: {describe_make_up(mapping.parts)}", others)
    return replace(mapping, reasons=(*mapping.reasons, *reasons))


def describe_make_up(parts: Iterable[ModelPart]) -> str:
    """Return parts in words: ``text model opt, vision model blip_2_vision_model``."""
    return ", ".join(f"{part.name} model {part.model_type}" for part in parts)


def choose_parts(reference: str, parts: Sequence[ModelPart], chosen: Values[str, str]) -> tuple[ModelPart, ...]:
    """Return the parts of an architecture with other models, given as types by the names of parts.

    Raises:
        InvalidRequest: If the architecture has no free part on record, or a part is not free.
        UnknownName: If it has no part of a name.
    """
    free = [f"{part.name} ({part.model_type})" for part in parts if part.is_free]
    if not free:
        command = f"loradar scan {reference.removeprefix('transformers:')} --store --prove"
        message = f"{reference} has no part of a free type on record. Ask without parts, or scan it anew: {command}."
        raise InvalidRequest(message, field="part", parts=[])
    known = {part.name: part for part in parts}
    types = {name.removesuffix(_ENDING) if name not in known else name: kind for name, kind in chosen.items()}
    for name, kind in types.items():
        part = known.get(name)
        if part is None:
            raise UnknownName(name, known, f"The parts of {reference} that can be chosen: {', '.join(free)}.")
        if not part.is_free and kind != part.model_type:
            message = f"The part {name!r} of {reference} is always {part.model_type!r}. Free: {', '.join(free)}."
            raise InvalidRequest(message, field="part", part=name, parts=[one.name for one in parts if one.is_free])
    return tuple(replace(part, model_type=types.get(part.name, part.model_type)) for part in parts)
