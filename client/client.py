"""The REST client: read a service's registry and contribute to it, without torch or SQLAlchemy."""

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Json
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, Unpack

from typing_extensions import override

from ..backend import Backend
from ..domain.architectures import SearchAnswer
from ..domain.changes import ArchitectureHistory, Change, ChangePage, Revision
from ..domain.choosing.query import Selection
from ..domain.crawls.usage import Usage
from ..domain.explaining.explanations import Explanation
from ..domain.identities import Actor, NewToken, Token, TokenList, TokenRole
from ..domain.layers import Slot
from ..domain.mappings import (
    ArchitectureDetail,
    ArchitecturePage,
    ArchitectureSlots,
    ArchitectureSummary,
    BatchAnswers,
    Mapping,
    MappingFound,
    MappingPage,
    Neighbour,
    NeighbourList,
)
from ..domain.methods import choose_preset
from ..domain.submissions import Difference, Filters, ReviewDecision, Statement, Submission, SubmissionPage
from ..errors import LoradarError, ServiceUnreachable, SignatureInvalid
from ..progress import Show
from ..received_errors import to_error
from ..schema import to_json
from ..settings import Settings
from ..snapshots import SnapshotInfo, SnapshotKey, check_snapshot, open_snapshot, part_of, require_current
from ..static_files import StaticAnswers, answers_path
from ..training_configs.config_checks import ConfigCheck
from ..weights.diagnoses import Diagnosis
from .adapters import read_adapter
from .connection import NO_SERVICE, Connection, quoted_segment
from .static_reading import StaticQuery, reject_choice

BATCH = 256
"""Queries in one batch request."""

PAGE = 200
"""Items in one page of a list."""

Page = TypeVar("Page", ArchitecturePage, MappingPage, ChangePage)


class Client(Connection, Backend):
    """A connection to a loradar service; also a context manager that closes it.

    The service's errors are raised as the classes the registry itself raises; every method also raises
    ``ServiceUnreachable`` if there is no usable response, and ``InvalidRequest`` if an argument is out of bounds. The
    operations of ``Backend`` that write take an idempotency ``key``, a new one if not given.

    Args:
        url: URL of the service.
        token: Token for writes; reads need none.
        timeout: Seconds to wait for a response.
        store: File that stores responses, so that a response that has not changed is not sent again, and is there if
            the service fails (with a warning); by default ``responses.sqlite3`` in the folder of loradar's files.
            ``False`` for none.
        revalidate: Whether the service is asked each time if a stored response is current; else it is for the time that
            the service states, a minute.
    """

    def targets(  # noqa: PLR0913, PLR0917 - what identifies a mapping
        self,
        /,
        name: str,
        peft_type: str = "LORA",
        preset: str | None = None,
        library: str | None = None,
        library_version: str | None = None,
        parts: Json[str, str] | None = None,
        **choice: Any,
    ) -> Mapping:
        """Return the mapping to use for an architecture, with these types of model as the parts of a composite one.

        ``name`` may be in any spelling, as in ``loradar.lookup``; ``understood`` tells how it was read.
        Without ``preset`` it is that of ``LORADAR_PRESET`` here, else the one of the service.
        ``choice`` may have ``towers``, ``roles``, ``blocks``, ``rank``, ``expert_rank`` and ``budget``: the targets are
        those of a selection. Static files (``loradar export static``) have no answers for it, and for parts.

        Raises:
            UnknownName: If the architecture has no part or tower of a name.
            InvalidRequest: If the selection cannot be read, or matches nothing.
            NotRegistered: If the service has none.
            UnknownPeftType: If PEFT has no such method.
            UnknownPreset: If there is no such preset.
        """
        if preset is None and Settings.from_environment().preset:
            preset = choose_preset(None, peft_type)
        query = {"peft_type": peft_type, "preset": preset, "library": library, "library_version": library_version}
        named = [f"{part}={model_type}" for part, model_type in (parts or {}).items()]
        chosen = Selection.parse(preset or "default", **choice).to_query()
        path = f"/v1/targets/{quoted_segment(name)}"
        beyond = [field for field, value in {"part": named or None, **chosen}.items() if value is not None]
        if not (beyond or library_version):  # a file server ignores the query, and its response tells
            found = self._get_if_served(path, **query)
            if found and (found.peft_type, found.preset) == (peft_type.upper(), preset or found.preset):
                return found
        index = self._find_index()
        if index is None:
            return self._get(Mapping, path, **query, part=named or None, **chosen)
        reject_choice(beyond)
        static = StaticQuery(name, peft_type.upper(), preset or "default", library, library_version)
        reference, understood = static.find_reference(index)
        answers = self._get(StaticAnswers, f"/{answers_path(*reference.split(':', 1))}")
        return static.choose(answers, reference, understood)

    def _get_if_served(self, path: str, **query: str | None) -> Mapping | None:
        """Return the mapping at a path, or ``None`` if the response is of no service."""
        try:
            return self._get(Mapping, path, **query)
        except ServiceUnreachable as error:
            if error.details["reason"] != NO_SERVICE:
                raise
            return None

    def targets_of_many(
        self, questions: Sequence[Json[str, str | int | Json[str, str] | None]]
    ) -> tuple[Mapping | LoradarError, ...]:
        """Return, for each query, the mapping to use or the error a lookup would raise.

        Args:
            questions: Any number of queries, each with ``model_type`` and, unless they are the default, ``peft_type``,
                ``preset``, ``library``, ``library_version``, ``parts``, ``towers``, ``roles``, ``blocks``, ``rank``,
                ``expert_rank`` and ``budget``.
        """
        parts = (questions[start : start + BATCH] for start in range(0, len(questions), BATCH))
        batches = (self._post(BatchAnswers, "/v1/targets:batch", {"questions": [*map(dict, part)]}) for part in parts)
        return tuple(
            answer.mapping if isinstance(answer, MappingFound) else to_error(to_json(answer))
            for batch in batches
            for answer in batch.answers
        )

    def check(self, text: str, name: str = "config.yaml", model: str | None = None) -> ConfigCheck:
        """Return the check of a training configuration; the ending of its name tells its form.

        Raises:
            InvalidConfig: If it cannot be read, is of no known project, or trains no LoRA.
            NotRegistered: If its model is not known.
            InvalidStatement: If RE2 rejects a regex in it.
        """
        return self._post(ConfigCheck, "/v1/check", {"text": text, "name": name, "model": model})

    def architectures(self, library: str | None = None, q: str = "") -> tuple[ArchitectureSummary, ...]:
        """Return the architectures whose name contains ``q``, of one library or of all, sorted."""
        pages = self._pages(ArchitecturePage, "/v1/architectures", "after", library=library, q=q)
        return tuple(summary for page in pages for summary in page.architectures)

    def search(self, text: str, limit: int = 20) -> SearchAnswer:
        """Return the architectures that a text may mean: a name, a layer's name or the message of an error."""
        return self._get(SearchAnswer, "/v1/search", q=text, limit=limit)

    def architecture(self, library: str, name: str) -> ArchitectureDetail:
        """Return everything the service has of an architecture.

        Raises:
            UnknownArchitecture: If it has nothing.
        """
        return self._get(ArchitectureDetail, _architecture_path(library, name))

    def explain(self, library: str, name: str, layer: str) -> Explanation:
        """Return why layers of an architecture are targets or not, by a path, a pattern, a target's name or a module.

        Raises:
            UnknownArchitecture: If the service has nothing of the architecture.
            UnknownLayer: If no layer on record has the name.
            NotRegistered: If its layers are not on record.
        """
        return self._get(Explanation, f"{_architecture_path(library, name)}/explain", layer=layer)

    def similar(self, library: str, name: str, limit: int = 10) -> tuple[Neighbour, ...]:
        """Return the nearest architectures by their slots, nearest first.

        Raises:
            UnknownArchitecture: If the service has nothing of the architecture.
            NotRegistered: If the architecture was not scanned.
        """
        path = f"{_architecture_path(library, name)}/similar"
        return self._get(NeighbourList, path, limit=limit).similar

    def layers(self, library: str, name: str) -> tuple[Slot, ...]:
        """Return the slots of an architecture, in the order of the model; none if it was not scanned.

        Raises:
            UnknownArchitecture: If the service has nothing of it.
        """
        return self._get(ArchitectureSlots, f"{_architecture_path(library, name)}/layers").slots

    def history(self, library: str, name: str) -> tuple[Revision, ...]:
        """Return every revision ever of an architecture, yanked ones too.

        Raises:
            UnknownArchitecture: If the service has nothing of it.
        """
        return self._get(ArchitectureHistory, f"{_architecture_path(library, name)}/history").revisions

    def usage(self, library: str, name: str) -> Usage:
        """Return how many repos of hubs use an architecture, and the targets of their adapters.

        Raises:
            UnknownArchitecture: If neither the service nor a crawl of its hubs knows it.
        """
        return self._get(Usage, f"/v1/usage/{quoted_segment(library)}/{quoted_segment(name)}")

    def mappings(
        self,
        *,
        source: str | None = None,
        peft_type: str | None = None,
        status: str | None = None,
        q: str = "",
        library: str | None = None,
    ) -> Iterator[Mapping]:
        """Yield the mappings in use, sorted, page by page.

        Args:
            source: Only those of this kind of source.
            peft_type: Only those for this method.
            status: Only those whose newest verification has this status.
            q: Only those of architectures whose name contains this.
            library: Only those of this library.
        """
        query = {"source": source, "peft_type": peft_type, "status": status, "q": q, "library": library}
        for page in self._pages(MappingPage, "/v1/mappings", "after", **query):
            yield from page.mappings

    def revision(self, mapping_id: str) -> Revision:
        """Return a revision of a mapping with its history; the first eight digits of its id suffice.

        Raises:
            UnknownMapping: If no revision has this id.
        """
        return self._get(Revision, f"/v1/mappings/{quoted_segment(mapping_id)}")

    def diff(self, mapping_id: str, other_id: str) -> Difference:
        """Return the layers that only one of two mappings of an architecture matches.

        Raises:
            UnknownMapping: If no revision has one of the ids.
            InvalidRequest: If an id is invalid, or they are of different architectures.
            NotRegistered: If the architecture was not scanned.
        """
        path = f"/v1/mappings/{quoted_segment(mapping_id)}/diff"
        return self._get(Difference, path, against=other_id)

    def changes(self, since: int = 0) -> Iterator[Change]:
        """Yield every change after a serial, oldest first, page by page."""
        for page in self._pages(ChangePage, "/v1/changes", "since", since=since):
            yield from page.changes

    def _pages(self, record: type[Page], path: str, cursor: str, **query: str | int | None) -> Iterator[Page]:
        """Yield the pages of a list; ``cursor`` is the parameter that takes the ``next`` of the page before."""
        while True:
            page = self._get(record, path, **query, limit=PAGE)
            yield page
            if page.next is None:
                return
            query[cursor] = page.next

    def snapshot_key(self) -> str:
        """Return the public key the service signs snapshots with: keep it, and verify every snapshot with it."""
        return self._get(SnapshotKey, "/v1/snapshot/key").key

    def snapshot(self, out: Path, key: str | None = None, since: int | None = None) -> SnapshotInfo:
        """Download a snapshot and verify it; the file exists afterwards only if the signature is valid.

        Args:
            out: File to write: lines of JSON (see ``loradar.snapshots``).
            key: The public key it must be signed with. Without it the service is asked for its key, which proves that
                nothing was lost on the way, but not who sent it.
            since: Only the architectures changed after this serial, each whole.

        Raises:
            SignatureInvalid: If it is incomplete, altered, signed with another key, or not what was requested.
            SnapshotRejected: If it has expired, or is too large.
            MissingExtra: If ``cryptography`` is not installed.
        """
        key = key or self.snapshot_key()
        with part_of(out) as part, TemporaryDirectory(dir=out.parent, prefix=".loradar-") as folder:
            packed = Path(folder) / "packed"
            self.fetch_snapshot(packed, since)
            with open_snapshot(packed) as lines, part.open("wb") as file:
                file.writelines(lines)
            with part.open("rb") as file:
                info = check_snapshot(file, key)
            require_current(info)
            if info.since not in (None, since):  # a valid snapshot, but of another request
                wanted = "the whole registry" if since is None else f"those after {since}"
                message = f"{self.url} sent the changes after serial {info.since} instead of {wanted}: try again."
                raise SignatureInvalid(message, since=since, found=info.since)
            return info

    def fetch_snapshot(self, out: Path, since: int | None = None, show: Show | None = None) -> None:
        """Download a snapshot as it is sent, compressed and not verified, and continue a download that broke off.

        Args:
            out: File to write; what it has of an earlier download that broke off is kept.
            since: Only the architectures changed after this serial, each whole.
            show: Called with the bytes that are there and those of the whole file, if the service states them.
        """
        self._download("/v1/snapshot", out, show, since=since)

    def doctor(
        self, adapter: str | PathLike[str], model: str | Json[str, Any] | None = None, *, values: bool = True
    ) -> Diagnosis:
        """Return the diagnosis of a saved adapter of this machine.

        Args:
            adapter: Its folder, or its ``.safetensors`` file. Of a file of more than ``MOST_SENT`` bytes the header is
                sent alone.
            model: The base model: an architecture, ``hub:org/repo``, or the content of its ``config.json``; by default
                the one that the adapter names.
            values: Whether to send a small file, so that zeros and NaN are found; else the header alone.

        Raises:
            AdapterUnreadable: If the file is missing.
            InvalidRequest: If it is no adapter.
            InvalidReference: If the service knows no such model.
        """
        return self._post_once(Diagnosis, "/v1/doctor", {**read_adapter(Path(adapter), values=values), "model": model})

    def whoami(self) -> Actor:
        """Return the owner of this client's token."""
        return self._get(Actor, "/v1/tokens/me")

    @override
    def submit(self, statement: Statement, key: str | None = None) -> Submission:
        return self._post(Submission, "/v1/submissions", to_json(statement), key=key)

    @override
    def submission(self, submission_id: int) -> Submission:
        return self._get(Submission, f"/v1/submissions/{submission_id}")

    @override
    def submissions(
        self, *, before: int | None = None, limit: int = 50, **filters: Unpack[Filters]
    ) -> tuple[Submission, ...]:
        return self._get(SubmissionPage, "/v1/submissions", before=before, limit=limit, **filters).submissions

    @override
    def review(
        self,
        submission_id: int,
        decision: ReviewDecision,
        comment: str,
        *,
        version: int | None = None,
        key: str | None = None,
    ) -> Submission:
        path = f"/v1/submissions/{submission_id}/reviews"
        return self._post(Submission, path, {"decision": decision, "comment": comment}, version=version, key=key)

    @override
    def withdraw(
        self, submission_id: int, reason: str, *, version: int | None = None, key: str | None = None
    ) -> Submission:
        path = f"/v1/submissions/{submission_id}/withdrawal"
        return self._post(Submission, path, {"reason": reason}, version=version, key=key)

    @override
    def yank(self, mapping_id: str, reason: str, *, version: int | None = None, key: str | None = None) -> Revision:
        path = f"/v1/mappings/{quoted_segment(mapping_id)}/yank"
        return self._post(Revision, path, {"reason": reason}, version=version, key=key)

    @override
    def restore(self, mapping_id: str, reason: str, *, version: int | None = None, key: str | None = None) -> Revision:
        path = f"/v1/mappings/{quoted_segment(mapping_id)}/restoration"
        return self._post(Revision, path, {"reason": reason}, version=version, key=key)

    @override
    def create_token(self, name: str, role: TokenRole, expires_days: int | None = None) -> tuple[Token, str]:
        # Not repeated if the response is lost: the token whose secret is lost stays visible, and can be revoked.
        body = {"name": name, "role": role, "expires_days": expires_days}
        created = self._post_once(NewToken, "/v1/tokens", body)
        return created.token, created.secret

    @override
    def tokens(self) -> tuple[Token, ...]:
        return self._get(TokenList, "/v1/tokens").tokens

    @override
    def revoke_token(self, token_id: int) -> Token:
        return self._post_once(Token, f"/v1/tokens/{token_id}/revocation", {})


def _architecture_path(library: str, name: str) -> str:
    return f"/v1/architectures/{quoted_segment(library)}/{quoted_segment(name)}"
