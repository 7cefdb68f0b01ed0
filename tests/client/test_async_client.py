"""The client for asyncio: the methods of the other one, awaited, many at once."""

import asyncio
import inspect

import pytest
from scripted_server import ScriptedServer

import loradar
from loradar.api import running
from loradar.client import AsyncClient, Client
from loradar.errors import NotRegistered

PUBLIC = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")} - {"close"}


def test_every_method_has_its_twin():
    """With the same parameters."""
    for name in PUBLIC:
        assert inspect.signature(getattr(AsyncClient, name)) == inspect.signature(getattr(Client, name)), name
        assert getattr(AsyncClient, name).__doc__ == getattr(Client, name).__doc__


def test_calls_run_at_once(read_settings):
    """Each gets its own answer, or raises its own error."""
    names = ["llama", "bert", "timm:resnet50", "Qwen/Qwen3-8B", "lama"] * 4

    async def ask(url):
        async with AsyncClient(url) as client:
            assert (await client.architecture("transformers", "llama")).architecture.name == "llama"
            return await asyncio.gather(*map(client.targets, names), return_exceptions=True)

    with running(read_settings) as url:
        answers = asyncio.run(ask(url))
    for name, answer in zip(names, answers, strict=True):
        if name == "lama":
            assert isinstance(answer, NotRegistered)
        else:
            assert answer == loradar.lookup(name)


def test_lists_are_iterated_page_by_page(read_settings, monkeypatch):
    """As by the other client, whatever the size of a page."""
    monkeypatch.setattr("loradar.client.client.PAGE", 50)
    monkeypatch.setattr("loradar.client.async_client.PAGE", 7)

    async def collect(url):
        async with AsyncClient(url) as client:
            return [mapping async for mapping in client.mappings(q="llama", peft_type="LORA")]

    with running(read_settings) as url, Client(url) as client:
        assert asyncio.run(collect(url)) == [*client.mappings(q="llama", peft_type="LORA")] != []


def test_a_call_can_be_cancelled():
    """The event loop goes on while a service does not answer."""

    async def wait(url):
        async with AsyncClient(url, store=False) as client:
            call = asyncio.create_task(client.targets("llama"))
            await asyncio.to_thread(server.reached.wait)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    with ScriptedServer().running() as server:
        server.hold()
        asyncio.run(wait(server.url))
        server.go_on()
