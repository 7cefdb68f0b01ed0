"""``loradar snapshot``: the whole registry as one signed file, from here or from a service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..domain.schema import to_json
from .files import writing
from .options import AsJson, Url
from .output import show

if TYPE_CHECKING:
    from ..snapshots import SnapshotInfo

Since = Annotated[int | None, typer.Option(min=0, help="Only the architectures touched after this serial, whole.")]


def snapshot(
    *,
    out: Annotated[Path, typer.Option(help="File to write, of lines of JSON; the last one is signed.")],
    since: Since = None,
    url: Url = None,
    key: Annotated[
        str | None, typer.Option(help="The public key a service has to have signed with; else it is asked.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the whole registry to a file that others can verify; one from a service is verified first."""
    with writing(out):
        info, key = _fetch(url, out, key, since) if url else _make(out, since)
    if as_json:
        show.print_json({"file": str(out), "key": key, **to_json(info)})
    else:
        typer.echo(f"{out}: {info.architectures:,} architectures at serial {info.serial}, signed with {key}")


def _fetch(url: str, out: Path, key: str | None, since: int | None) -> "tuple[SnapshotInfo, str]":
    from ..client import Client

    with Client(url) as client:
        known = key or client.snapshot_key()
        return client.snapshot(out, known, since), known


def _make(out: Path, since: int | None) -> "tuple[SnapshotInfo, str]":
    from ..registry import Registry
    from ..settings import Settings
    from ..signing import Signer
    from ..snapshots import write_snapshot

    signer = Signer.of(Settings.from_environment())
    with Registry.open() as registry, registry.snapshot(since) as lines:
        return write_snapshot(out, lines, signer), signer.key
