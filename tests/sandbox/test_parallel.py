"""Units of work on a cluster of Dask: within the bounds of a sandbox beside each worker."""

import pytest

from loradar.cli.catalog import _open_runner
from loradar.errors import InvalidRequest
from loradar.sandbox import Bounds
from loradar.sandbox.parallel import Workers

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the library


@pytest.fixture
def address(tmp_path):
    """The scheduler of a cluster within this process."""
    settings = {
        "processes": False,
        "n_workers": 1,
        "threads_per_worker": 2,
        "dashboard_address": ":0",
        "host": "127.0.0.1",
        "protocol": "tcp://",
    }
    with distributed.LocalCluster(**settings, local_directory=str(tmp_path), silence_logs=50) as running:
        yield running.scheduler_address


def test_scans_on_a_cluster_have_bounds_and_reasons(address):
    """A run that fails, or takes too long, has its reason; the others their result."""
    with Workers("dask", scheduler=address) as workers:
        assert workers.count == 2
        run = dict(workers.run_bounded(int, ["1", "2", "x"], bounds=Bounds(1, 60.0, 1.0), preload=()))
        assert (run["1"], run["2"]) == (1, 2)
        assert "invalid literal for int" in run["x"]


def test_workers_that_may_start_no_process_are_rejected(address, monkeypatch):
    """With the way to start them."""
    monkeypatch.setattr("loradar.sandbox.parallel._is_daemon", lambda: True)
    with Workers("dask", scheduler=address) as workers, pytest.raises(InvalidRequest, match="--no-nanny"):
        next(workers.run_bounded(int, ["1"], bounds=Bounds(1)))


@pytest.mark.parametrize(("backend", "scheduler"), [("spark", None), ("local", "tcp://127.0.0.1:1")])
def test_impossible_backends_of_the_catalog_are_rejected(backend, scheduler):
    """With the way out."""
    with pytest.raises(InvalidRequest, match="Give --backend dask --scheduler tcp://host:8786, or neither"):
        _open_runner(Bounds(1), backend, scheduler).__enter__()
