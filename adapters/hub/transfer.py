"""Download and upload adapters with huggingface_hub: endpoint, token, cache and offline mode are the user's."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from os import PathLike
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ...extras import require
from ...hub_errors import translate_errors
from ...references import HubFolder
from .card import CARD, write_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from ..adapted import Adapted

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SCHEME = "hub:"
PICKLE = "adapter_model.bin"


def local_folder(folder: str | PathLike[str], files: Sequence[str] = (WEIGHTS, CONFIG)) -> Path:
    """Return a folder on this machine, after the download of these files if it is a reference to the hub.

    Raises:
        HubFailed: As ``fetch``.
    """
    return fetch(folder, files) if isinstance(folder, str) and folder.startswith(SCHEME) else Path(folder)


def fetch(reference: str, files: Sequence[str] = (WEIGHTS, CONFIG)) -> Path:
    """Download files of an adapter, or take them from the cache, and return their folder.

    ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and ``HF_HOME`` apply. Only ``adapter_model.safetensors`` and
    ``adapter_config.json`` are downloaded, all of one commit: no pickle, no code.

    Args:
        reference: ``hub:org/repo[/subfolder][@revision]``.
        files: Their names.

    Raises:
        InvalidReference: If it is not of that form.
        HubFailed: If a file is missing or cannot be downloaded: no such repo or revision, no access, not in the cache
            while offline, no connection.
        MissingExtra: If huggingface_hub is not installed.
    """
    require("scan", "huggingface_hub")
    from huggingface_hub import HfApi

    source, api = HubFolder.parse(reference), HfApi()
    with _in_words(api, source):
        first = Path(api.hf_hub_download(source.repo, source.path_of(files[0]), revision=source.revision))
        commit = first.parents[source.path_of(files[0]).count("/")].name  # .../snapshots/<commit>/<path in the repo>
        for name in files[1:]:
            api.hf_hub_download(source.repo, source.path_of(name), revision=commit)
    return first.parent


def push(  # noqa: PLR0913 - the options of a commit on the hub
    model: "Adapted",
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload adapter",
    token: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload a model's adapters and their card in one commit; create the repo and the branch if they are missing.

    A ``README.md`` in the repo that was written or edited by hand is kept.

    Args:
        model: The model with the adapters.
        repo_id: ``org/repo``, or ``repo`` for a repo of the account.
        private: Whether a new repo is private; ``None`` for the account's default.
        revision: Branch to commit to; ``None`` for the main branch.
        commit_message: Its summary.
        token: Token to use instead of ``HF_TOKEN`` or the login.
        create_pr: Whether to open a pull request instead; its address is returned then, else the commit's.

    Raises:
        InvalidReference: If ``repo_id`` cannot name a repo.
        HubFailed: If the hub rejects it or does not respond.
        InvalidConfig: If an adapter is on meta and has no values; nothing is uploaded.
    """
    require("scan", "huggingface_hub", "jinja2")
    from huggingface_hub import HfApi

    api, target = HfApi(token=token), HubFolder(repo_id.removeprefix(SCHEME), revision=revision)
    with TemporaryDirectory(prefix="loradar-") as folder:
        for name in model.peft_config:
            model.write_files(Path(folder), name)
        repo = _prepare_repo(api, target, Path(folder), private=private, create_pr=create_pr)
        subfolder = "" if model.active_adapter == "default" else model.active_adapter
        write_card(model, Path(folder), str(HubFolder(repo, subfolder, revision)))
        with _in_words(api, target):
            commit = api.upload_folder(
                repo_id=repo, folder_path=folder, commit_message=commit_message, revision=revision, create_pr=create_pr
            )
    return commit.pr_url or commit.commit_url


def _prepare_repo(api: "HfApi", target: HubFolder, folder: Path, *, private: bool | None, create_pr: bool) -> str:
    """Create the repo and the branch if they are missing, fetch the card if there is one, and return the repo's id."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    revision = target.revision
    with _in_words(api, target):
        repo: str = api.create_repo(target.repo, private=private, exist_ok=True).repo_id
        if revision and not create_pr and not revision.startswith("refs/"):  # a pull request has its own ref
            api.create_branch(repo, branch=revision, exist_ok=True)
        with suppress(RemoteEntryNotFoundError):  # an edited card is kept
            copyfile(api.hf_hub_download(repo, CARD, revision=revision), folder / CARD)
    return repo


def _in_words(api: "HfApi", folder: HubFolder) -> AbstractContextManager[None]:
    """Translate the errors of huggingface_hub and of the connection within a ``with`` block.

    Raises:
        InvalidReference: If the repo's name is invalid.
        HubFailed: For every other error.
    """

    def explain_missing(name: str) -> str:
        if name == WEIGHTS and api.file_exists(folder.repo, folder.path_of(PICKLE), revision=folder.revision):
            return f"holds no {WEIGHTS}; {PICKLE} is a pickle and is not read. Save it again with peft."
        return f"holds no {name}: there is no adapter. If it stands in a subfolder, write '{folder.repo}/subfolder'."

    return translate_errors(api.endpoint, str(folder), folder.repo, explain_missing)
