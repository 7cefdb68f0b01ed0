"""``check``: read a training configuration, find its model in the registry, and list the faults of its targets."""

from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path

from ...domain.targets import TargetMatcher
from ...errors import InvalidConfig, InvalidReference, LoradarError, NotRegistered, UnknownArchitecture
from ...references import describe
from ...references.knowledge import load
from ...references.local import find_configuration
from ...references.resolver import Candidate, resolve
from ...references.words import words_of
from ...training_configs import LoraPart, read_parts, write_snippet
from ...training_configs.config_checks import ConfigCheck, PartCheck
from ..contributions.safe_regex import LinearMatcher
from ..registry import Registry
from .correction import correct
from .faults import find_faults
from .hits import Hits
from .subject import Subject

MOST_BYTES = 256 << 10
"""Bytes of a file at most: reading YAML takes a second for them."""
_WAY_OUT = "name its architecture with --model, such as --model llama"


def check(path: str | PathLike[str], model: str | None = None) -> ConfigCheck:
    """Check the LoRA part of a training configuration against the layers of its model, offline.

    Args:
        path: A configuration of axolotl, LLaMA-Factory, ms-swift, TRL, Unsloth, torchtune or diffusers, or a
            ``LoraConfig``: YAML, JSON, a shell script or Python, none of which is run.
        model: Its model, in any spelling; by default the one that it names.

    Raises:
        InvalidConfig: If it cannot be read, is of none of these projects, or trains no LoRA.
        NotRegistered: If its model is not known.
        DatabaseUnusable: If the registry's database cannot be used.
    """
    file = Path(path)
    try:
        with file.open("rb") as content:
            data = content.read(MOST_BYTES + 1)
    except OSError as error:
        message = f"{fspath(path)!r} cannot be read: {error.strerror}. Give a configuration of a training."
        raise InvalidConfig(message, path=fspath(path)) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{fspath(path)!r} is no text in UTF-8.", path=fspath(path)) from error
    with Registry.open() as registry:
        return check_text(registry, text, file.name, model, folder=file.parent, matcher=TargetMatcher)


def check_text(  # noqa: PLR0913 - what is given, and how it is read
    registry: Registry,
    text: str,
    name: str,
    model: str | None = None,
    *,
    folder: Path | None = None,
    matcher: type[TargetMatcher] = LinearMatcher,
) -> ConfigCheck:
    """Check a configuration that is given as text.

    Args:
        registry: Where the layers of models are looked up.
        text: The configuration.
        name: The name of its file, whose ending tells the form.
        model: Its model; by default the one that it names.
        folder: The folder in which models are looked for that it names by a path; none are if it is ``None``.
        matcher: Class that matches targets.

    Raises:
        LoradarError: As ``check``.
        InvalidStatement: If a regex is not one that ``matcher`` reads.
    """
    if len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise InvalidConfig(f"{name!r} has more than {MOST_BYTES:,} bytes: it is no configuration.", file=name)
    try:
        parts = read_parts(text, name)
    except InvalidConfig as error:
        raise InvalidConfig(f"{name}: {error.message}", file=name) from error
    checker = _Checker(registry, model, folder, matcher)
    checked = tuple(map(checker.check, parts))
    if all(part.reference is None for part in checked):
        message = f"{name}: {checked[0].note}"
        raise NotRegistered(checked[0].base or "", (), message, file=name)
    return ConfigCheck(name, checked)


class _Checker:
    def __init__(
        self, registry: Registry, model: str | None, folder: Path | None, matcher: type[TargetMatcher]
    ) -> None:
        self._registry = registry
        self._model = model
        self._folder = folder
        self._matcher = matcher

    def check(self, part: LoraPart) -> PartCheck:
        """Return the check of one part."""
        base = self._model or (part.base.text if part.base else None)
        first, others, note = self._find_model(part)
        if first is None:
            return self._unchecked(part, base, note)
        try:
            detail = self._registry.get_architecture(first.library, first.name)
        except UnknownArchitecture:
            return self._unchecked(part, base, f"the layers of {first.reference} are not known; {_WAY_OUT}.")
        subject = Subject(detail, first.is_guess)
        if not subject.stored.is_known or not subject.layers:
            return self._unchecked(part, base, f"the layers of {first.reference} are not on record; {_WAY_OUT}.")
        hits = Hits(part, subject, self._matcher)
        if first.is_guess and _is_doubtful(hits, first, base or ""):
            note = (
                f"{base!r} is like names of {first.reference}, but the targets are not those of its layers; {_WAY_OUT}."
            )
            return self._unchecked(part, base, note)
        faults = sorted(find_faults(hits), key=lambda fault: fault.finding.level != "error")
        spec = correct(hits, faults) if faults else None
        towers = [layer.tower for layer in hits.layers.values()]
        return PartCheck(
            project=part.project.name,
            line=part.line,
            base=base,
            reference=first.reference,
            library_version=detail.architecture.library_version,
            understood=describe(base or "", first, others) if base else None,
            note=f"the targets were not checked: {part.unread}" if part.unread else "",
            matched=len(towers),
            towers={tower: towers.count(tower) for tower in dict.fromkeys(towers)},
            findings=tuple(fault.finding for fault in faults),
            snippet=write_snippet(part, spec) if spec else None,
        )

    def _unchecked(self, part: LoraPart, base: str | None, note: str) -> PartCheck:
        return PartCheck(part.project.name, part.line, base, None, None, None, note, 0, {}, (), None)

    def _find_model(self, part: LoraPart) -> tuple[Candidate | None, list[Candidate], str]:
        """Return the architecture of the model, other ones it may be, and why there is none."""
        if self._model is None and part.reference:
            return Candidate(part.reference, "class", part.base.text if part.base else ""), [], ""
        text = self._model or (part.base.text if part.base else "")
        if not text:
            return None, [], f"it names no model; {_WAY_OUT}."
        try:
            found = [*self._resolve(text)]
        except InvalidReference:
            found = []
        first, *others = found or (None,)
        if first is None or first.how == "near name" or not _starts_alike(first, text):
            return None, [], f"the model {text!r} is not known offline; {_WAY_OUT}."
        return first, others, ""

    def _resolve(self, text: str) -> Iterator[Candidate]:
        if self._folder is not None:
            try:
                local = find_configuration(str(self._folder / text)) if "/" in text or text.startswith(".") else None
            except LoradarError:
                local = None
            if local:
                yield local
                return
        yield from resolve(text)


def _is_doubtful(hits: Hits, guess: Candidate, text: str) -> bool:
    """Return whether half of the targets are not in a guessed architecture that its organisation is not known for.

    Whoever publishes a converted checkpoint keeps its name: unsloth's Phi-4 has the layers of llama.
    """
    organisation = f"{text.partition('/')[0].casefold()}/"
    is_known = any(
        repo.startswith(organisation) and fact.reference == guess.reference for repo, fact in load().repos.items()
    )
    missed = [target for target, layers in hits.anywhere.items() if not layers and not hits.find_as_name(target)]
    is_regex = hits.part.regex in missed and not hits.part.names
    return is_regex or (not is_known and bool(missed) and 2 * len(missed) >= len(hits.anywhere))


def _starts_alike(candidate: Candidate, text: str) -> bool:
    """Return whether a guess by a checkpoint's name is by its beginning; a later word is weak evidence."""
    if candidate.how != "by name" or "/" not in candidate.because:
        return True
    first, other = (words_of(name.rpartition("/")[2])[:1] for name in (text, candidate.because))
    return first == other


__all__ = ["check", "check_text"]
