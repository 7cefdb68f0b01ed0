"""Explain why a lookup has no answer, with the way out."""

from collections import Counter
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from ...domain.methods import UNTARGETED, get_family, get_method, nothing_for
from ...domain.vocabulary import PRESETS, RECOMMENDED, STANDS_FOR, list_some
from ...errors import InvalidReference, LoradarError, NotRegistered, UnknownPreset, VersionUnproven, quoted
from ...references import LIBRARIES
from ...references.resolver import resolve
from ...schema import to_json
from ..db import tables
from ..db.encoding import MappingKey
from ..references import exact_name, not_understood
from . import listing
from .precedence import stored_under
from .resolve import find_answering, read_answers
from .stored_names import list_slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...domain.mappings import Mapping


def check_preset(preset: str) -> None:
    """Raise ``UnknownPreset`` unless this is a preset."""
    if preset not in PRESETS:
        raise UnknownPreset(preset, PRESETS, f"Presets: {quoted(PRESETS)}.")


def unknown_or_unanswered(
    connection: Connection, text: str, library: str | None, method: tuple[str, str], library_version: str | None
) -> LoradarError:
    """Return the error for a reference without a mapping for a PEFT type and preset, or that is no known name."""
    get_method(method[0])
    registered = listing.list_references(connection)
    try:
        candidates, named = resolve(text, library, frozenset(registered)), exact_name(text, library)
    except InvalidReference as error:
        return NotRegistered(text, (), error.message, command="loradar list")
    is_known = ":".join(named) in registered or named[0] not in LIBRARIES
    if not is_known and candidates and candidates[0].how != "near name":
        named, is_known = (candidates[0].library, candidates[0].name), True
    if is_known:
        return unanswered(connection, MappingKey(*named, *method), library_version)
    elsewhere = resolve(text, None, frozenset(registered)) if library and not candidates else ()
    return not_understood(text, library, candidates or elsewhere)


def unanswered(connection: Connection, key: MappingKey, library_version: str | None = None) -> LoradarError:
    """Return the error for a lookup without an answer.

    No mapping holds at the version, or every one is dead, or none fits the method, or none is registered.
    """
    method = get_method(key.peft_type)
    known = [one for one in read_answers(connection, key, library_version) if one.spec.list_targets()]
    unusable = _unproven(key, library_version, known) or _dead(key, known)
    if unusable:
        return unusable
    mappings, architectures = tables.mappings.c, tables.architectures.c
    query = (
        select(mappings.peft_type, mappings.preset)
        .distinct()
        .join_from(tables.mappings, tables.architectures)
        .where(architectures.library == key.library, architectures.name == key.name, mappings.yanked_at.is_(None))
    )
    available: dict[str, list[str]] = {}
    for peft_type, preset in sorted(map(tuple, connection.execute(query))):
        available.setdefault(peft_type, []).append(preset)
    if key.preset not in available.get(stored_under(method), ()):
        return _not_registered(connection, key, available)
    if method.family in UNTARGETED:
        why = f"its facts are not known ({', '.join(method.needs)}), or PEFT has it for other types"
    else:
        kinds = ", ".join(sorted(method.kinds))
        why = f"what is registered for {method.family} is not of the kinds it adapts ({kinds})"
    return nothing_for(method, f"{key.library}:{key.name}", why)


def _unproven(key: MappingKey, library_version: str | None, known: "Sequence[Mapping]") -> VersionUnproven | None:
    """Return the error for a version at which layer names are not known, with those seen at others."""
    sound = {_seen_at(one): one for one in known if not _is_dead(one)}
    if library_version is None or not sound or library_version in sound:
        return None
    names = {version: one.spec.list_targets() for version, one in sound.items()}
    listed = " and ".join(f"{list_some(targets)} at {version}" for version, targets in names.items())
    command = listing.scan_command(key.library, key.name)
    message = (
        f"The layer names of {key.library}:{key.name} at {library_version} are not known: it has {listed}. Scan it "
        f"there with: {command}. Or look up one of these versions."
    )
    details = {"library": key.library, "library_version": library_version, "command": command}
    seen = [{"library_version": version, **to_json(one.spec)} for version, one in sound.items()]
    return VersionUnproven(key.name, (), message, **details, seen=seen)


def _seen_at(mapping: "Mapping") -> str:
    if mapping.verification:
        return mapping.verification.library_version
    return mapping.versions.until if mapping.versions else ""


def _is_dead(mapping: "Mapping") -> bool:
    return mapping.verification is not None and mapping.verification.status == "dead"


def _dead(key: MappingKey, known: "Sequence[Mapping]") -> NotRegistered | None:
    """Return the error for an architecture of which every mapping trains nothing."""
    mapping = next(filter(_is_dead, known), None)
    if mapping is None:
        return None
    check, command = mapping.verification, listing.scan_command(key.library, key.name)
    findings = f": {'; '.join(check.findings)}" if check and check.findings else ""
    version = f"{key.library} {check.library_version}" if check else key.library
    message = (
        f"The {key.peft_type} mapping of {key.library}:{key.name} from {mapping.source.kind} {mapping.source.version} "
        f"is dead on {version}{findings}. Scan it with: {command}."
    )
    return NotRegistered(key.name, (), message, library=key.library, command=command, dead=[one.id for one in known])


def _not_registered(connection: Connection, key: MappingKey, available: dict[str, list[str]]) -> NotRegistered:
    """Return the error for a missing mapping, with those that are registered and the scan command."""
    library, name, peft_type, preset = key
    command = listing.scan_command(library, name)
    known: list[str] = []
    way_out = f"Scan it with: {command}."
    if available:
        listed = _listed(available, peft_type)
        message = f"{library}:{name} has no {peft_type} mapping for preset {preset!r}. It has one {listed}."
        alike = find_answering(connection, key)
        message += f" {alike!r} has it, and the same layers under the same names." if alike else ""
    elif slots := list_slots(connection, library, name):
        why = Counter(slot.proof for slot in slots if slot.proof).most_common(1)
        message = f"{library}:{name} was scanned, and none of its layers is proposed."
        message += f" Of most of them: {why[0][0]}." if why else ""
        way_out = f"All of them, each with its reason: loradar open {library}:{name}."
    else:
        known = listing.list_names(connection, library)
        message = f"Nothing is registered for {library}:{name}."
        table = tables.architectures.c
        query = select(table.library).where(table.name == name).order_by(table.library)
        others = [f"{other}:{name}" for other in connection.execute(query).scalars()]
        message += f" There is {quoted(others)}." if others else ""
    return NotRegistered(name, known, f"{message} {way_out}", library=library, command=command, has=available)


def _listed(available: dict[str, list[str]], peft_type: str) -> str:
    """Return the presets of a PEFT type, or PEFT types by preset if it has none: most types have the same presets."""
    if peft_type in available:
        stored = available[peft_type]
        is_answered = (
            STANDS_FOR[RECOMMENDED] in stored and RECOMMENDED in get_family(get_method(peft_type).family).presets
        )
        return f"for {peft_type}: {quoted(sorted({*stored, RECOMMENDED} if is_answered else stored))}"
    presets = sorted({preset for presets in available.values() for preset in presets})
    by_preset = ((preset, [kind for kind in available if preset in available[kind]]) for preset in presets)
    return "; ".join(f"for preset {preset!r}: {', '.join(kinds)}" for preset, kinds in by_preset)


def unscanned(connection: Connection, library: str, name: str) -> NotRegistered:
    """Return the error for an architecture whose slots are not known.

    Raises:
        UnknownArchitecture: If the registry does not know it.
    """
    listing.get_architecture(connection, library, name)
    command = listing.scan_command(library, name)
    message = f"{library}:{name} was never scanned, so its slots are not known. Scan it with: {command}."
    return NotRegistered(name, (), message, library=library, command=command)
