"""References: one grammar, one parser. ``timm:resnet50.a1_in1k`` -> library, name and tag; adapters on the hub."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self, get_args

from ..errors import InvalidReference, InvalidRequest, quoted

Scheme = Literal["transformers", "timm", "diffusers", "torch", "hub", "file"]
SCHEMES: tuple[str, ...] = get_args(Scheme)
LIBRARIES = ("transformers", "diffusers", "timm")
"""The libraries whose names are known, in the order of equal candidates."""
MAX_LENGTH = 512

MAX_REVISION_LENGTH = 255
"""Characters of a revision or a subfolder: each becomes part of a file name in the cache."""

_REPO_SEGMENT = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.\-]{0,94}[A-Za-z0-9_])?")
_NOT_IN_REFS = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|@\{|\.\.|//")


def explain_invalid_repo(repo: str) -> str | None:
    """Return why this cannot be the id of a repo on the hub, ``org/repo`` or ``repo``; ``None`` if it can."""
    segments = repo.split("/")
    if len(segments) > 2:  # noqa: PLR2004 - the organisation and the repo
        return f"a repo id is 'org/repo', and {repo!r} has {len(segments)} segments"
    for segment in segments:
        if not _REPO_SEGMENT.fullmatch(segment):
            rule = "1 to 96 of A-Z, a-z, 0-9, '_', '-' and '.', with neither '-' nor '.' first or last"
            return f"{segment!r} is not {rule}"
        if "--" in segment or ".." in segment or segment.endswith(".git"):
            return f"{segment!r} contains '--' or '..', or ends with '.git'"
    return None


def explain_invalid_path(path: str) -> str | None:
    """Return why this cannot be a revision or a subfolder on the hub, by git's rules for refs; ``None`` if it can."""
    if not 1 <= len(path) <= MAX_REVISION_LENGTH:
        return f"it has {len(path)} characters; 1 to {MAX_REVISION_LENGTH} are allowed"
    found = _NOT_IN_REFS.search(path)
    if found:
        return f"{path!r} contains {found[0]!r}"
    if not path.isprintable():
        return f"{path!r} contains an invisible character"
    if path == "@":
        return "'@' alone names no revision"
    for segment in path.split("/"):
        if not segment or segment[0] == "." or segment[-1] == "." or segment.endswith(".lock"):
            return f"{path!r} has the segment {segment!r}: none is empty, starts or ends with '.', or ends with '.lock'"
    return None


def check_hub_name(reference: str, repo: str, subfolder: str | None = None, revision: str | None = None) -> None:
    """Check the parts of a reference to the hub, which become parts of URLs and of file names in the cache.

    Raises:
        InvalidReference: Naming the part that the grammar rejects.
    """
    if (reason := explain_invalid_repo(repo)) is not None:
        message = f"{reference!r} names no repo: {reason}. Write it as in 'hub:org/repo'."
    elif subfolder is not None and "@" in subfolder:
        message = f"{reference!r} has an invalid subfolder: {subfolder!r} contains '@', which starts the revision."
    elif subfolder is not None and (reason := explain_invalid_path(subfolder)) is not None:
        message = f"{reference!r} has an invalid subfolder: {reason}. Write it as in 'hub:org/repo/subfolder'."
    elif revision is not None and (reason := explain_invalid_path(revision)) is not None:
        message = f"{reference!r} has an invalid revision: {reason}. Give a branch, a tag or a commit."
    else:
        return
    raise InvalidReference(message, reference=reference)


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference to an architecture or a model.

    Attributes:
        scheme: What the name is looked up in.
        name: The name within the scheme, without tag or revision.
        tag: timm's pretrained tag, or the hub revision, if one was given.
    """

    scheme: Scheme
    name: str
    tag: str | None = None

    def __post_init__(self) -> None:
        if self.scheme == "hub":
            segments = self.name.split("/")
            subfolder = "/".join(segments[2:]) if segments[2:] else None
            check_hub_name(str(self), "/".join(segments[:2]), subfolder, self.tag)

    @property
    def registered_name(self) -> str:
        """The name in the registry: ``torch:package.module:Class`` is kept by its qualified name."""
        return self.name.replace(":", ".")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``SCHEME:NAME``; a bare word means ``transformers:``.

        Raises:
            InvalidReference: If the scheme is unknown, the name is empty, the text is too long, or the repo,
                subfolder or revision of a reference to the hub is invalid.
        """
        if len(text) > MAX_LENGTH:
            message = f"Reference of {len(text)} characters is too long; the limit is {MAX_LENGTH}."
            raise InvalidReference(message, length=len(text), limit=MAX_LENGTH)
        scheme, separator, name = text.strip().partition(":")
        if not separator:
            scheme, name = "transformers", scheme
        if scheme not in SCHEMES:
            message = f"Unknown scheme {scheme!r} in reference {text!r}. Schemes: {quoted(SCHEMES)}."
            raise InvalidReference(message, reference=text, schemes=list(SCHEMES))
        if not name or not name.isprintable() or any(character.isspace() for character in name):
            message = f"Reference {text!r} needs a name without spaces, such as 'transformers:llama'."
            raise InvalidReference(message, reference=text)
        separator = {"timm": ".", "hub": "@"}.get(scheme, "")
        base, found, tag = name.partition(separator) if separator else (name, "", "")
        if scheme == "hub":
            return cls("hub", base, tag if found else None)
        return cls(scheme, base, tag or None)  # type: ignore[arg-type]  # membership in SCHEMES was checked

    def __str__(self) -> str:
        """Return the reference in its canonical form."""
        tag = {"timm": ".", "hub": "@"}.get(self.scheme, "") + self.tag if self.tag else ""
        return f"{self.scheme}:{self.name}{tag}"


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A folder of an adapter on the hub; the subfolder precedes ``@``, because the name of a branch may have slashes.

    Attributes:
        repo: ``org/repo``.
        subfolder: Folder in the repo, without slashes around it; empty for its top.
        revision: Branch, tag or commit; ``None`` for the main branch.
    """

    repo: str
    subfolder: str = ""
    revision: str | None = None

    def __post_init__(self) -> None:
        check_hub_name(str(self), self.repo, self.subfolder or None, self.revision)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a reference to an adapter on the hub.

        Raises:
            InvalidReference: If it names no repo, or a part of it is invalid.
        """
        is_hub = text.strip().startswith("hub:")
        try:
            reference = Reference.parse(text)
        except InvalidReference as error:
            if not is_hub:
                raise
            raise _no_adapter(text, f" {error.message}") from error
        segments = reference.name.split("/")
        if not is_hub or len(segments) < 2:  # noqa: PLR2004 - the organisation and the repo
            raise _no_adapter(text)
        return cls("/".join(segments[:2]), "/".join(segments[2:]), reference.tag)

    def path_of(self, name: str) -> str:
        """Return the path of a file in the repo."""
        return f"{self.subfolder}/{name}" if self.subfolder else name

    def __str__(self) -> str:
        """Return the reference."""
        folder = f"{self.repo}/{self.subfolder}" if self.subfolder else self.repo
        return f"hub:{folder}@{self.revision}" if self.revision else f"hub:{folder}"


def _no_adapter(text: str, reason: str = "") -> InvalidReference:
    message = f"{text!r} is no adapter on the hub: write 'hub:org/repo', 'hub:org/repo@revision'"
    return InvalidReference(f"{message} or 'hub:org/repo/subfolder@revision'.{reason}", reference=text)


def parse_parts(texts: Iterable[str]) -> dict[str, str]:
    """Return types by the names of parts from texts such as ``text=t5``.

    Raises:
        InvalidRequest: If a text has another form, or two name the same part.
    """
    chosen: dict[str, str] = {}
    for text in texts:
        name, equals, model_type = (piece.strip() for piece in text.partition("="))
        if not (name and equals and model_type):
            message = f"{text[:100]!r} names no part. Write NAME=TYPE, such as text=t5."
            raise InvalidRequest(message, field="part", value=text[:100])
        if name in chosen:
            message = f"The part {name!r} is given as {quoted([chosen[name], model_type])}. Give it once."
            raise InvalidRequest(message, field="part", value=name[:100])
        chosen[name] = model_type
    return chosen
