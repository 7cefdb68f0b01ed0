"""Store the results of crawls of hubs, and count the usage of an architecture from them.

Numbers and examples are read from the repos, so they hold after any interruption, and after a repo has changed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, exists, func, insert, select, union

from ..domain.architectures import ArchitectureName
from ..domain.crawls.crawled import CrawledRepo, Structure
from ..domain.crawls.usage import ChosenTargets, Usage, UsedStructure
from ..domain.vocabulary import Library
from ..errors import UnknownArchitecture
from .db import tables
from .db.database import Database
from .mappings.listing import list_names

ADAPTED_PARTS = ("", "transformer", "unet", "prior")
"""Folders of the model that an adapter of a repo is for: of a pipeline, the one that removes noise."""

MOST = 50
"""Structures, and choices of targets, that a usage lists at most."""
EXAMPLES = 3

_structures, _repos = tables.crawled_structures.c, tables.crawled_repos.c
_models, _adapters = tables.crawled_models.c, tables.crawled_adapters.c

StructureKey = tuple[str, str, str, str]


class Crawls:
    """The results of crawls in a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[StructureKey, int] = {}

    def list_visited(self, endpoint: str, names: Iterable[str]) -> dict[str, tuple[str | None, str]]:
        """Return the commit and the outcome of those repos that were visited, by their names."""
        columns = select(_repos.name, _repos.commit, _repos.outcome)
        query = columns.where(_repos.endpoint == endpoint, _repos.name.in_([*names]))
        with self._database.read() as connection:
            return {name: (commit, outcome) for name, commit, outcome in connection.execute(query)}

    def add(self, endpoint: str, repos: Sequence[CrawledRepo]) -> int:
        """Store repos in one transaction, each in the place of its results at an earlier commit.

        It is no change of the registry's mappings, so it is not in the audit log and does not count the serial up.

        Returns:
            The number of structures that are new.

        Raises:
            DatabaseUnusable: If the database cannot be written; then none of them is stored.
        """
        if not repos:
            return 0
        with self._database.write_unlogged() as connection:
            # Locks the row where the database can: two crawls must not insert the same structure.
            connection.execute(select(tables.serial.c.value).with_for_update())
            found = {_key_of(structure): structure for repo in repos for _, structure in repo.models}
            ids, new = self._identify(connection, found)
            names = [repo.name for repo in repos]
            connection.execute(delete(tables.crawled_repos).where(_repos.endpoint == endpoint, _repos.name.in_(names)))
            stored = insert(tables.crawled_repos).returning(_repos.name, _repos.id)
            of_repo: dict[str, int] = dict(
                connection.execute(stored, [_repo_row(endpoint, repo) for repo in repos]).all()
            )
            models = [
                {"repo_id": of_repo[repo.name], "part": part, "structure_id": ids[_key_of(structure)]}
                for repo in repos
                for part, structure in repo.models
            ]
            adapters = [_adapter_row(of_repo[repo.name], repo) for repo in repos if repo.adapter]
            for table, rows in ((tables.crawled_models, models), (tables.crawled_adapters, adapters)):
                if rows:
                    connection.execute(insert(table), rows)
        self._ids |= ids  # known only now to be stored
        return new

    def _identify(
        self, connection: Connection, found: Mapping[StructureKey, Structure]
    ) -> tuple[dict[StructureKey, int], int]:
        """Return the ids of structures, which are inserted if need be, and the number of new ones."""
        ids = {key: self._ids[key] for key in found if key in self._ids}
        new = 0
        for key, structure in found.items():
            if key in ids:
                continue
            fields = dict(zip(("library", "name", "class_name", "digest"), key, strict=True))
            known = connection.execute(select(_structures.id).filter_by(**fields)).scalar()
            if known is None:
                row = {**fields, "layers": json.dumps(structure.layers)}
                known = connection.execute(
                    insert(tables.crawled_structures).values(**row).returning(_structures.id)
                ).scalar_one()
                new += 1
            ids[key] = known
        return ids, new

    def get_usage(self, library: Library, name: str) -> Usage:
        """Return how many repos use an architecture, and the targets of their adapters.

        Raises:
            UnknownArchitecture: If neither the registry nor a crawl knows it.
        """
        with self._database.read() as connection:
            structures = _list_structures(connection, library, name)
            targets, adapters = _list_targets(connection, library, name)
            known = list_names(connection, library)
            if not structures and not targets and name not in known:
                way_out = "It is not registered, and no crawl has met it: loradar crawl."
                raise UnknownArchitecture(name, known, way_out, library=library)
            repos = (
                select(func.count(_models.repo_id.distinct()))
                .join_from(tables.crawled_models, tables.crawled_structures)
                .where(_structures.library == library, _structures.name == name)
            )
            return Usage(
                ArchitectureName(library, name),
                connection.execute(repos).scalar_one(),
                structures,
                adapters,
                targets,
                connection.execute(select(func.count()).select_from(tables.crawled_repos)).scalar_one(),
            )


def _key_of(structure: Structure) -> StructureKey:
    return structure.library, structure.name, structure.class_name or "", structure.digest


def _repo_row(endpoint: str, repo: CrawledRepo) -> dict[str, Any]:
    names = ("name", "commit", "modified", "outcome", "message", "requests", "transferred")
    return {"endpoint": endpoint} | {name: getattr(repo, name) for name in names}


def _adapter_row(repo_id: int, repo: CrawledRepo) -> dict[str, Any]:
    adapter = repo.adapter
    assert adapter is not None  # noqa: S101 - of repos with an adapter alone
    library, name = adapter.base_architecture or (None, None)
    row = {"repo_id": repo_id, "base": adapter.base, "library": library, "name": name}
    return row | {"peft_type": adapter.peft_type, "targets": json.dumps(adapter.targets)}


def _list_structures(connection: Connection, library: str, name: str) -> tuple[UsedStructure, ...]:
    """Return the structures of an architecture that any repo has, the most frequent first."""
    repos = func.count(_models.repo_id.distinct())
    query = (
        select(_structures.id, _structures.digest, _structures.class_name, _structures.layers, repos)
        .join_from(tables.crawled_structures, tables.crawled_models)
        .where(_structures.library == library, _structures.name == name)
        .group_by(_structures.id, _structures.digest, _structures.class_name, _structures.layers)
        .order_by(repos.desc(), _structures.id)
        .limit(MOST)
    )
    return tuple(
        UsedStructure(
            digest,
            class_name or None,
            tuple(json.loads(layers)),
            count,
            _list_examples(connection, select(_models.repo_id).where(_models.structure_id == number)),
        )
        for number, digest, class_name, layers, count in connection.execute(query).all()
    )


def _list_targets(connection: Connection, library: str, name: str) -> tuple[tuple[ChosenTargets, ...], int]:
    """Return the targets of the adapters of an architecture, the most frequent first, and the number of adapters.

    The architecture of an adapter is that of its base as crawled; else the one that the base is known for offline.
    """
    base = tables.crawled_repos.alias("base")
    is_base = and_(base.c.endpoint == _repos.endpoint, base.c.name == _adapters.base)
    is_adapted = and_(_models.repo_id == base.c.id, _models.part.in_(ADAPTED_PARTS))
    adapters = select(_adapters.repo_id).join_from(tables.crawled_adapters, tables.crawled_repos)
    is_read = exists().where(is_base, is_adapted)
    by_base = (
        adapters.join(base, is_base)
        .join(tables.crawled_models, is_adapted)
        .join(tables.crawled_structures, _structures.id == _models.structure_id)
        .where(_structures.library == library, _structures.name == name)
    )
    by_name = adapters.where(_adapters.library == library, _adapters.name == name, ~is_read)
    ids = union(by_base, by_name).subquery()
    count = func.count()
    query = (
        select(_adapters.peft_type, _adapters.targets, count)
        .where(_adapters.repo_id.in_(select(ids.c.repo_id)))
        .group_by(_adapters.peft_type, _adapters.targets)
        .order_by(count.desc(), _adapters.peft_type, _adapters.targets)
    )
    chosen = connection.execute(query).all()
    return tuple(
        ChosenTargets(
            method,
            tuple(json.loads(targets)),
            number,
            _list_examples(
                connection,
                select(_adapters.repo_id).where(
                    _adapters.peft_type == method,
                    _adapters.targets == targets,
                    _adapters.repo_id.in_(select(ids.c.repo_id)),
                ),
            ),
        )
        for method, targets, number in chosen[:MOST]
    ), sum(number for _, _, number in chosen)


def _list_examples(connection: Connection, ids: Select[Any]) -> tuple[str, ...]:
    """Return the names of a few of these repos."""
    query = select(_repos.name).distinct().where(_repos.id.in_(ids)).order_by(_repos.name).limit(EXAMPLES)
    return tuple(connection.execute(query).scalars())
