"""Crawls of a hub on loopback: what is counted, what is read again, and what is asked of the hub."""

from collections import Counter

import crawl_zoo
import pytest

from loradar.crawl import CrawlQuery, crawl
from loradar.errors import HubFailed, InvalidRequest
from loradar.sandbox.parallel import Workers

FAST = 10_000.0


def walk(registry, query=None, rate=FAST, **workers):
    """Crawl in threads."""
    with Workers("threads", **{"count": 2, **workers}) as running:
        return crawl(registry.crawls, query or CrawlQuery(), running, rate)


def file_requests(hub):
    """Return the requests for files."""
    return [request for request in hub.requests if "/resolve/" in request]


def test_models_are_counted_by_structure_and_adapters_by_their_base(hub, own):
    """Whatever their depth, sizes and number of shards; a pipeline counts for each of its models."""
    deeper = crawl_zoo.LLAMA | {f"model.layers.7.self_attn.{part}_proj.weight": (16, 16) for part in "qkvo"}
    hub.add("a/llama", crawl_zoo.model())
    hub.add("b/deeper", crawl_zoo.model(shapes=deeper))
    hub.add("c/sharded", crawl_zoo.sharded())
    hub.add("d/bert", crawl_zoo.model("bert", crawl_zoo.BERT))
    parts = {
        "transformer": ("FluxTransformer2DModel", {"blocks.0.to_q.weight": (4, 4)}),
        "vae": ("Vae", crawl_zoo.BERT),
    }
    hub.add("e/pipeline", crawl_zoo.pipeline(**parts))
    hub.add("f/lora", crawl_zoo.adapter("a/llama", "v_proj", "q_proj"))
    hub.add("f/other", crawl_zoo.adapter("b/deeper", "layers.0.q_proj", "layers.1.q_proj"))
    hub.add("f/flux", {"pytorch_lora_weights.safetensors": b"never read"}, tags=("base_model:adapter:e/pipeline",))
    report = walk(own)
    assert report.outcomes == {"model": 5, "adapter": 3}
    usage = own.crawls.get_usage("transformers", "llama")
    assert (usage.repos, [one.repos for one in usage.structures]) == (3, [2, 1])
    assert [one.class_name for one in usage.structures] == ["LlamaModel", None]
    assert len({one.digest for one in usage.structures}) == 1
    assert {one.targets: one.adapters for one in usage.targets} == {("q_proj", "v_proj"): 1, ("layers.*.q_proj",): 1}
    flux = own.crawls.get_usage("diffusers", "FluxTransformer2DModel")
    assert (flux.repos, [one.targets for one in flux.targets]) == (1, [()])
    assert own.crawls.get_usage("transformers", "bert").adapters == 0


def test_every_repo_that_is_not_read_has_its_cause(hub, own):
    """And is not read again until it changes, or on demand."""
    repos = crawl_zoo.unreadable()
    for cause, (files, facts) in repos.items():
        hub.add(f"x/{cause}", files, **facts)
    hub.add("alice/secret", crawl_zoo.model(), private=True)
    report = walk(own)
    assert report.outcomes == Counter(repos.keys())
    assert {cause: own.crawls.list_visited(hub.url, [f"x/{cause}"])[f"x/{cause}"][1] for cause in repos} == {
        cause: cause for cause in repos
    }
    assert walk(own).unchanged == len(repos)
    assert walk(own, CrawlQuery(retry=True)).outcomes == Counter(repos.keys())
    hub.add("x/missing_config", crawl_zoo.model())
    assert walk(own).outcomes == {"model": 1}


def test_a_second_crawl_reads_what_has_a_new_commit(hub, own):
    """Of what is as it was, nothing is requested but the listing."""
    for number in range(5):
        hub.add(f"a/model{number}", crawl_zoo.model())
    walk(own)
    hub.requests.clear()
    assert walk(own).unchanged == 5
    assert file_requests(hub) == []
    hub.add("a/model3", crawl_zoo.model("bert", crawl_zoo.BERT))
    assert walk(own).outcomes == {"model": 1}
    assert {request.split("/")[2] for request in file_requests(hub)} == {"model3"}
    assert [own.crawls.get_usage("transformers", name).repos for name in ("llama", "bert")] == [4, 1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (CrawlQuery(author="a"), {"a/one", "a/two"}),
        (CrawlQuery(filters=("peft",)), {"a/two", "b/three"}),
        (CrawlQuery(author="a", filters=("peft",)), {"a/two"}),
        (CrawlQuery(limit=2), {"a/one", "a/two"}),
    ],
)
def test_a_query_narrows_the_walk(hub, own, query, expected):
    """By author, by tags, and to the first of the listing, over its pages."""
    hub.page = 1
    for name, tags in (("a/one", ()), ("a/two", ("peft",)), ("b/three", ("peft", "lora"))):
        hub.add(name, crawl_zoo.model(), tags=tags)
    assert walk(own, query).listed == len(expected)
    assert set(own.crawls.list_visited(hub.url, ["a/one", "a/two", "b/three"])) == expected


def test_the_rate_holds_over_all_workers(hub, own):
    """As many requests as the rate allows in the time that it took, and no more."""
    for number in range(24):
        hub.add(f"a/model{number}", crawl_zoo.model())
    report = walk(own, rate=100.0, count=4)
    assert report.outcomes == {"model": 24}
    sent = sorted(hub.times)
    # A worker that the machine holds up sends its next request late and the one after at its distance: arrivals may
    # bunch by one request of each worker, and never by more.
    for first in range(len(sent)):
        for last in range(first + 8, len(sent)):
            assert last - first <= 100.0 * (sent[last] - sent[first]) + 8


def test_the_pause_that_the_hub_requests_is_kept(hub, own):
    """Nothing is lost to a hub that throttles, and no request is sent before its time."""
    hub.throttled, hub.pause = 1, "1"
    hub.add("a/model", crawl_zoo.model())
    assert walk(own).outcomes == {"model": 1}
    files = [time for time, request in zip(hub.times, hub.requests, strict=True) if "/resolve/" in request]
    assert files[1] - files[0] >= 1.0


def test_a_hub_that_is_away_ends_the_walk(hub, own, monkeypatch):
    """In one sentence; what was found is kept, and the rest is read when the hub is back."""
    monkeypatch.setattr("loradar.crawl.units.ATTEMPTS", 1)
    for number in range(40):
        hub.add(f"a/model{number}", crawl_zoo.model())
    hub.throttled = 1000
    with pytest.raises(HubFailed, match=r"24 repos in a row .* run the same command later"):
        walk(own, count=1)
    hub.throttled = 0
    report = walk(own)
    assert (report.outcomes, report.unchanged) == ({"model": 40}, 0)


@pytest.mark.usefixtures("hub")
def test_impossible_options_are_rejected(own):
    """With the value and the way out."""
    with pytest.raises(InvalidRequest, match="Cannot send 0 requests per second"):
        walk(own, rate=0)
    with pytest.raises(InvalidRequest, match="--backend dask --scheduler"):
        Workers("dask")
    with pytest.raises(InvalidRequest, match="Unknown backend 'spark'"):
        Workers("spark")
    with pytest.raises(InvalidRequest, match="the backend is 'loky'"):
        Workers("loky", scheduler="tcp://127.0.0.1:1")
