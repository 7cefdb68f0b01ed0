"""Answer lookups from a registry that was exported as static files (``loradar.static_files``).

A file server ignores the query of a URL, so what a query would choose is chosen here.
"""

from dataclasses import replace
from typing import NamedTuple

from ..domain.mappings import Mapping
from ..errors import InvalidRequest, NotRegistered, quoted
from ..references import Understood, describe
from ..static_files import StaticAnswers, StaticIndex

STATIC = "static"
"""Detail of an error about what only a service or a registry can answer."""


class StaticQuery(NamedTuple):
    """The part of a lookup that static files can answer."""

    name: str
    peft_type: str
    preset: str
    library: str | None
    library_version: str | None

    def find_reference(self, index: StaticIndex) -> tuple[str, Understood | None]:
        """Return the reference of an architecture of an export, and how the name was understood.

        Raises:
            NotRegistered: If the export has no such architecture.
            InvalidReference: If the name is empty or too long.
        """
        from ..references.resolver import resolve  # noqa: PLC0415 - only static files need the client to resolve names

        known = frozenset(index.architectures)
        exact = f"{self.library or 'transformers'}:{self.name}"
        exact = self.name if ":" in self.name else exact
        if exact in known:
            return exact, None
        candidates = resolve(self.name, self.library, known)
        fitting = [one for one in candidates if one.reference in known and one.how != "near name"]
        if not fitting:
            near = [one.reference for one in candidates if one.reference in known]
            closest = f" Closest: {quoted(near)}." if near else ""
            message = f"The static files have no architecture {self.name!r}.{closest}"
            raise NotRegistered(self.name, near, message)
        return fitting[0].reference, describe(self.name, fitting[0], candidates[1:])

    def choose(self, answers: StaticAnswers, reference: str, understood: Understood | None) -> Mapping:
        """Return the answer for the method, the preset and the version.

        Raises:
            NotRegistered: If there is none for this method and preset.
            InvalidRequest: If it is not known to hold for the version.
        """
        found = answers.find(self.peft_type, self.preset)
        if found is None:
            message = f"The static files have no {self.peft_type} mapping of {reference} for preset {self.preset!r}."
            message += f" They have: {', '.join(answers.list_choices())}."
            raise NotRegistered(self.name, (), message)
        if self.library_version and not _holds(found, self.library_version):
            raise _only_a_service(f"library_version {self.library_version!r}", "library_version")
        return replace(found, understood=understood)


def _holds(mapping: Mapping, version: str) -> bool:
    check, versions = mapping.verification, mapping.versions
    return bool((check and check.library_version == version) or (versions and versions.hold(version)))


def reject_choice(names: list[str]) -> None:
    """Raise ``InvalidRequest`` if a lookup has more than static files can answer: a selection, or parts."""
    if names:
        raise _only_a_service(", ".join(names), names[0])


def _only_a_service(what: str, field: str) -> InvalidRequest:
    message = f"Static files cannot answer {what}: use a service, or the registry on this machine."
    return InvalidRequest(message, field=field, **{STATIC: True})
