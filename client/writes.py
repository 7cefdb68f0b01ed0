"""What a client may write, and what it reads back of it: tokens, submissions, reviews, what is yanked and restored."""

from collections.abc import Mapping as Json
from typing import Any, Unpack

from ..domain.changes import Revision
from ..domain.identities import Actor, Token, TokenRole
from ..domain.submissions import Decision, Filters, Statement, Submission
from .connection import Connection, quoted_segment


class Contributions(Connection):
    """The calls that need a token, and those that tell what became of them.

    Every write carries an idempotency key, and may carry the version the thing must still have. The errors of all of
    them are the registry's: NotAuthenticated, NotAllowed, Conflict, StaleVersion, InvalidRequest, TooManyRequests; and
    ServiceUnreachable, if there is no usable answer.
    """

    def create_token(self, name: str, role: TokenRole, expires_days: int | None = None) -> tuple[Token, str]:
        """Make a token and return it with its secret, which nobody will see again; an admin may.

        It is asked for once: a token whose secret was lost with the answer should be seen to be there, and revoked.
        """
        body = {"name": name, "role": role, "expires_days": expires_days}
        return self._send_once(_to_new_token, "/v1/tokens", body)

    def tokens(self) -> tuple[Token, ...]:
        """Return every token, without the secrets; an admin may."""
        return self._get(_to_tokens, "/v1/tokens", {})

    def revoke_token(self, token_id: int) -> Token:
        """Have a token work no longer; an admin may.

        Raises:
            UnknownToken: If there is none of this number.
        """
        return self._send_once(Token.from_dict, f"/v1/tokens/{token_id}/revocation", {})

    def whoami(self) -> Actor:
        """Return whose token this client has."""
        return self._get(_to_actor, "/v1/tokens/me", {})

    def submit(self, statement: Statement, key: str | None = None) -> Submission:
        """Send a statement in; its checks follow.

        Raises:
            StatementRefused: If it cannot be what it says.
            Conflict: If the same statement is open already.
        """
        return self._send(Submission.from_dict, "/v1/submissions", statement.to_dict(), key=key)

    def submission(self, submission_id: int) -> Submission:
        """Return a submission with its evidence and reviews.

        Raises:
            UnknownSubmission: If there is none of this number.
        """
        return self._get(Submission.from_dict, f"/v1/submissions/{submission_id}", {})

    def submissions(
        self, *, before: int | None = None, limit: int = 50, **filters: Unpack[Filters]
    ) -> tuple[Submission, ...]:
        """Return submissions, the newest first, without their evidence: at most ``limit`` of those below ``before``."""
        page = {"before": None if before is None else str(before), "limit": str(limit)}
        asked = {name: None if value is None else str(value) for name, value in filters.items()}
        return self._get(_to_submissions, "/v1/submissions", {**asked, **page})

    def review(
        self,
        submission_id: int,
        decision: Decision,
        comment: str,
        *,
        version: int | None = None,
        key: str | None = None,
    ) -> Submission:
        """Decide about a submission of somebody else's; a reviewer may. To approve publishes a revision."""
        body = {"decision": decision, "comment": comment}
        path = f"/v1/submissions/{submission_id}/reviews"
        return self._send(Submission.from_dict, path, body, version=version, key=key)

    def withdraw(
        self, submission_id: int, reason: str, *, version: int | None = None, key: str | None = None
    ) -> Submission:
        """Take a submission of one's own back before it is decided."""
        path = f"/v1/submissions/{submission_id}/withdrawal"
        return self._send(Submission.from_dict, path, {"reason": reason}, version=version, key=key)

    def revision(self, mapping_id: str) -> Revision:
        """Return a revision of a mapping with its story; the first eight digits of its id will do.

        Raises:
            UnknownMapping: If there is none.
        """
        return self._get(Revision.from_dict, f"/v1/mappings/{quoted_segment(mapping_id)}", {})

    def yank(self, mapping_id: str, reason: str, *, version: int | None = None, key: str | None = None) -> Revision:
        """Have a revision no longer used; a reviewer may."""
        path = f"/v1/mappings/{quoted_segment(mapping_id)}/yank"
        return self._send(Revision.from_dict, path, {"reason": reason}, version=version, key=key)

    def restore(self, mapping_id: str, reason: str, *, version: int | None = None, key: str | None = None) -> Revision:
        """Have a yanked revision used again; a reviewer may."""
        path = f"/v1/mappings/{quoted_segment(mapping_id)}/restoration"
        return self._send(Revision.from_dict, path, {"reason": reason}, version=version, key=key)


def _to_new_token(body: Json[str, Any]) -> tuple[Token, str]:
    return Token.from_dict(body["token"]), body["secret"]


def _to_tokens(body: Json[str, Any]) -> tuple[Token, ...]:
    return tuple(map(Token.from_dict, body["tokens"]))


def _to_actor(body: Json[str, Any]) -> Actor:
    return Actor(body["name"], body["role"])


def _to_submissions(body: Json[str, Any]) -> tuple[Submission, ...]:
    return tuple(map(Submission.from_dict, body["submissions"]))
