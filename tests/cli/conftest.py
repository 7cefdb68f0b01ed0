"""Fixtures of the tests of commands."""

import pytest

from loradar.cli import main


@pytest.fixture
def run(capsys):
    """Return a function that runs a command and returns (exit code, standard output, standard error)."""

    def run_command(*arguments):
        capsys.readouterr()  # a registry that is prepared slowly reports it while the fixtures run
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run_command
