"""Single revisions of mappings: a wrong one is yanked with a reason, never edited, and may be restored."""

from ...domain.changes import Revision
from ...domain.identities import Actor
from ...domain.schema import from_json, to_json
from ...errors import Conflict, NotAllowed, StaleVersion
from ..db.audit_log import architecture_subject, mapping_subject
from ..db.database import Database
from ..mappings.history import get_revision
from ..mappings.revisions import set_yanked
from .idempotency import Key, find_answer, keep_answer


class Revisions:
    """The revisions of a registry, one by one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, mapping_id: str) -> Revision:
        """Return one revision with its story.

        Raises:
            UnknownMapping: If there is none of this id.
        """
        with self._database.read() as connection:
            return get_revision(connection, mapping_id)

    def yank(
        self, mapping_id: str, by: Actor, reason: str, *, version: int | None = None, key: Key | None = None
    ) -> Revision:
        """Take a revision out of use: lookups answer as if it were not there.

        Args:
            mapping_id: Its id.
            by: A reviewer.
            reason: Why.
            version: The one the decision rests on.
            key: Sent twice, it is done once.

        Raises:
            UnknownMapping: If there is none of this id.
            NotAllowed: If ``by`` is no reviewer.
            Conflict: If it is yanked already.
            StaleVersion: If it changed since.
            KeyReused: If the key came with another request.
        """
        return self._set(mapping_id, by, reason, is_yanked=True, version=version, key=key)

    def restore(
        self, mapping_id: str, by: Actor, reason: str, *, version: int | None = None, key: Key | None = None
    ) -> Revision:
        """Take a yanked revision into use again.

        Args:
            mapping_id: Its id.
            by: A reviewer.
            reason: Why.
            version: The one the decision rests on.
            key: Sent twice, it is done once.

        Raises:
            UnknownMapping: If there is none of this id.
            NotAllowed: If ``by`` is no reviewer.
            Conflict: If it is in use.
            StaleVersion: If it changed since.
            KeyReused: If the key came with another request.
        """
        return self._set(mapping_id, by, reason, is_yanked=False, version=version, key=key)

    def _set(  # noqa: PLR0913 - what the two above have in common
        self, mapping_id: str, by: Actor, reason: str, *, is_yanked: bool, version: int | None, key: Key | None
    ) -> Revision:
        if not by.may("reviewer"):
            message = f"{by.name} is a {by.role}. Only a reviewer or an admin yanks and restores revisions."
            raise NotAllowed(message, role=by.role)
        with self._database.write("mapping.yank" if is_yanked else "mapping.restore", by.name) as write:
            known = find_answer(write, by, key)
            if known:
                return from_json(Revision, known)
            held = get_revision(write.connection, mapping_id)
            mapping_id = held.mapping.id  # what was given may be the first digits of it
            _check(held, version, is_yanked=is_yanked)
            set_yanked(write, mapping_id, reason if is_yanked else None, held.version + 1)
            about = held.mapping
            write.log(mapping_subject(mapping_id), architecture_subject(about.library, about.name), reason=reason)
            keep_answer(write, by, key, to_json(get_revision(write.connection, mapping_id)))
        return self.get(mapping_id)


def _check(held: Revision, version: int | None, *, is_yanked: bool) -> None:
    mapping_id = held.mapping.id
    if version is not None and version != held.version:
        message = f"Mapping {mapping_id} is at version {held.version}, not {version}. Read it again, then decide."
        raise StaleVersion(message, mapping=mapping_id, version=held.version, given=version)
    if is_yanked and held.yanked_at:
        reason = str(held.yank_reason).rstrip(".")
        message = f"Mapping {mapping_id} was yanked at {held.yanked_at}: {reason}. Restore it, or leave it."
        raise Conflict(message, mapping=mapping_id, reason=held.yank_reason)
    if not is_yanked and not held.yanked_at:
        message = f"Mapping {mapping_id} is in use; only a yanked one can be restored."
        raise Conflict(message, mapping=mapping_id)
