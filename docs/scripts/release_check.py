"""Check the files of a release before they are published: build them, compare them, and use the wheel alone.

    python docs/scripts/release_check.py [DIST]

The wheel is built from the source archive, as an installer does where it finds no wheel; it must hold every file that
Git has in the folders of code, and its metadata must be what PyPI accepts.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

from packaging.metadata import Metadata

ROOT = Path(__file__).parents[2]
USE = "import loradar; print(loradar.lookup('llama').spec.target_modules)"


def main() -> None:
    """Build, check, and write the digests."""
    dist = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist")
    shutil.rmtree(dist, ignore_errors=True)
    run("-m", "build", "--outdir", str(dist), str(ROOT))
    (wheel,), (archive,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    check_metadata(wheel, project["project"])
    check_content(wheel, archive, project["tool"]["setuptools"]["package-dir"])
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel).extractall(folder)  # noqa: S202 - it was built just now
        answer = run("-P", "-c", f"import sys; sys.path.insert(0, {folder!r}); {USE}", cwd=folder)
    if answer != "('q_proj', 'v_proj')\n":
        raise SystemExit(f"The wheel alone answers {answer!r}.")
    files = (wheel, archive)
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (dist / "SHA256SUMS").write_text("".join(sums), "utf-8")
    print(*sums, sep="", end="")


def check_metadata(wheel: Path, project: dict[str, object]) -> None:
    """Check the metadata of a wheel by the rules of PyPI."""
    with zipfile.ZipFile(wheel) as content:
        name = next(name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        raw = content.read(name)
    found = Metadata.from_email(raw, validate=True)
    headers = Parser().parsestr(raw.decode())
    if str(found.version) != project["version"] or headers["Description-Content-Type"] != "text/markdown":
        raise SystemExit(f"The metadata is of version {found.version}, or its description is no Markdown.")


def check_content(wheel: Path, archive: Path, folders: dict[str, str]) -> None:
    """Check that both hold every file of code that Git knows, and the wheel nothing but loradar."""
    command = ["git", "ls-files", *folders.values()]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    sources = {name for name in listed.stdout.splitlines() if name.endswith(".py")}
    held = set(zipfile.ZipFile(wheel).namelist())
    missing = {name for name in sources if f"loradar/{name.removeprefix('core/')}" not in held}
    strange = {name for name in held if not name.startswith(("loradar/", "loradar-"))}
    with tarfile.open(archive) as content:
        packed = {name.partition("/")[2] for name in content.getnames()}
    missing |= sources - packed
    if missing or strange:
        raise SystemExit(f"Missing: {sorted(missing)[:9]}. Not of loradar: {sorted(strange)[:9]}.")


def run(*arguments: str, cwd: str | Path = ROOT) -> str:
    """Run Python, and return its output; end with that of one that fails."""
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
