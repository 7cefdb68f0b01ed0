"""The one error tree of loradar; every class carries its values, an HTTP status and an exit code.

::

    LoradarError
    ├── InvalidReference      a reference that cannot be parsed
    ├── UnknownName           a name that is not among the known ones; carries the nearest
    │   ├── UnknownArchitecture   no such architecture in its library
    │   ├── UnknownLibrary
    │   ├── NotRegistered         a real name maybe, but the registry holds nothing for it
    │   ├── UnknownPreset
    │   ├── UnknownPeftType
    │   ├── UnknownSubmission
    │   ├── UnknownMapping        no revision has this id
    │   └── UnknownToken
    ├── ScanFailed            an architecture that could not be built or read
    │   └── NoAdaptableLayers     a model with nothing an adapter could sit on
    ├── MethodDoesNotFit      a PEFT method that can adapt nothing of an architecture
    ├── InvalidConfig         an adapter configuration with an impossible value
    │   └── TargetsNotFound       targets that match no layer of this model
    ├── AdapterUnreadable     an adapter folder that cannot be loaded
    ├── HubFailed             a repo on the hub that is not there, not open to this account, or out of reach
    ├── DatabaseUnusable      a database that is corrupted, foreign or out of reach
    ├── ConstantsUnreadable   a PEFT constants.py that is missing or uses an unknown construct
    ├── InvalidRequest        a REST request with a bad field
    ├── InvalidStatement      a contribution that cannot be what it says
    ├── NotAuthenticated      no token, or one that does not work
    ├── NotAllowed            a token whose role, or whose owner, may not do this
    ├── Conflict              something is in a state in which this cannot be done
    │   ├── StaleVersion          it changed since it was read
    │   └── KeyReused             an idempotency key that came with another request before
    ├── TooManyRequests       more than the limit of requests
    ├── TooLarge              a body over the limit
    ├── Overloaded            no worker is free to take it
    ├── WorkerFailed          a worker process that ran out of time or memory, or died
    ├── AuditLogBroken        the audit log was changed behind loradar's back
    ├── SignatureInvalid      a snapshot that is not as it was signed
    ├── CannotServe           the service cannot listen where it was told to
    ├── ServiceUnreachable    the REST client got no usable answer
    └── MissingExtra          an optional dependency that is not installed
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

from .domain.schema import Config, schema_config, to_json


@dataclass(frozen=True, slots=True)
class ErrorContent:
    """A code for programs, a sentence for people, and the values behind it."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    code: str
    message: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The one JSON shape of every error."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (ERROR_EXAMPLE,))

    error: ErrorContent


ERROR_EXAMPLE: ErrorBody = ErrorBody(
    ErrorContent(
        "not_registered",
        "Nothing is registered for transformers:olmo2. Scan it with: loradar scan olmo2 --store.",
        {"name": "olmo2", "near": [], "library": "transformers"},
    )
)


class LoradarError(Exception):
    """Base of everything loradar raises on purpose.

    Attributes:
        message: One sentence naming the thing, the value and the way out.
        details: The values behind the message, JSON-ready.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 400
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details

    def to_dict(self) -> dict[str, Any]:
        """Return the one JSON shape every error has, over REST and under ``--json``."""
        return to_json(ErrorBody(ErrorContent(self.code, self.message, self.details)))


class InvalidReference(LoradarError):
    """A reference such as ``transformers:llama`` that cannot be parsed."""

    code = "invalid_reference"


class UnknownName(LoradarError):
    """A name that is not among the known ones.

    Attributes:
        name: What was asked for.
        near: Known names that look like it, nearest first.
    """

    code = "unknown_name"
    status = 404
    noun: ClassVar[str] = "name"

    def __init__(self, name: str, known: Iterable[str], way_out: str = "", **details: Any) -> None:
        self.name = name
        self.near = nearest(name, known)
        sentences = [
            f"Unknown {self.noun} {name!r}.",
            f"Closest: {quoted(self.near)}." if self.near else "",
            way_out,
        ]
        super().__init__(" ".join(filter(None, sentences)), name=name, near=self.near, **details)


class UnknownArchitecture(UnknownName):
    """No library knows an architecture of this name."""

    code = "unknown_architecture"
    noun = "architecture"


class UnknownLibrary(UnknownName):
    """A library loradar does not list architectures of."""

    code = "unknown_library"
    noun = "library"


class NotRegistered(UnknownName):
    """The registry holds no mapping for this architecture, PEFT type and preset."""

    code = "not_registered"
    noun = "mapping"

    def __init__(self, name: str, known: Iterable[str], message: str, **details: Any) -> None:
        self.name = name
        self.near = nearest(name, known)
        closest = f" Closest registered: {quoted(self.near)}." if self.near else ""
        LoradarError.__init__(self, message + closest, name=name, near=self.near, **details)


class UnknownPreset(UnknownName):
    """A preset that is not one of design's presets."""

    code = "unknown_preset"
    noun = "preset"


class UnknownPeftType(UnknownName):
    """A PEFT method nothing is known for."""

    code = "unknown_peft_type"
    noun = "PEFT type"


class UnknownSubmission(UnknownName):
    """No submission has this number."""

    code = "unknown_submission"
    noun = "submission"


class UnknownMapping(UnknownName):
    """No revision of a mapping has this id."""

    code = "unknown_mapping"
    noun = "mapping"


class UnknownToken(UnknownName):
    """No token has this number."""

    code = "unknown_token"
    noun = "token"


class ScanFailed(LoradarError):
    """An architecture could not be built or read; the message names the cause."""

    code = "scan_failed"
    status = 422


class NoAdaptableLayers(ScanFailed):
    """A model that owns no layer an adapter could sit on."""

    code = "no_adaptable_layers"


class MethodDoesNotFit(LoradarError):
    """A PEFT method that can adapt nothing of what it would have to adapt in an architecture."""

    code = "method_does_not_fit"
    status = 422


class InvalidConfig(LoradarError, ValueError):
    """An adapter configuration with an impossible or unsupported value."""

    code = "invalid_config"
    status = 422


class TargetsNotFound(InvalidConfig):
    """Targets that match no layer of this model; carries the closest names and their counts."""

    code = "targets_not_found"


class AdapterUnreadable(LoradarError):
    """An adapter folder whose files are missing, truncated or do not fit the model."""

    code = "adapter_unreadable"
    status = 422


class HubFailed(LoradarError):
    """The hub does not have what was asked for, does not give or take it, or does not answer."""

    code = "hub_failed"
    status = 502


class DatabaseUnusable(LoradarError):
    """The registry's database is corrupted, belongs to something else or cannot be reached."""

    code = "database_unusable"
    status = 503


class ConstantsUnreadable(LoradarError):
    """A PEFT ``constants.py``, or a copy of its facts, that cannot be read; the message names the line."""

    code = "constants_unreadable"
    status = 422


class InvalidRequest(LoradarError):
    """A REST request with a missing or impossible field."""

    code = "invalid_request"
    status = 422


class InvalidStatement(LoradarError):
    """A contribution that cannot be what it says; the message names the field and what would do."""

    code = "statement_refused"
    status = 422


class NotAuthenticated(LoradarError):
    """No token was given, or one that is unknown, expired or revoked."""

    code = "not_authenticated"
    status = 401


class NotAllowed(LoradarError):
    """The token's role is too low for this, or its owner is the one person who may not do it."""

    code = "not_allowed"
    status = 403


class Conflict(LoradarError):
    """What was asked for cannot be done in the state the thing is in."""

    code = "conflict"
    status = 409


class StaleVersion(Conflict):
    """``If-Match`` names a version that is no longer the current one."""

    code = "stale_version"
    status = 412


class KeyReused(Conflict):
    """An idempotency key that came with another request before."""

    code = "key_reused"
    status = 422


class TooManyRequests(LoradarError):
    """More requests than the limit; ``details["retry_after"]`` says in how many seconds to come again."""

    code = "too_many_requests"
    status = 429


class TooLarge(LoradarError):
    """A body of more bytes than the limit."""

    code = "too_large"
    status = 413


class Overloaded(LoradarError):
    """No worker is free, and too much is waiting already; ``details["retry_after"]`` in seconds."""

    code = "overloaded"
    status = 503


class WorkerFailed(LoradarError):
    """A worker process ran out of its time or memory, or died; the service is not affected."""

    code = "worker_failed"
    status = 503


class AuditLogBroken(LoradarError):
    """The audit log does not hold together: something was changed without loradar."""

    code = "audit_log_broken"
    status = 500
    exit_code = 1


class SignatureInvalid(LoradarError):
    """A snapshot that was cut off or altered, or signed by somebody else than expected."""

    code = "signature_invalid"
    status = 502
    exit_code = 1


class CannotServe(LoradarError):
    """The service cannot listen on the host and port it was given."""

    code = "cannot_serve"
    status = 500


class ServiceUnreachable(LoradarError):
    """The REST client could not reach the service, or got an answer that is not its protocol."""

    code = "service_unreachable"
    status = 502


class MissingExtra(LoradarError):
    """An optional dependency is not installed."""

    code = "missing_extra"
    status = 501

    def __init__(self, package: str, extra: str) -> None:
        message = f"{package!r} is not installed. Install it with: pip install 'loradar[{extra}]'"
        super().__init__(message, package=package, extra=extra)


def nearest(name: str, known: Iterable[str], limit: int = 5) -> list[str]:
    """Return up to ``limit`` known names that look like ``name``, nearest first, ignoring case."""
    by_folded: Mapping[str, str] = {candidate.casefold(): candidate for candidate in sorted(known)}
    return [by_folded[match] for match in get_close_matches(name.casefold(), by_folded, n=limit, cutoff=0.6)]


def quoted(names: Iterable[str]) -> str:
    """Return names quoted and joined by commas, for a message."""
    return ", ".join(repr(name) for name in names)


def to_error(body: Mapping[str, Any]) -> LoradarError:
    """Return the error a body of the one error shape stands for, as the class with its code."""
    code, message, details = (body["error"][field] for field in ("code", "message", "details"))
    kind = next((kind for kind in _family(LoradarError) if kind.code == code), LoradarError)
    # Past the class's own __init__, which would compose the message a second time.
    error = kind.__new__(kind, message)
    error.message, error.details = str(message), dict(details)
    if isinstance(error, UnknownName):
        error.name, error.near = details["name"], details["near"]
    return error


def _family(kind: type[LoradarError]) -> Iterator[type[LoradarError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)
