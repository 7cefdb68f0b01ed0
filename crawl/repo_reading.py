"""Read one repo of a listing: the structure of each model in it, or the targets of its adapter."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import override

from ..domain.crawls.crawled import CrawledAdapter, CrawledRepo, Outcome, Structure
from ..errors import HubFailed, LoradarError, WeightsUnreadable
from ..hub_errors import classify
from ..references import HubFolder, explain_invalid_repo
from ..references.knowledge import load
from ..validation.text import explain_invalid_name, explain_invalid_regex, explain_invalid_target
from ..weights import (
    ADAPTER_CONFIG,
    CONFIG,
    ENDING,
    PICKLED,
    HubStore,
    identify,
    place_of,
    read_json,
    read_store,
    unpack,
)
from .hub_listing import GGUF, ListedRepo

if TYPE_CHECKING:
    from ..domain.vocabulary import Library

MOST_KINDS = 5_000
"""Kinds of weights in a structure; the largest real ones have a few hundred."""
MOST_TARGETS = 500
LONGEST_MESSAGE = 400
ADAPTER_START = "adapter_"
"""Beginning of the names of an adapter's own files."""


class PacedStore(HubStore):
    """A folder in a repo that is read with one request at a time, and as few headers as tell the shapes."""

    most_shards = 1

    def __init__(self, folder: HubFolder, endpoint: str) -> None:
        super().__init__(folder)
        from huggingface_hub import HfApi  # noqa: PLC0415 - an extra

        self.api = HfApi(endpoint=endpoint)

    @override
    def read_each(self, parts: dict[str, int]) -> Iterator[tuple[str, bytes, int | None]]:
        for name, length in parts.items():
            yield name, *self.read(name, 0, length)


class NotRead(Exception):
    """A repo that cannot be read, with the cause and the problem."""

    def __init__(self, cause: Outcome, message: str | None = None) -> None:
        super().__init__(cause)
        self.cause: Outcome = cause
        self.message = message


def read_repo(repo: ListedRepo, endpoint: str) -> CrawledRepo:
    """Read a repo; a fault of it is its outcome."""
    stores: list[PacedStore] = []

    def open_folder(part: str) -> PacedStore:
        stores.append(PacedStore(HubFolder(repo.name, part, repo.commit), endpoint))
        return stores[-1]

    outcome: Outcome
    message, models, adapter = None, [], None
    try:
        if _is_adapter(repo):
            outcome = "adapter"
            adapter = _read_adapter(repo, open_folder(""))
        else:
            outcome = "model"
            models = [(part, _read_model(repo, part, open_folder(part))) for part in find_parts(repo)]
    except NotRead as failed:
        outcome, message = failed.cause, failed.message
    except HubFailed as error:
        outcome, message = cast("Outcome", classify(error)), error.message
    except LoradarError as error:
        outcome, message = "unreadable", error.message
    except Exception as error:  # noqa: BLE001 - a defect on one of millions of repos must not end the walk
        outcome, message = "error", f"{type(error).__name__}: {error}"
    shown = "".join(filter(str.isprintable, message))[:LONGEST_MESSAGE] if message else None
    transferred = sum(store.transferred for store in stores)
    return CrawledRepo(
        repo.name, repo.commit, repo.modified, outcome, shown, tuple(models), adapter, transferred=transferred
    )


def _is_adapter(repo: ListedRepo) -> bool:
    """Identify a repo of an adapter: by its configuration or the hub's tag, without weights of a model."""
    if ADAPTER_CONFIG in repo.files:
        return not any(_is_weights(file) and not file.startswith(ADAPTER_START) for file in _top(repo))
    return repo.base is not None and CONFIG not in repo.files and any(map(_is_weights, repo.files))


def _top(repo: ListedRepo) -> list[str]:
    return [file for file in repo.files if "/" not in file]


def _is_weights(file: str) -> bool:
    return file.endswith((ENDING, *PICKLED, GGUF))


def find_parts(repo: ListedRepo) -> list[str]:
    """Return the folders of the models in a repo: its top, or those of a pipeline.

    Raises:
        NotRead: If there is none.
    """
    top = _top(repo)
    if CONFIG in top and any(file.endswith(ENDING) for file in top):
        return [""]
    folders: dict[str, set[str]] = {}
    for file in repo.files:
        folder, _, name = file.rpartition("/")
        folders.setdefault(folder, set()).add(name)
    is_model = {
        folder: CONFIG in names and any(name.endswith(ENDING) for name in names)
        for folder, names in folders.items()
        if folder and "/" not in folder
    }
    parts = sorted(folder for folder, holds in is_model.items() if holds)
    if parts and CONFIG not in top:
        return parts
    raise _explain_none(repo)


def _explain_none(repo: ListedRepo) -> NotRead:
    """Return the cause why the files of a repo hold no model that can be read."""
    for ending, cause in (((ENDING,), "missing_config"), (PICKLED, "pickled"), ((GGUF,), "gguf")):
        if any(file.endswith(ending) for file in repo.files):
            return NotRead(cast("Outcome", cause))
    return NotRead("no_weights")


def _read_model(repo: ListedRepo, part: str, store: PacedStore) -> Structure:
    start = f"{part}/" if part else ""
    files = frozenset(file.removeprefix(start) for file in repo.files if file.startswith(start))
    weights = read_store(str(store.folder), store, frozenset(file for file in files if "/" not in file))
    architecture = identify(weights.config)
    if architecture.library == "torch":
        raise NotRead("unnamed")
    layers = unpack(weights.tensors, weights.config)
    kinds = tuple(sorted({f"{place_of(layer.path)} {len(layer.shape)}" for layer in layers}))
    if not 1 <= len(kinds) <= MOST_KINDS:
        message = f"{store.folder} stores {len(kinds)} kinds of weights; a model has 1 to {MOST_KINDS}."
        raise WeightsUnreadable(message, file=repo.name)
    classes = weights.config.get("architectures")
    stated = classes[0] if isinstance(classes, list) and classes else None
    class_name = stated if isinstance(stated, str) and not explain_invalid_name(stated) else None
    return Structure(architecture.library, architecture.name, class_name, kinds)


# --- adapters ---------------------------------------------------------------------------------------------------------


def _read_adapter(repo: ListedRepo, store: PacedStore) -> CrawledAdapter:
    """Return the adapter of a repo; of one without PEFT's configuration, what the hub's tag tells."""
    config: dict[str, Any] = {}
    if ADAPTER_CONFIG in repo.files:
        config = read_json(store, ADAPTER_CONFIG, str(store.folder))
    stated = config.get("base_model_name_or_path", repo.base)
    base = stated if isinstance(stated, str) and "/" in stated and not explain_invalid_repo(stated) else repo.base
    known = load().repos.get(base.casefold()) if base else None
    library, _, name = known.reference.partition(":") if known else ("", "", "")
    peft_type = config.get("peft_type")
    return CrawledAdapter(
        base,
        (cast("Library", library), name) if known else None,
        peft_type.upper() if isinstance(peft_type, str) and not explain_invalid_name(peft_type[:65]) else "UNKNOWN",
        list_targets(config.get("target_modules"), str(store.folder)),
    )


def list_targets(stated: Any, where: str) -> tuple[str, ...]:
    """Return the targets in a configuration, sorted, with ``*`` in place of each index; a regex as it is.

    Raises:
        WeightsUnreadable: If they are neither a regex nor a list of names.
    """
    if stated is None:
        return ()
    fault = None
    if isinstance(stated, str):
        fault = explain_invalid_regex(stated)
    elif not isinstance(stated, list) or not all(isinstance(target, str) for target in stated):
        fault = "It is neither a text nor a list of texts."
    else:
        fault = next((fault for target in stated if (fault := explain_invalid_target(target))), None)
    found = (stated,) if isinstance(stated, str) else tuple(sorted({place_of(target) for target in stated or ()}))
    if fault or len(found) > MOST_TARGETS:
        problem = fault or f"It has {len(found)} different targets; up to {MOST_TARGETS} are kept."
        raise WeightsUnreadable(f"{where} has an invalid target_modules: {problem}", file=ADAPTER_CONFIG)
    return found
