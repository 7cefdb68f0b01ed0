"""``loradar snapshot``: write the whole registry, local or a service's, to one signed file."""

from pathlib import Path
from typing import Annotated

import typer

from ..schema import to_json
from .files import writing
from .options import AsJson, Url
from .output import show

Since = Annotated[int | None, typer.Option(min=0, help="Only the architectures changed after this serial, whole.")]


def snapshot(
    *,
    out: Annotated[Path, typer.Option(help="File to write: lines of JSON, the last one signed.")],
    since: Since = None,
    url: Url = None,
    key: Annotated[
        str | None, typer.Option(help="The service's public key; the service is asked for it if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the registry to a file that others can verify; a snapshot from a service is verified first."""
    with writing(out):
        if url:
            from ..client import Client

            with Client(url) as client:
                key = key or client.snapshot_key()
                info = client.snapshot(out, key, since)
        else:
            from ..registry import Registry
            from ..settings import Settings
            from ..snapshots import Signer, write_snapshot

            signer = Signer.of(Settings.from_environment())
            with Registry.open() as registry, registry.snapshot(since) as lines:
                info, key = write_snapshot(out, lines, signer), signer.key
    if as_json:
        show.print_json({"file": str(out), "key": key, **to_json(info)})
    else:
        typer.echo(f"{out}: {info.architectures:,} architectures at serial {info.serial}, signed with {key}")
