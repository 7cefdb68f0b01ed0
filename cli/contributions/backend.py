"""Open the backend that contributions go to: the local registry, or a service.

Commands call both by the same names: a ``LocalBackend`` has the methods of a ``Client``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias, Unpack

from ...errors import NotAuthenticated
from ..options import TOKEN_VARIABLE

if TYPE_CHECKING:
    from ...client import Client
    from ...domain.changes import Revision
    from ...domain.identities import Actor, Token, TokenRole
    from ...domain.submissions import Filters, ReviewDecision, Statement, Submission
    from ...registry import Registry

Backend: TypeAlias = "LocalBackend | Client"


@contextmanager
def open_backend(url: str | None, secret: str | None, *, writes: bool = True) -> Iterator[Backend]:
    """Yield the service at ``url``, or the local registry.

    Raises:
        NotAuthenticated: If ``writes`` and no token was given.
    """
    if writes and not secret:
        raise _no_token(url)
    if url:
        from ...client import Client

        with Client(url, token=secret or None) as client:
            yield client
    else:
        from ...registry import Registry

        with Registry.open() as registry:
            yield LocalBackend(registry, secret)


def _no_token(url: str | None) -> NotAuthenticated:
    way_out = f"Ask the operator of {url} for one" if url else "Create one with: loradar token create NAME --role ROLE"
    return NotAuthenticated(f"This needs a token. {way_out}; then set {TOKEN_VARIABLE} to it.", variable=TOKEN_VARIABLE)


class LocalBackend:
    """The local registry with the methods of a client; an owner of the database needs no token to create tokens."""

    def __init__(self, registry: "Registry", secret: str | None) -> None:
        self.registry = registry
        self._secret = secret

    @cached_property
    def actor(self) -> "Actor":
        """The token's owner.

        Raises:
            NotAuthenticated: If it is unknown, expired or revoked.
        """
        if not self._secret:
            raise _no_token(None)
        return self.registry.tokens.authenticate(self._secret)

    def create_token(self, name: str, role: "TokenRole", expires_days: int | None = None) -> "tuple[Token, str]":
        """Create a token and return it with its secret."""
        expires_in = None if expires_days is None else timedelta(days=expires_days)
        return self.registry.tokens.create(name, role, expires_in=expires_in)

    def tokens(self) -> "tuple[Token, ...]":
        """Return every token, without the secrets."""
        return self.registry.tokens.list()

    def revoke_token(self, token_id: int) -> "Token":
        """Revoke a token."""
        return self.registry.tokens.revoke(token_id)

    def submit(self, statement: "Statement") -> "Submission":
        """Submit a statement, unless its checks are certain to fail."""
        from ...sandbox.tasks import precheck

        precheck(statement)
        return self.registry.submissions.add(statement, self.actor)

    def submission(self, submission_id: int) -> "Submission":
        """Return a submission with its evidence and reviews."""
        return self.registry.submissions.get(submission_id)

    def submissions(
        self, *, before: int | None = None, limit: int = 50, **filters: "Unpack[Filters]"
    ) -> "tuple[Submission, ...]":
        """Return submissions, newest first, without their evidence."""
        return self.registry.submissions.list(before=before, limit=limit, **filters)

    def review(
        self, submission_id: int, decision: "ReviewDecision", comment: str, *, version: int | None = None
    ) -> "Submission":
        """Approve or reject a submission."""
        return self.registry.submissions.review(submission_id, self.actor, decision, comment, version=version)

    def withdraw(self, submission_id: int, reason: str, *, version: int | None = None) -> "Submission":
        """Withdraw a submission."""
        return self.registry.submissions.withdraw(submission_id, self.actor, reason, version=version)

    def yank(self, mapping_id: str, reason: str, *, version: int | None = None) -> "Revision":
        """Take a revision out of use."""
        return self.registry.revisions.yank(mapping_id, self.actor, reason, version=version)

    def restore(self, mapping_id: str, reason: str, *, version: int | None = None) -> "Revision":
        """Take a yanked revision into use again."""
        return self.registry.revisions.restore(mapping_id, self.actor, reason, version=version)
