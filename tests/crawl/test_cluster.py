"""Crawls on a cluster of Dask: the same counts, and a worker that is killed loses nothing."""

import os
import signal
import threading

import crawl_zoo
import pytest
from patience import patience, wait_until

from loradar.crawl import CrawlQuery, crawl
from loradar.errors import InvalidRequest
from loradar.sandbox.parallel import Workers

distributed = pytest.importorskip("distributed")

RATE = 60.0


@pytest.fixture
def cluster(hub, tmp_path):  # noqa: ARG001 - the workers inherit its settings
    """A cluster of two processes on loopback."""
    settings = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": ":0"}
    with distributed.LocalCluster(**settings, local_directory=str(tmp_path), silence_logs=50) as running:
        yield running


@pytest.mark.filterwarnings("ignore")  # of the library, as a worker dies
def test_a_worker_that_is_killed_loses_nothing(hub, own, cluster):
    """Its unit runs on another one; every repo is counted once."""
    for number in range(60):
        hub.add(f"org/repo{number}", crawl_zoo.model())
    client = distributed.Client(cluster)
    victim = next(iter(client.run(os.getpid).values()))

    def kill():
        wait_until(lambda: len(hub.requests) > 20, "the crawl", 0.001)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with Workers("dask", scheduler=cluster.scheduler_address) as workers:
        assert (workers.count, workers.are_local) == (2, False)
        report = crawl(own.crawls, CrawlQuery(), workers, RATE)
    killer.join(patience())
    client.close()
    assert report.outcomes == {"model": 60}
    assert own.crawls.get_usage("transformers", "llama").repos == 60


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    """In one sentence, soon."""
    monkeypatch.setattr("loradar.sandbox.parallel.CONNECT_SECONDS", 1)
    with pytest.raises(InvalidRequest, match=r"'tcp://127\.0\.0\.1:1' does not answer within 1 s"):
        Workers("dask", scheduler="tcp://127.0.0.1:1")
