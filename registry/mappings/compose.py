"""Look up the mapping of a composite architecture for a given make-up."""

import json
from collections.abc import Mapping as Values
from dataclasses import replace

from sqlalchemy import Connection, select

from ...domain.architectures import ModelPart, choose_parts, describe_make_up, name_make_up
from ...domain.mappings import Mapping
from ...errors import InvalidRequest, NotRegistered, UnknownArchitecture, quoted
from ..db import tables
from ..db.encoding import MappingKey
from . import listing
from .composition import Composition, Exchange, Model, compose
from .precedence import to_facts
from .ranges import with_distance
from .resolve import find_mapping, list_answering, locate_version
from .stored_names import list_slots

LIBRARY = "transformers"
"""Library of the models of parts: only its configurations hold other configurations."""

SENSES = {"language", "vision", "audio"}


def find_composed(
    connection: Connection, key: MappingKey, library_version: str | None, chosen: Values[str, str]
) -> Mapping | None:
    """Return the mapping to use for an architecture with these types of model as its parts, or ``None``.

    A make-up that was scanned itself (``blip-2[text=t5]``) has mappings of its own; any other is composed.

    Raises:
        UnknownArchitecture: If the registry does not know the architecture, or a type.
        UnknownName: If the architecture has no part of a name.
        InvalidRequest: If a part cannot be exchanged, or only for another version of the library.
        NotRegistered: If the model of a part was never scanned, or has no mapping for the method and preset.
    """
    whole, parts, version = _read(connection, key, library_version)
    made_up = choose_parts(whole.reference, parts, chosen)
    place = locate_version(connection, key, library_version)
    candidates = place.list_candidates()
    if library_version is not None and (not candidates or candidates[0][0] != version):
        message = f"Parts of {whole.reference} can be chosen for {LIBRARY} {version} alone, not for {library_version}."
        raise InvalidRequest(message, field="library_version", value=library_version)
    if made_up == parts or whole.mapping is None:
        return whole.mapping
    changed = [(new, old) for new, old in zip(made_up, parts, strict=True) if new != old]
    own_name = name_make_up(key.name, {new.name: new.model_type for new, _ in changed})
    proved = find_mapping(connection, key._replace(name=own_name), library_version)
    if proved is not None:
        return replace(proved, architecture=whole.mapping.architecture)
    exchanges = tuple(_exchange(connection, key, whole, new, old) for new, old in changed)
    found = compose(Composition(whole, made_up, exchanges))
    if found is None:
        message = f"No layer of {whole.reference} with {describe_make_up(made_up)} is known for preset {key.preset!r}."
        raise InvalidRequest(f"{message} Scan your own configuration: loradar.scan(config).", field="part")
    return replace(with_distance(found, place, version), recommended=None)


def _read(
    connection: Connection, key: MappingKey, library_version: str | None = None
) -> tuple[Model, tuple[ModelPart, ...], str | None]:
    """Return an architecture with its mapping, its parts and the version its slots are of."""
    table = tables.architectures.c
    query = select(table.towers, table.prompt_facts, table.library_version)
    row = connection.execute(query.where(table.library == key.library, table.name == key.name)).first()
    if row is None:
        known = listing.list_names(connection, key.library)
        way_out = f"Scan it with: {listing.scan_command(key.library, key.name)}"
        raise UnknownArchitecture(key.name, known, way_out, library=key.library)
    prefixes = tuple(prefix for paths in json.loads(row.towers).values() for prefix in paths)
    slots = list_slots(connection, key.library, key.name)
    mapping = find_mapping(connection, key, library_version)
    if mapping and not mapping.formula:  # stated without the size, which a scan may have found for the same targets
        same = (one for one in list_answering(connection, key) if one.formula and one.spec == mapping.spec)
        mapping = replace(mapping, formula=next((one.formula for one in same), None))
    model = Model(f"{key.library}:{key.name}", slots, prefixes, mapping)
    return model, to_facts(row.prompt_facts)[1], row.library_version


def _exchange(connection: Connection, key: MappingKey, whole: Model, new: ModelPart, old: ModelPart) -> Exchange:
    """Return the exchange of one part, checked."""
    if new.prefix is None:
        message = (
            f"Where the {new.name} model of {whole.reference} stands is not known, so nothing can be composed. "
            "Scan your own configuration: loradar.scan(config)."
        )
        raise InvalidRequest(message, field="part", part=new.name)
    model = _read(connection, key._replace(library=LIBRARY, name=new.model_type))[0]
    if not model.slots:
        command = listing.scan_command(LIBRARY, new.model_type)
        message = f"{model.reference} was never scanned, so its layers are not known. Scan it with: {command} --prove."
        raise NotRegistered(new.model_type, (), message, library=LIBRARY, command=command)
    try:
        default = _read(connection, key._replace(library=LIBRARY, name=old.model_type))[0]
    except UnknownArchitecture:
        default = None
    before = tuple(slot for slot in whole.slots if slot.pattern.startswith(f"{new.prefix}."))
    exchange = Exchange(new, before, model, default if default and default.slots else None)
    _check(exchange, whole.reference, key)
    return exchange


def _check(exchange: Exchange, reference: str, key: MappingKey) -> None:
    """Check that a model can stand at a part, and that its layers can be placed there.

    Raises:
        InvalidRequest: If it is of another modality, or the default model's layers are not where they should be.
        NotRegistered: If it has no mapping for the method and preset.
    """
    part, model = exchange.part, exchange.model
    towers = {slot.tower for slot in model.slots} & SENSES
    if exchange.tower in SENSES and towers and exchange.tower not in towers:
        message = (
            f"The {part.name} model of {reference} is a {exchange.tower} model, and {part.model_type!r} has "
            f"{quoted(sorted(towers))} alone."
        )
        raise InvalidRequest(message, field="part", part=part.name, value=part.model_type)
    if exchange.default and exchange.before and exchange.is_misplaced:
        message = (
            f"The layers of the {part.name} model of {reference} do not stand as in {exchange.default.reference}, so "
            "nothing can be composed. Scan your own configuration: loradar.scan(config)."
        )
        raise InvalidRequest(message, field="part", part=part.name)
    if model.mapping is None:
        message = f"{model.reference} has no {key.peft_type} mapping for preset {key.preset!r}, so none is composed."
        raise NotRegistered(part.model_type, (), message, library=LIBRARY)
