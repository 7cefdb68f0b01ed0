"""Why a lookup found nothing, in one sentence with the way out."""

from ...domain.methods import UNTARGETED, Method, get_method, nothing_for
from ...domain.vocabulary import PRESETS
from ...errors import LoradarError, NotRegistered, UnknownPreset, quoted
from ..db.canonical import Question
from ..db.schema import Reader
from . import listing as browse
from . import same_structure as alike
from .families import stored_under


def check_preset(preset: str) -> None:
    """Raise ``UnknownPreset`` unless this is a preset."""
    if preset not in PRESETS:
        raise UnknownPreset(preset, PRESETS, f"Presets: {quoted(PRESETS)}.")


def unanswered(reader: Reader, question: Question) -> LoradarError:
    """Return the error for a question without an answer, though its family may have one that does not fit."""
    method = get_method(question.peft_type)
    has = browse.list_answers(reader, question.library, question.name)
    if question.preset in has.get(stored_under(method), ()):
        why = _misfit(method)
        return nothing_for(method, f"{question.library}:{question.name}", why)
    return not_registered(reader, question)


def _misfit(method: Method) -> str:
    if method.family in UNTARGETED:
        return f"its facts are not known ({', '.join(method.needs)}), or PEFT has it for other types"
    kinds = ", ".join(sorted(method.kinds))
    return f"what is registered for {method.family} is not of the kinds it adapts ({kinds})"


def not_registered(reader: Reader, question: Question) -> NotRegistered:
    """Return the error for a mapping that is not there: what there is instead, and the scan command."""
    library, name, peft_type, preset = question
    command = browse.scan_command(library, name)
    has = browse.list_answers(reader, library, name)
    if has:
        known = []
        what = (
            f"{library}:{name} has no {peft_type} mapping for preset {preset!r}. It has one {_listed(has, peft_type)}."
            f"{_answering(reader, question)}"
        )
    else:
        known = browse.list_names(reader, library)
        what = f"Nothing is registered for {library}:{name}.{_elsewhere(reader, name)}"
    message = f"{what} Scan it with: {command}."
    return NotRegistered(name, known, message, library=library, command=command, has=has)


def unscanned(reader: Reader, library: str, name: str) -> NotRegistered:
    """Return the error for an architecture whose slots are not known.

    Raises:
        UnknownArchitecture: If the registry has never heard of it.
    """
    browse.get_architecture(reader, library, name)
    command = browse.scan_command(library, name)
    message = f"Nobody scanned {library}:{name}, so its slots are not known. Scan it with: {command}."
    return NotRegistered(name, (), message, library=library, command=command)


def _answering(reader: Reader, question: Question) -> str:
    other = alike.find_answering(reader, question)
    return f" {other!r} has it, and the same layers under the same names." if other else ""


def _listed(has: dict[str, list[str]], peft_type: str) -> str:
    """Return the presets this PEFT type has, else all by preset: most types have the same ones."""
    if peft_type in has:
        return f"for {peft_type}: {quoted(has[peft_type])}"
    presets = sorted({preset for presets in has.values() for preset in presets})
    by_preset = ((preset, [kind for kind in has if preset in has[kind]]) for preset in presets)
    return "; ".join(f"for preset {preset!r}: {', '.join(kinds)}" for preset, kinds in by_preset)


def _elsewhere(reader: Reader, name: str) -> str:
    libraries = browse.list_libraries_with(reader, name)
    return f" There is {quoted(f'{library}:{name}' for library in libraries)}." if libraries else ""
