"""``loradar snapshot`` and ``sync``: copies of the registry for mirrors, and the mirrors themselves."""

import os
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import Conflict, InvalidRequest
from ...schema import to_json
from ..options import AsJson, Url
from ..output import print_json, writing

try:
    import fcntl
except ImportError:  # not on Windows: whoever runs two at once there has one of them fail
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...registry.mirror.snapshot_loading import LoadReport

snapshots = typer.Typer(name="snapshot", help="Write the registry to a signed file, or load such a file into a mirror.")

Key = Annotated[str, typer.Option(help="The source's public key, received over a connection you trust.")]
Reset = Annotated[
    bool,
    typer.Option("--reset", help="Accept another key, an older serial and another history: the source was set back."),
]


@snapshots.callback(invoke_without_command=True)
def snapshot(
    context: typer.Context,
    *,
    out: Annotated[Path | None, typer.Option(help="File to write: lines of JSON, the last one signed.")] = None,
    since: Annotated[
        int | None, typer.Option(min=0, help="Only the architectures changed after this serial, whole.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days for which it may be loaded.")] = 7,
    url: Url = None,
    key: Annotated[
        str | None, typer.Option(help="The service's public key; the service is asked for it if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the registry to a file that others can verify; a snapshot from a service is verified first."""
    if context.invoked_subcommand:
        return
    if out is None:
        raise InvalidRequest("Give the file to write: loradar snapshot --out FILE. To load one: loradar snapshot load.")
    with writing(out):
        if url:
            from ...client import Client

            with Client(url) as client:
                key = key or client.snapshot_key()
                info = client.snapshot(out, key, since)
        else:
            from ...registry import Registry
            from ...settings import Settings
            from ...snapshots import Signer, write_snapshot

            signer = Signer.of(Settings.from_environment())
            with Registry.open() as registry, registry.snapshot(since) as lines:
                info, key = write_snapshot(out, lines, signer, timedelta(days=days)), signer.key
    if as_json:
        print_json({"file": str(out), "key": key, **to_json(info)})
    else:
        typer.echo(f"{out}: {info.architectures:,} architectures at serial {info.serial}, signed with {key}")


@snapshots.command()
def load(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The snapshot, plain or compressed.", exists=True, dir_okay=False)
    ],
    *,
    key: Key,
    reset: Reset = False,
    as_json: AsJson = False,
) -> None:
    """Load a snapshot into the local registry, which becomes a mirror: whole, or nothing changes."""
    from ...registry import Registry

    with Registry.open(is_seeded=False) as registry:
        _print(registry.mirror.load(file, key, is_reset=reset), as_json=as_json)


def _print(report: "LoadReport", *, as_json: bool) -> None:
    if as_json:
        print_json(to_json(report))
        return
    info = report.snapshot
    if not report.is_new:
        typer.echo(f"Unchanged: this snapshot of serial {info.serial} was loaded already.")
        return
    if (report.before, info.architectures) == (report.serial, 0):
        typer.echo(f"Up to date at serial {report.serial}, as of {info.issued}.")
        return
    kind = "all" if info.since is None else f"those changed after serial {info.since}"
    typer.echo(f"Loaded {info.architectures:,} architectures ({kind}).")
    typer.echo(f"serial   {report.before} -> {report.serial}, head {info.head}")
    typer.echo(f"expires  {info.expires}")


def sync(
    url: Annotated[str, typer.Argument(metavar="URL", help="URL of the source, a loradar service.")],
    *,
    key: Key,
    reset: Reset = False,
    as_json: AsJson = False,
) -> None:
    """Bring the local registry, a mirror, up to date with a service; after an interruption, run it again."""
    from ...client import Client
    from ...progress import showing
    from ...registry import Registry
    from ...settings import Settings

    if not url.startswith(("https://", "http://")):
        raise InvalidRequest(f"Invalid URL {url!r}: give that of a loradar service, such as https://host.", url=url)
    settings = Settings.from_environment()
    with Registry.open(settings, is_seeded=False) as registry, _alone(settings.home / "sync") as folder:
        follows = registry.mirror.state() is not None and not reset
        since = registry.serial() if follows else None
        # A name for each question: a part of an answer to another one is not continued.
        file = folder / sha256(f"{url} {since}".encode()).hexdigest()[:16]
        with Client(url) as client, showing("downloading", is_bytes=True) as show:
            client.fetch_snapshot(file, since, show)
        try:
            report = registry.mirror.load(file, key, is_reset=reset)
        finally:
            for path in folder.iterdir():
                path.unlink()
    _print(report, as_json=as_json)


@contextmanager
def _alone(folder: Path) -> "Iterator[Path]":
    """Make a folder and keep it to this process, so that two do not write one file.

    Raises:
        Conflict: If another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if fcntl:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"Another loradar sync is running in {folder}: wait for its end.") from None
        yield folder
    finally:
        os.close(descriptor)
