"""What goes wrong with a hub, in words: what huggingface_hub raises becomes one sentence with the way out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import HubFailed, InvalidReference

LOG_IN = "log in with 'hf auth login' or set HF_TOKEN"


@contextmanager
def in_words(endpoint: str, reference: str, repo: str, missing: Callable[[str], str]) -> Iterator[None]:
    """Say what the hub or the connection to it refuses.

    Args:
        endpoint: Address of the hub.
        reference: What was asked for, as the user wrote it.
        repo: ``org/repo``.
        missing: Says what it means that a file of this name is not there, as the rest of a sentence.

    Raises:
        InvalidReference: If the repo's name is impossible.
        HubFailed: For everything else.
    """
    from huggingface_hub import errors  # noqa: PLC0415 - an extra

    try:
        yield
    except errors.HFValidationError as error:
        message = f"{reference!r} names no repo: {error}"
        raise InvalidReference(message, reference=reference) from error
    # Its HTTP library is another one in version 1; a failed upload is a RuntimeError, a refused card a ValueError.
    except (errors.HTTPError, OSError, RuntimeError, ValueError) as error:  # type: ignore[attr-defined]
        message = f"{reference} {_reason(endpoint, repo, error, missing)}"
        raise HubFailed(message, reference=reference, endpoint=endpoint) from error


def _reason(endpoint: str, repo: str, error: Exception, missing: Callable[[str], str]) -> str:
    """Return what went wrong and the way out, as the rest of a sentence that begins with the reference."""
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
    return _no_answer(endpoint, _root(error))


def _root(error: BaseException) -> BaseException:
    """Return what an error was raised for: huggingface_hub wraps what it got."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # noqa: PLC0415

    while error.__cause__ is not None and not isinstance(error, HTTPError):
        error = error.__cause__
    return error


def _no_answer(endpoint: str, error: BaseException) -> str:
    """Say why nothing came back."""
    from huggingface_hub import errors  # noqa: PLC0415

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "is out of reach: HF_HUB_OFFLINE is set, and what is needed is not in the cache. Unset it once."
    if isinstance(error, errors.HfHubHTTPError):
        status, said = error.response.status_code, error.server_message or error.response.reason_phrase
        way_out = f" If it should be open to you, {LOG_IN}." if status in (401, 403) else ""
        return f"is refused by {endpoint}: {status}, {said.rstrip('.')}.{way_out}"
    if isinstance(error, errors.HTTPError):  # type: ignore[attr-defined]
        return f"is out of reach: {endpoint} does not answer ({error}). Check the connection and HF_ENDPOINT."
    return f"cannot be had or stored: {' '.join(str(error).split())}"
