"""What a client may write, and what it reads back of it: tokens, submissions, reviews, what is yanked and restored."""

from typing import Unpack

from ..domain.changes import Revision
from ..domain.identities import Actor, NewToken, Token, TokenList, TokenRole
from ..domain.schema import to_json
from ..domain.submissions import Filters, ReviewDecision, Statement, Submission, SubmissionPage
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
        made = self._send_once(NewToken, "/v1/tokens", body)
        return made.token, made.secret

    def tokens(self) -> tuple[Token, ...]:
        """Return every token, without the secrets; an admin may."""
        return self._get(TokenList, "/v1/tokens", {}).tokens

    def revoke_token(self, token_id: int) -> Token:
        """Have a token work no longer; an admin may.

        Raises:
            UnknownToken: If there is none of this number.
        """
        return self._send_once(Token, f"/v1/tokens/{token_id}/revocation", {})

    def whoami(self) -> Actor:
        """Return whose token this client has."""
        return self._get(Actor, "/v1/tokens/me", {})

    def submit(self, statement: Statement, key: str | None = None) -> Submission:
        """Send a statement in; its checks follow.

        Raises:
            StatementRefused: If it cannot be what it says.
            Conflict: If the same statement is open already.
        """
        return self._send(Submission, "/v1/submissions", to_json(statement), key=key)

    def submission(self, submission_id: int) -> Submission:
        """Return a submission with its evidence and reviews.

        Raises:
            UnknownSubmission: If there is none of this number.
        """
        return self._get(Submission, f"/v1/submissions/{submission_id}", {})

    def submissions(
        self, *, before: int | None = None, limit: int = 50, **filters: Unpack[Filters]
    ) -> tuple[Submission, ...]:
        """Return submissions, the newest first, without their evidence: at most ``limit`` of those below ``before``."""
        page = {"before": None if before is None else str(before), "limit": str(limit)}
        asked = {name: None if value is None else str(value) for name, value in filters.items()}
        return self._get(SubmissionPage, "/v1/submissions", {**asked, **page}).submissions

    def review(
        self,
        submission_id: int,
        decision: ReviewDecision,
        comment: str,
        *,
        version: int | None = None,
        key: str | None = None,
    ) -> Submission:
        """Decide about a submission of somebody else's; a reviewer may. To approve publishes a revision."""
        body = {"decision": decision, "comment": comment}
        path = f"/v1/submissions/{submission_id}/reviews"
        return self._send(Submission, path, body, version=version, key=key)

    def withdraw(
        self, submission_id: int, reason: str, *, version: int | None = None, key: str | None = None
    ) -> Submission:
        """Take a submission of one's own back before it is decided."""
        path = f"/v1/submissions/{submission_id}/withdrawal"
        return self._send(Submission, path, {"reason": reason}, version=version, key=key)

    def revision(self, mapping_id: str) -> Revision:
        """Return a revision of a mapping with its story; the first eight digits of its id will do.

        Raises:
            UnknownMapping: If there is none.
        """
        return self._get(Revision, f"/v1/mappings/{quoted_segment(mapping_id)}", {})

    def yank(self, mapping_id: str, reason: str, *, version: int | None = None, key: str | None = None) -> Revision:
        """Have a revision no longer used; a reviewer may."""
        path = f"/v1/mappings/{quoted_segment(mapping_id)}/yank"
        return self._send(Revision, path, {"reason": reason}, version=version, key=key)

    def restore(self, mapping_id: str, reason: str, *, version: int | None = None, key: str | None = None) -> Revision:
        """Have a yanked revision used again; a reviewer may."""
        path = f"/v1/mappings/{quoted_segment(mapping_id)}/restoration"
        return self._send(Revision, path, {"reason": reason}, version=version, key=key)
