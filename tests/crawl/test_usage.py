"""From the command to its summary, and to the usage that commands, services and clients tell."""

import json

import crawl_zoo
import pytest
from shapes import documented

from loradar.api import running
from loradar.cli import main
from loradar.client import Client
from loradar.domain.crawls.usage import Usage
from loradar.errors import UnknownArchitecture
from loradar.schema import to_json


@pytest.fixture
def filled(hub):
    """A hub with models, an adapter, and a repo of each kind that cannot be read."""
    hub.add("a/llama", crawl_zoo.model())
    hub.add("b/llama", crawl_zoo.model())
    hub.add("c/lora", crawl_zoo.adapter("a/llama", "q_proj", "v_proj"))
    for cause, (files, facts) in crawl_zoo.unreadable().items():
        hub.add(f"x/{cause}", files, **facts)
    return hub


def run(capsys, *arguments):
    """Run a command and return (exit code, standard output, standard error)."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    printed = capsys.readouterr()
    return stopped.value.code or 0, printed.out, printed.err


CRAWL = ("crawl", "--backend", "threads", "--rate", "10000")


def test_a_crawl_ends_with_what_was_read_and_what_was_not(filled, own, capsys, monkeypatch):
    """Each cause with its number and its meaning; progress is on standard error, if that is a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = run(capsys, *CRAWL)
    assert code == 0
    assert f"{filled.url} · 10 repos listed\n  models    2, with 1 new structures\n  adapters  1\n" in out
    for cause in crawl_zoo.unreadable():
        assert f"1 {cause}: " in out
    assert "took" in out
    assert "2 models, 1 adapters, 7 not read" in err
    monkeypatch.delenv("FORCE_COLOR")
    _, out, err = run(capsys, *CRAWL, "--json", "--limit", "5")
    assert err == ""
    report = json.loads(out)
    assert (report["listed"], report["unchanged"], report["outcomes"]) == (5, 5, {})
    assert own.crawls.get_usage("transformers", "llama").repos == 2


def test_usage_is_the_same_everywhere(filled, own, settings, capsys):
    """In the registry, over REST, from the client and from the command, which takes any spelling."""
    run(capsys, *CRAWL)
    expected = own.crawls.get_usage("transformers", "llama")
    assert expected.repos == len(("a/llama", "b/llama"))
    printed = run(capsys, "usage", "LlamaForCausalLM")[1].splitlines()
    assert printed[0] == "transformers:llama · 2 repos · 1 adapters"
    assert printed[-2:] == ["  targets    q_proj, v_proj (LORA): 1 adapters", "             c/lora"]
    with running(settings) as url, Client(url) as client:
        assert client.usage("transformers", "llama") == expected
        with pytest.raises(UnknownArchitecture, match="Closest: 'llama'"):
            client.usage("transformers", "lama")
        body = json.loads(run(capsys, "usage", "llama", "--url", url, "--json")[1])
    assert body == to_json(expected)
    assert documented(Usage, body)
    assert filled.url


def test_a_usage_before_any_crawl_says_so(own, capsys):
    """With the command that would count."""
    assert own.crawls.get_usage("transformers", "llama").crawled == 0
    assert "No hub was crawled yet: loradar crawl" in run(capsys, "usage", "llama")[1]
