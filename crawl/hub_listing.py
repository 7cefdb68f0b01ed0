"""The listing of a hub, page by page: names, commits and files of its repos, without a request for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ..hub_errors import explain_missing, translate_errors
from ..references import explain_invalid_repo
from ..weights import CONFIG, ENDING, INDEX_ENDING, PICKLED
from .polite import Pace, paced

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

PAGE = 1000
GGUF = ".gguf"
BASE_TAG = "base_model:adapter:"
"""Start of the hub's tag for an adapter, before its base."""


@dataclass(frozen=True, slots=True)
class CrawlQuery:
    """The repos to visit.

    Attributes:
        author: Only those of this user or organisation.
        filters: Only those with all of these tags.
        limit: Largest number of listed repos.
        retry: Whether repos that could not be read are tried again, though they have no new commit.
    """

    author: str | None = None
    filters: tuple[str, ...] = ()
    limit: int | None = None
    retry: bool = False


@dataclass(frozen=True, slots=True)
class ListedRepo:
    """A repo in the listing.

    Attributes:
        name: ``org/repo``.
        commit: Last commit of the main branch.
        modified: Its time, ISO 8601.
        files: Paths of its configurations and weights.
        base: Repo of the base model, if the hub tags it as an adapter.
    """

    name: str
    commit: str | None
    modified: str | None
    files: tuple[str, ...]
    base: str | None = None


def list_pages(api: "HfApi", query: CrawlQuery, pace: Pace) -> Iterator[tuple[list[ListedRepo], int]]:
    """Yield the open repos of a hub, page by page, each with the number of repos left out: private or without a name.

    Raises:
        HubFailed: If the hub does not give the listing.
    """
    with translate_errors(api.endpoint, "The listing", "models", explain_missing):
        found = iter(
            api.list_models(
                author=query.author,
                filter=query.filters or None,
                limit=query.limit,
                sort="created_at",  # what is created or changed meanwhile moves no repo over a page's end unseen
                full=True,
            )
        )
        while True:
            with paced(pace):
                page = [*islice(found, PAGE)]
            if not page:
                return
            repos = [_to_listed(info) for info in page if not info.private and not explain_invalid_repo(info.id)]
            yield repos, len(page) - len(repos)


def _to_listed(info: "ModelInfo") -> ListedRepo:
    paths = [sibling.rfilename for sibling in info.siblings or ()]
    base = next((tag.removeprefix(BASE_TAG) for tag in info.tags or () if tag.startswith(BASE_TAG)), None)
    modified = info.last_modified.isoformat(timespec="seconds") if info.last_modified else None
    kept = (INDEX_ENDING, ENDING, *PICKLED, GGUF, CONFIG)  # also adapter_config.json
    return ListedRepo(info.id, info.sha, modified, tuple(path for path in paths if path.endswith(kept)), base)
