"""Download and upload adapters with huggingface_hub: endpoint, token, cache and offline mode are the user's."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from os import PathLike
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from ...errors import HubFailed
from ...extras import require
from ...hub_errors import translate_errors
from ...references import HubFolder, explain_invalid_repo
from ...references.local_paths import is_folder
from ..checks import check_known, invalid
from .card import CARD, write_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from ..adapted import Adapted

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SCHEME = "hub:"
PICKLE = "adapter_model.bin"
PLACE = ("subfolder", "revision")
DOWNLOAD = ("token", "cache_dir", "local_files_only", "force_download")
"""Options of a download, as huggingface_hub's."""
DISPATCH = "dispatch the model with accelerate before: adapters follow their layers"
LEFT_OUT = {
    "ephemeral_gpu_offload": "a layer computes where its weight is",
    "use_auth_token": "its name is token now",
    **dict.fromkeys(("device_map", "max_memory", "offload_dir", "offload_folder", "offload_index"), DISPATCH),
}
"""Options of PEFT that are rejected, and why."""


def locate(
    model_id: str | PathLike[str], method: str, options: Mapping[str, Any], files: Sequence[str] = (WEIGHTS, CONFIG)
) -> Path:
    """Return the folder of a saved adapter on this machine, after the download of these files if it is on the hub.

    Args:
        model_id: A folder, or ``org/repo`` if there is no such folder, or ``hub:org/repo[/subfolder][@revision]``.
        method: The method that was called, for messages.
        options: Its options, as PEFT's; ``None`` stands for the default.
        files: Names of the files.

    Raises:
        InvalidConfig: If an option is unknown or cannot be honoured.
        InvalidReference: As ``fetch``.
        HubFailed: As ``fetch``.
    """
    given = {name: value for name, value in options.items() if value is not None}
    _check_options(given, method)
    subfolder, revision = given.get("subfolder", ""), given.get("revision")
    download = {name: given[name] for name in DOWNLOAD if name in given}
    if isinstance(model_id, str) and model_id.startswith(SCHEME):
        source = HubFolder.parse(model_id)
        inside = "/".join(filter(None, (source.subfolder, subfolder)))
        source = HubFolder(source.repo, inside, revision or source.revision)
        return fetch(source, files, **download)
    # A hub has every adapter under org/repo: a slip in a bare name is not asked of it, without a network for 20 s.
    is_repo = isinstance(model_id, str) and "/" in model_id and explain_invalid_repo(model_id) is None
    if not is_repo or is_folder(str(model_id)):
        if revision is not None:
            raise invalid("revision", revision, f"is for a repo, and {str(model_id)!r} is a folder: leave it out.")
        return Path(model_id, subfolder)
    try:
        return fetch(HubFolder(str(model_id), subfolder, revision), files, **download)
    except HubFailed as error:
        raise HubFailed(f"There is no folder {model_id!r}, and {error.message}", **error.details) from error


def _check_options(given: Mapping[str, Any], method: str) -> None:
    """Reject the options of a loading method that are unknown or cannot be honoured."""
    check_known(given, (*PLACE, *DOWNLOAD, *LEFT_OUT, "torch_device"), method)
    for name, why in LEFT_OUT.items():
        if given.get(name):
            raise invalid(name, given[name], f"cannot be honoured: {why}.")
    if (device := given.get("torch_device")) is not None:
        try:
            torch.device(device)
        except (RuntimeError, TypeError):
            raise invalid("torch_device", device, "is no device of torch: leave it out.") from None


def fetch(source: HubFolder, files: Sequence[str] = (WEIGHTS, CONFIG), **download: Any) -> Path:
    """Download files of an adapter, or take them from the cache, and return their folder.

    ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and ``HF_HOME`` apply. Only ``adapter_model.safetensors`` and
    ``adapter_config.json`` are downloaded, all of one commit: no pickle, no code.

    Args:
        source: The folder on the hub.
        files: Their names.
        download: Arguments of huggingface_hub's download, among ``DOWNLOAD``.

    Raises:
        InvalidReference: If the repo's name is invalid.
        HubFailed: If a file is missing or cannot be downloaded: no such repo or revision, no access, not in the cache
            while offline, no connection.
        MissingExtra: If huggingface_hub is not installed.
    """
    require("scan", "huggingface_hub")
    from huggingface_hub import HfApi

    api = HfApi(token=download.pop("token", None))
    with _in_words(api, source):
        path = source.path_of(files[0])
        first = Path(api.hf_hub_download(source.repo, path, revision=source.revision, **download))
        commit = first.parents[path.count("/")].name  # .../snapshots/<commit>/<path in the repo>
        for name in files[1:]:
            api.hf_hub_download(source.repo, source.path_of(name), revision=commit, **download)
    return first.parent


def push(  # noqa: PLR0913 - the options of a commit on the hub
    model: "Adapted",
    repo_id: str,
    *,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    max_shard_size: int | str | None = None,  # noqa: ARG001 - PEFT's signature
    tags: Sequence[str] | None = None,
) -> str:
    """Upload a model's adapters and their card in one commit; create the repo and the branch if they are missing.

    A ``README.md`` in the repo that was written or edited by hand is kept. ``repo_id`` is ``org/repo``, or ``repo`` of
    the account; the other arguments are huggingface_hub's (``upload_folder``, ``create_repo``), but ``tags``, which the
    card gets beside its own, and ``max_shard_size``, which changes nothing: an adapter is one file. The address of the
    commit is returned, or of the pull request with ``create_pr``.

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
        write_card(model, Path(folder), str(HubFolder(repo, subfolder, revision)), tags or ())
        with _in_words(api, target):
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                commit_message=commit_message or "Upload adapter",
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
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
