"""Make the packaged registry with the packages, from their own data/catalog, so that the two are never out of step."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import setup
from setuptools.command.build_py import build_py
from typing_extensions import override

ROOT = Path(__file__).parent
REGISTRY = Path("data", "registry.sqlite3")


class BuildWithRegistry(build_py):
    """Build the packages, then make the packaged registry with them."""

    def run(self) -> None:
        """Build; an editable installation keeps the registry in the source tree, and works without, but slower."""
        super().run()
        self.run_command("egg_info")  # the seed names the version of the package
        if not self.editable_mode:
            make_registry(Path(self.build_lib), Path(self.build_lib, "loradar", REGISTRY))
            return
        with TemporaryDirectory() as folder:
            package = Path(folder, "loradar")
            package.mkdir()
            tops = {ROOT / Path(source).parts[0] for source in self.package_dir.values()} - {ROOT / "core"}
            for source in (*(ROOT / "core").iterdir(), *tops):
                (package / source.name).symlink_to(source)
            try:
                make_registry(Path(folder), ROOT / REGISTRY)
            except (OSError, subprocess.CalledProcessError) as error:
                self.warn(f"The packaged registry was not made ({error}): the first use of loradar takes seconds.")

    @override
    def get_outputs(self, include_bytecode: int = 1) -> list[str]:
        """Return the files that are built."""
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib, "loradar", REGISTRY))]


def make_registry(packages: Path, out: Path) -> None:
    """Make the packaged registry with the packages in a folder."""
    path = os.pathsep.join((str(packages.absolute()), str(ROOT)))  # the root has the metadata
    command = [sys.executable, "-m", "loradar.registry.packing", str(out.absolute())]
    subprocess.run(command, check=True, cwd=packages, env={**os.environ, "PYTHONPATH": path})  # noqa: S603 - our own


setup(cmdclass={"build_py": BuildWithRegistry})
