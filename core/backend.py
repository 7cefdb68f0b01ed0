"""Declare the operations of contributors, reviewers and admins once, for the local registry and for a service."""

from typing import Protocol, Unpack

from .domain.changes import Revision
from .domain.identities import Token, TokenRole
from .domain.submissions import Filters, ReviewDecision, Statement, Submission


class Backend(Protocol):
    """A place to contribute to, on behalf of one person.

    ``loradar.Client`` implements it for a service, ``Registry.backend`` for the local registry. Where an operation
    takes ``version``, it is done only if the submission or revision still has that version.

    Raises:
        NotAuthenticated: By every write, if the person has no valid token.
        NotAllowed: By every write, if the person's role does not allow it.
        InvalidRequest: If an argument is out of bounds.
        TooManyRequests: If a limit is exceeded.
        ServiceUnreachable: By a client, if the service does not answer.
    """

    def submit(self, statement: Statement) -> Submission:
        """Submit a statement; it is ``checking`` until its machine checks are finished. For contributors.

        Raises:
            InvalidStatement: If it is invalid.
            Conflict: If an equal submission is open, or the submitter has too many open ones.
        """
        ...

    def submission(self, submission_id: int) -> Submission:
        """Return a submission with its evidence and reviews.

        Raises:
            UnknownSubmission: If no submission has this number.
        """
        ...

    def submissions(
        self, *, before: int | None = None, limit: int = 50, **filters: Unpack[Filters]
    ) -> tuple[Submission, ...]:
        """Return submissions, newest first, without their evidence and layers, which may be long.

        Args:
            before: Only those with a lower number.
            limit: Submissions at most.
            filters: Only those of this ``status``, ``library``, architecture ``name``, ``submitter`` or ``origin``.
        """
        ...

    def review(
        self, submission_id: int, decision: ReviewDecision, comment: str, *, version: int | None = None
    ) -> Submission:
        """Approve or reject another person's submission; an approved one is published at once. For reviewers.

        Raises:
            UnknownSubmission: If no submission has this number.
            NotAllowed: If the reviewer submitted it.
            Conflict: If it is not waiting for a review, or the registry has an equal revision.
            StaleVersion: If it has changed since ``version``.
        """
        ...

    def withdraw(self, submission_id: int, reason: str, *, version: int | None = None) -> Submission:
        """Withdraw a submission before it is decided. For its submitter, and for admins.

        Raises:
            UnknownSubmission: If no submission has this number.
            Conflict: If it is decided already.
            StaleVersion: If it has changed since ``version``.
        """
        ...

    def yank(self, mapping_id: str, reason: str, *, version: int | None = None) -> Revision:
        """Take a revision out of use, so that lookups ignore it; nothing is deleted. For reviewers.

        Args:
            mapping_id: Its id, or the first eight digits.
            reason: The reason, kept in the history.
            version: The version the decision is based on.

        Raises:
            UnknownMapping: If no revision has this id.
            Conflict: If it is yanked already.
            StaleVersion: If it has changed since ``version``.
        """
        ...

    def restore(self, mapping_id: str, reason: str, *, version: int | None = None) -> Revision:
        """Take a yanked revision into use again. For reviewers.

        Raises:
            UnknownMapping: If no revision has this id.
            Conflict: If it is in use.
            StaleVersion: If it has changed since ``version``.
        """
        ...

    def create_token(self, name: str, role: TokenRole, expires_days: int | None = None) -> tuple[Token, str]:
        """Create a token, and return it with its secret, which cannot be read again. For admins.

        Args:
            name: Its owner; all tokens of a person have the same name.
            role: The role of its owner.
            expires_days: Days until it expires; ``None`` for never.

        Raises:
            InvalidRequest: If the name, role or time is invalid.
        """
        ...

    def tokens(self) -> tuple[Token, ...]:
        """Return every token ever created, oldest first, without secrets. For admins."""
        ...

    def revoke_token(self, token_id: int) -> Token:
        """Revoke a token. For admins.

        Raises:
            UnknownToken: If no token has this number.
            Conflict: If it is revoked already.
        """
        ...
