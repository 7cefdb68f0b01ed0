"""Crawls that are killed, and workers that die: every repo is counted once, and none is lost."""

import random
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import crawl_zoo
import pytest
from patience import wait_until

from loradar.crawl import CrawlQuery, crawl
from loradar.crawl.hub_listing import ListedRepo
from loradar.crawl.polite import Abandoned
from loradar.crawl.units import Unit, read_unit
from loradar.sandbox.parallel import Workers

KILLS = 2
COMMAND = """
import loradar.registry.catalogs as catalogs
from loradar.cli import main
catalogs.list_catalogs = catalogs.list_older = list  # loading them takes longer than the crawl
main(["crawl", "--rate", "300", "--concurrency", "2"])
"""


def fill(hub, count):
    """Add repos to a hub: models of two structures, adapters, and some that cannot be read; return the outcomes."""
    outcomes = Counter()
    for number in range(count):
        kind = number % 5
        files = (
            crawl_zoo.model(),
            crawl_zoo.model("bert", crawl_zoo.BERT),
            crawl_zoo.adapter("org/repo0", "q_proj"),
            crawl_zoo.model(),
            {"config.json": b"{}", "pytorch_model.bin": b"never opened"},
        )[kind]
        hub.add(f"org/repo{number}", files)
        outcomes[("model", "model", "adapter", "model", "pickled")[kind]] += 1
    return outcomes


def test_a_crawl_that_is_killed_goes_on_where_it_was(hub, own):
    """With SIGKILL, at random moments: the same command goes on, and in the end each repo is there once."""
    expected, chance = fill(hub, 120), random.Random(7)  # noqa: S311 - moments, not secrets
    for _ in range(KILLS):
        process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, "-c", COMMAND], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        moment = len(hub.requests) + chance.randint(20, 100)
        wait_until(lambda moment=moment, process=process: len(hub.requests) >= moment or process.poll() is not None)
        process.kill()
        process.wait()
    with Workers("threads", 2) as workers:
        last = crawl(own.crawls, CrawlQuery(), workers, 10_000.0)
    assert last.unchanged + last.outcomes.total() == 120
    assert last.unchanged > 0, "the kills came before anything was stored"
    names = [f"org/repo{number}" for number in range(120)]
    stored = own.crawls.list_visited(hub.url, names)
    assert Counter(outcome for _, outcome in stored.values()) == expected
    counted = {name: own.crawls.get_usage("transformers", name) for name in ("llama", "bert")}
    assert [counted[name].repos for name in ("llama", "bert")] == [48, 24]
    assert counted["llama"].adapters == 24


def test_units_of_a_worker_that_dies_run_again(hub, own, tmp_path, monkeypatch):
    """Nothing is lost with it, and nothing counts twice."""
    for number in range(10):
        hub.add(f"org/repo{number}", crawl_zoo.model())
    dying = partial(crawl_zoo.read_or_die, mark=tmp_path / "death", repo="org/repo3")
    monkeypatch.setattr("loradar.crawl.walk.read_unit", dying)
    with Workers("loky", 2) as workers:
        report = crawl(own.crawls, CrawlQuery(), workers, 10_000.0)
    assert (tmp_path / "death").exists()
    assert report.outcomes == {"model": 10}
    assert own.crawls.get_usage("transformers", "llama").repos == 10


def test_a_unit_that_workers_keep_dying_of_is_reported(monkeypatch):
    """The others are done."""
    monkeypatch.setattr("loradar.sandbox.parallel.MOST_LOSSES", 0)
    with Workers("loky", 2) as workers:
        found = dict(workers.run_each(crawl_zoo.halve_or_die, [0, 2, 3, 4]))
    assert found == {0: 0, 2: 1, 3: None, 4: 2}


class Fragile:
    """Workers that die of units with a certain repo."""

    count, are_local = 1, True

    def run_each(self, function, units):
        """Yield the result of each unit."""
        for unit in units:
            yield unit, None if any(repo.name == "org/repo3" for repo in unit.repos) else function(unit)


def test_a_repo_that_workers_keep_dying_of_is_named(hub, own):
    """The others of its unit are read, each alone; the next crawl tries it again."""
    for number in range(10):
        hub.add(f"org/repo{number}", crawl_zoo.model())
    assert crawl(own.crawls, CrawlQuery(), Fragile(), 10_000.0).outcomes == {"model": 9, "worker_lost": 1}
    with Workers("threads", 1) as workers:
        again = crawl(own.crawls, CrawlQuery(), workers, 10_000.0)
    assert (again.unchanged, again.outcomes) == (9, {"model": 1})


def test_a_worker_stops_when_its_crawl_is_gone(hub, monkeypatch):
    """It sends no further request: a crawl that goes on must not share its rate with one that is dead."""
    hub.add("org/repo0", crawl_zoo.model())
    parents = iter([7, 1])
    monkeypatch.setattr("loradar.crawl.polite.os.getppid", lambda: next(parents))
    repo = ListedRepo("org/repo0", None, None, ("config.json", "model.safetensors"))
    with pytest.raises(Abandoned):
        read_unit(Unit(hub.url, 0.0, [repo], owner=7))
    assert len(hub.requests) == 1


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    """Also one in the middle of a unit, and one that waits for the next."""
    code = f"""
import sys; sys.path.append({str(Path(crawl_zoo.__file__).parent)!r})
from functools import partial
from pathlib import Path
import crawl_zoo
from loradar.sandbox.parallel import Workers
work = partial(crawl_zoo.note_process, folder=Path({str(tmp_path)!r}))
with Workers("loky", 2) as workers:
    print(*workers.run_each(work, [0.0, 1000.0]))
"""
    process = subprocess.Popen([sys.executable, "-c", code])  # noqa: S603 - ours
    wait_until(lambda: len([*tmp_path.iterdir()]) >= 2 or process.poll() is not None)
    process.kill()
    process.wait()
    for mark in tmp_path.iterdir():
        wait_until(lambda mark=mark: not Path(f"/proc/{mark.name}").exists(), "the end of a worker")


def test_a_worker_needs_no_torch():
    """Importing it takes seconds and hundreds of MB for every worker."""
    code = "import sys, loradar.crawl.units; assert not {'torch', 'transformers', 'sqlalchemy'} & {*sys.modules}"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)  # noqa: S603 - ours
    assert done.returncode == 0, done.stderr
