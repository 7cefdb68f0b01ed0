"""Turn errors of huggingface_hub into one-sentence errors with the way out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import HubFailed, InvalidReference

LOG_IN = "log in with 'hf auth login' or set HF_TOKEN"


@contextmanager
def translate_errors(endpoint: str, reference: str, repo: str, missing: Callable[[str], str]) -> Iterator[None]:
    """Raise errors of the hub, or of the connection to it, as loradar's errors.

    Args:
        endpoint: Address of the hub.
        reference: The reference as the user wrote it.
        repo: ``org/repo``.
        missing: Return the meaning of a missing file of this name, as the rest of a sentence.

    Raises:
        InvalidReference: If the repo's name is invalid.
        HubFailed: For every other error.
    """
    from huggingface_hub import errors  # noqa: PLC0415 - an extra

    try:
        yield
    except errors.HFValidationError as error:
        message = f"{reference!r} names no repo: {error}"
        raise InvalidReference(message, reference=reference) from error
    # Version 1 uses another HTTP library; a failed upload is a RuntimeError, a rejected card a ValueError.
    except (errors.HTTPError, OSError, RuntimeError, ValueError) as error:  # type: ignore[attr-defined]
        message = f"{reference} {_explain(endpoint, repo, error, missing)}"
        raise HubFailed(message, reference=reference, endpoint=endpoint) from error


def classify(error: HubFailed) -> str:
    """Return the kind of an error that ``translate_errors`` raised.

    Returns:
        ``gated``, ``gone``, ``closed`` (to this account), ``throttled``, ``unreachable``, or ``redirected`` for a
        redirect that is not followed, which has no cause.
    """
    from huggingface_hub import errors  # noqa: PLC0415

    cause = error.__cause__
    if cause is None:
        return "redirected"
    if isinstance(cause, errors.GatedRepoError):
        return "gated"
    if isinstance(
        cause, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.RemoteEntryNotFoundError
    ):
        return "gone"
    status = cause.response.status_code if isinstance(cause, errors.HfHubHTTPError) else None
    kinds = {401: "closed", 403: "closed", 404: "gone", 410: "gone", 429: "throttled", 503: "throttled"}
    return kinds.get(status or 0, "unreachable")


def _explain(endpoint: str, repo: str, error: Exception, missing: Callable[[str], str]) -> str:
    """Return the problem and the way out, as the rest of a sentence that begins with the reference."""
    from huggingface_hub import errors  # noqa: PLC0415

    address = f"{endpoint}/{repo}"
    if isinstance(error, errors.GatedRepoError):
        return f"is gated, and this account has no access. Ask for it at {address}, then {LOG_IN}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"is not on {endpoint}, or not open to this account. Check the name; if it is private, {LOG_IN}."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no such revision: {address}/tree/main lists them. A subfolder stands before the '@'."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return missing(error.response.url.path.rpartition("/")[2])
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, errors.HTTPError):  # type: ignore[attr-defined]
        cause = cause.__cause__  # huggingface_hub wraps the errors of its HTTP library
    return _explain_connection(endpoint, cause)


def _explain_connection(endpoint: str, error: BaseException) -> str:
    from huggingface_hub import errors  # noqa: PLC0415

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "is out of reach: HF_HUB_OFFLINE is set, and a needed file is not in the cache. Unset it once."
    if isinstance(error, errors.HfHubHTTPError):
        status, reason = error.response.status_code, error.server_message or error.response.reason_phrase
        way_out = f" If it should be open to you, {LOG_IN}." if status in (401, 403) else ""
        return f"is refused by {endpoint}: {status}, {reason.rstrip('.')}.{way_out}"
    if isinstance(error, errors.HTTPError):  # type: ignore[attr-defined]
        return f"is out of reach: {endpoint} does not answer ({error}). Check the connection and HF_ENDPOINT."
    return f"cannot be had or stored: {' '.join(str(error).split())}"


def explain_missing(name: str) -> str:
    """Return the error for a repo that lacks a file of a model, as the rest of a sentence."""
    return f"holds no {name}: transformers cannot load it either. Give a repo that has one."
