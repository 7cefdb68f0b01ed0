"""References: one grammar, one parser. ``timm:resnet50.a1_in1k`` -> library, name and tag."""

from dataclasses import dataclass
from typing import Literal, Self, get_args

from .errors import InvalidReference, quoted

Scheme = Literal["transformers", "timm", "diffusers", "torch", "hub", "file"]
SCHEMES: tuple[str, ...] = get_args(Scheme)
MAX_LENGTH = 512


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

    @property
    def registered_name(self) -> str:
        """The name in the registry: ``torch:package.module:Class`` is kept by its qualified name."""
        return self.name.replace(":", ".")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``SCHEME:NAME``; a bare word means ``transformers:``.

        Raises:
            InvalidReference: If the scheme is unknown, the name is empty or the text is too long.
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
        base, _, tag = name.partition(separator) if separator else (name, "", "")
        return cls(scheme, base, tag or None)  # type: ignore[arg-type]  # membership in SCHEMES was checked

    def __str__(self) -> str:
        """Return the reference in its canonical form."""
        tag = {"timm": ".", "hub": "@"}.get(self.scheme, "") + self.tag if self.tag else ""
        return f"{self.scheme}:{self.name}{tag}"
