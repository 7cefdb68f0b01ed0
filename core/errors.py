"""Define the errors loradar raises; every class has a code, an HTTP status and an exit code.

Each class is below its base, and states what it is for in its first line. The page of errors in `docs/reference/` draws
them as a tree.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from .error_body import ErrorBody, ErrorContent
from .schema import to_json
from .similar_names import nearest


class LoradarError(Exception):
    """Base class of loradar's errors.

    Attributes:
        message: One sentence with the problem, the value and the way out.
        details: The values in the message, JSON-ready.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 400
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message, self.details = message, details

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of every error, in REST responses and with ``--json``."""
        return to_json(ErrorBody(ErrorContent(self.code, self.message, self.details)))


class InvalidReference(LoradarError):
    """A reference such as ``transformers:llama`` that cannot be parsed."""

    code = "invalid_reference"


class UnknownName(LoradarError):
    """A name that is not among the known ones.

    Attributes:
        name: The unknown name.
        near: Similar known names, nearest first.
    """

    code = "unknown_name"
    status = 404
    noun: ClassVar[str] = "name"

    def __init__(self, name: str, known: Iterable[str], way_out: str = "", **details: Any) -> None:
        self.name = name
        self.near = nearest(name, known)
        sentences = [f"Unknown {self.noun} {name!r}.", f"Closest: {quoted(self.near)}." if self.near else "", way_out]
        super().__init__(" ".join(filter(None, sentences)), name=name, near=self.near, **details)


class UnknownArchitecture(UnknownName):
    """An architecture that its library does not have."""

    code = "unknown_architecture"
    noun = "architecture"


class UnknownLibrary(UnknownName):
    """A library whose architectures loradar does not list."""

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


class VersionUnproven(NotRegistered):
    """The layer names at a library version are not known, and differ between the scanned versions around it."""

    code = "version_unproven"


class UnknownPreset(UnknownName):
    """A preset that is not among the known ones."""

    code = "unknown_preset"
    noun = "preset"


class UnknownPeftType(UnknownName):
    """A PEFT method that is not among the known ones."""

    code = "unknown_peft_type"
    noun = "PEFT type"


class UnknownLayer(UnknownName):
    """A name that no layer of a model has."""

    code = "unknown_layer"
    noun = "layer"

    def __init__(self, name: str, reference: str, near: Iterable[str], way_out: str = "") -> None:
        closest = "" if way_out else f"Closest: {quoted(near)}."
        sentences = filter(None, [f"{reference} has no such layer.", closest, way_out])
        super().__init__(name, (), " ".join(sentences), reference=reference)
        self.near = self.details["near"] = [*near]


class UnknownTool(UnknownName):
    """A training tool that no snippet is written for."""

    code = "unknown_tool"
    noun = "tool"


class UnknownSubmission(UnknownName):
    """A submission number that does not exist."""

    code = "unknown_submission"
    noun = "submission"


class UnknownMapping(UnknownName):
    """A mapping id that does not exist."""

    code = "unknown_mapping"
    noun = "mapping"


class UnknownToken(UnknownName):
    """A token number that does not exist."""

    code = "unknown_token"
    noun = "token"


class ScanFailed(LoradarError):
    """An architecture could not be built or read; the message names the cause."""

    code = "scan_failed"
    status = 422


class NoAdaptableLayers(ScanFailed):
    """A model without adaptable layers."""

    code = "no_adaptable_layers"


class MethodDoesNotFit(LoradarError):
    """A PEFT method that can adapt none of the layers it would need in an architecture."""

    code = "method_does_not_fit"
    status = 422


class InvalidConfig(LoradarError, ValueError):
    """An adapter configuration with an impossible or unsupported value."""

    code = "invalid_config"
    status = 422


class TargetsNotFound(InvalidConfig):
    """Targets that match no layer of this model; gives the closest names and their counts."""

    code = "targets_not_found"


class AdapterUnreadable(LoradarError):
    """An adapter folder whose files are missing, truncated or do not fit the model."""

    code = "adapter_unreadable"
    status = 422


class WeightsUnreadable(ScanFailed):
    """A weights file, or the list of a model's weights files, that cannot be read; names the file and the tensor."""

    code = "weights_unreadable"


class HubFailed(LoradarError):
    """A hub repo that does not exist, is not accessible, or is out of reach."""

    code = "hub_failed"
    status = 502


class DatabaseUnusable(LoradarError):
    """The registry's database is corrupted, belongs to something else or cannot be reached."""

    code = "database_unusable"
    status = 503


class DatabaseBusy(DatabaseUnusable):
    """Other writers, or a query, took longer than the limit; ``details["retry_after"]`` is when to try again."""

    code = "database_busy"


class ConstantsUnreadable(LoradarError):
    """A PEFT ``constants.py``, or a copy of its facts, that cannot be read; the message names the line."""

    code = "constants_unreadable"
    status = 422


class InvalidRequest(LoradarError):
    """A REST request with a missing or impossible field."""

    code = "invalid_request"
    status = 422


class InvalidStatement(LoradarError):
    """A contribution with an invalid field; the message gives the field and a valid value."""

    code = "statement_refused"
    status = 422


class NotAuthenticated(LoradarError):
    """A missing, unknown, expired or revoked token."""

    code = "not_authenticated"
    status = 401


class NotAllowed(LoradarError):
    """A token whose role is too low, or whose owner may not do this."""

    code = "not_allowed"
    status = 403


class Conflict(LoradarError):
    """An operation that the current state does not allow."""

    code = "conflict"
    status = 409


class StaleVersion(Conflict):
    """A version in ``If-Match`` that is no longer current."""

    code = "stale_version"
    status = 412


class KeyReused(Conflict):
    """An idempotency key that was used for another request."""

    code = "key_reused"
    status = 422


class TooManyRequests(LoradarError):
    """More requests than the limit; ``details["retry_after"]`` is the waiting time in seconds."""

    code = "too_many_requests"
    status = 429


class TooLarge(LoradarError):
    """A body of more bytes than the limit."""

    code = "too_large"
    status = 413


class Overloaded(LoradarError):
    """No free worker or turn, and a full queue; ``details["retry_after"]`` is the waiting time in seconds."""

    code = "overloaded"
    status = 503


class WorkerFailed(LoradarError):
    """A worker process that ran out of time or memory, or died; the service is not affected."""

    code = "worker_failed"
    status = 503


class AuditLogBroken(LoradarError):
    """An inconsistent audit log, which was changed without loradar."""

    code = "audit_log_broken"
    status = 500
    exit_code = 1


class SignatureInvalid(LoradarError):
    """A snapshot that was cut off or altered, or signed with another key."""

    code = "signature_invalid"
    status = 502
    exit_code = 1


class SnapshotRejected(LoradarError):
    """A signed snapshot that must not be loaded: expired, older than the mirror, or of another source."""

    code = "snapshot_rejected"
    status = 409
    exit_code = 1


class ReadOnly(LoradarError):
    """A write to a registry that is not written to: it mirrors another one, or ``LORADAR_READ_ONLY`` is set."""

    code = "read_only"
    status = 403


class CannotServe(LoradarError):
    """A service that cannot listen on its host and port."""

    code = "cannot_serve"
    status = 500


class ServiceUnreachable(LoradarError):
    """A service that cannot be reached, or whose response is not of its protocol."""

    code = "service_unreachable"
    status = 502


class MissingExtra(LoradarError):
    """An optional dependency that is not installed."""

    code = "missing_extra"
    status = 501

    def __init__(self, package: str, extra: str) -> None:
        message = f"{package!r} is not installed. Install it with: pip install 'loradar[{extra}]'"
        super().__init__(message, package=package, extra=extra)


def quoted(names: Iterable[str]) -> str:
    """Return names quoted and joined by commas, for a message."""
    return ", ".join(repr(name) for name in names)
