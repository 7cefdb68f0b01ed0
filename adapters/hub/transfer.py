"""Adapters on the hub, through huggingface_hub: its endpoint, token, cache and offline switch are the user's."""

from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ...extras import require
from ...hub_errors import in_words
from ..files.checkpoint import CONFIG, WEIGHTS
from .card import CARD, write_card
from .location import SCHEME, Place

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from ..model import PeftModel

PICKLE = "adapter_model.bin"


def fetch(reference: str) -> Path:
    """Download the two files of an adapter, or take them from the cache, and return their folder.

    ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and ``HF_HOME`` hold, as in every use of the hub. Nothing but
    ``adapter_model.safetensors`` and ``adapter_config.json`` is downloaded, both of one commit: no pickle, no code.

    Args:
        reference: ``hub:org/repo``, with ``/subfolder`` and then ``@revision`` if need be.

    Raises:
        InvalidReference: If it is none.
        HubFailed: If a file is missing or cannot be had: no such repo or revision, no access, not in the cache while
            offline, no connection.
        MissingExtra: If huggingface_hub is not installed.
    """
    require("scan", "huggingface_hub")
    from huggingface_hub import HfApi

    place, api = Place.parse(reference), HfApi()
    with _in_words(api, place):
        weights = Path(api.hf_hub_download(place.repo, place.path_of(WEIGHTS), revision=place.revision))
        commit = weights.parents[place.path_of(WEIGHTS).count("/")].name  # .../snapshots/<commit>/<path in the repo>
        api.hf_hub_download(place.repo, place.path_of(CONFIG), revision=commit)
    return weights.parent


def push(  # noqa: PLR0913 - what the hub can be told of a commit
    model: "PeftModel",
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload adapter",
    token: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload a model's adapter and its card in one commit; the repo and the branch are made if they are not there.

    A ``README.md`` in the repo that somebody wrote or edited is kept.

    Args:
        model: The model whose adapter it is.
        repo_id: ``org/repo``, or ``repo`` for one of the account's own.
        private: Whether a new repo is private; the account's default if ``None``.
        revision: Branch to commit to; the main branch if ``None``.
        commit_message: Its summary.
        token: Instead of the one logged in with, or of ``HF_TOKEN``.
        create_pr: Whether to open a pull request instead of committing to the branch.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        InvalidReference: If ``repo_id`` cannot name a repo.
        HubFailed: If the hub does not take it or does not answer.
        InvalidConfig: If the adapter has no values; nothing is uploaded.
    """
    require("scan", "huggingface_hub", "jinja2")
    from huggingface_hub import HfApi

    api, asked = HfApi(token=token), Place(repo_id.removeprefix(SCHEME), revision=revision)
    with TemporaryDirectory(prefix="loradar-") as folder:
        model.save_pretrained(folder)
        with _in_words(api, asked):
            repo = api.create_repo(asked.repo, private=private, exist_ok=True).repo_id
            if revision and not create_pr and not revision.startswith("refs/"):  # a pull request's is no branch to make
                api.create_branch(repo, branch=revision, exist_ok=True)
            _keep_card(api, repo, revision, Path(folder))
        name = model.active_adapter
        place = Place(repo, "" if name == "default" else name, revision)
        write_card(model, Path(folder), str(place))
        with _in_words(api, asked):
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
            )
    return commit.pr_url or commit.commit_url


def _keep_card(api: "HfApi", repo: str, revision: str | None, folder: Path) -> None:
    """Put the card that is in the repo in the place of the one just written."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with suppress(RemoteEntryNotFoundError):
        copyfile(api.hf_hub_download(repo, CARD, revision=revision), folder / CARD)


def _in_words(api: "HfApi", place: Place) -> AbstractContextManager[None]:
    """Say what the hub or the connection to it refuses.

    Raises:
        InvalidReference: If the repo's name is impossible.
        HubFailed: For everything else.
    """
    return in_words(api.endpoint, str(place), place.repo, partial(_missing, api, place))


def _missing(api: "HfApi", place: Place, name: str) -> str:
    """Say which file is not there, and whether there is a pickle in its place, which is not looked into."""
    if name == WEIGHTS and api.file_exists(place.repo, place.path_of(PICKLE), revision=place.revision):
        return f"holds no {WEIGHTS}; {PICKLE} is a pickle and is not read. Save it again with peft."
    return f"holds no {name}: there is no adapter. If it stands in a subfolder, write '{place.repo}/subfolder'."
