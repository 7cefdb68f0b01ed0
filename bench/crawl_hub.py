"""Share the hub of the benches of crawls: the hub of the tests in a process of its own, with synthetic repos.

Headers have the number of tensors of real checkpoints; of the data behind them nothing is written (sparse files).
"""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from math import prod
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import hub_server

Shapes = dict[str, tuple[int, ...]]


def llama(blocks: int = 32, width: int = 4096, inner: int = 14336) -> Shapes:
    """Return the tensors of a decoder of 8 billion parameters."""
    shapes: Shapes = {"model.embed_tokens.weight": (128_256, width), "lm_head.weight": (128_256, width)}
    for block in range(blocks):
        start = f"model.layers.{block}"
        shapes |= {f"{start}.self_attn.{name}_proj.weight": (width, width) for name in "qkvo"}
        shapes |= {f"{start}.mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        shapes |= {f"{start}.mlp.down_proj.weight": (width, inner)}
        shapes |= {f"{start}.{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
    return {**shapes, "model.norm.weight": (width,)}


def bert(blocks: int = 12, width: int = 768) -> Shapes:
    """Return the tensors of an encoder of 110 million parameters."""
    shapes: Shapes = {f"bert.embeddings.{name}_embeddings.weight": (30_522, width) for name in ("word", "position")}
    for block in range(blocks):
        start = f"bert.encoder.layer.{block}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{start}.{name}.weight": (width, width), f"{start}.{name}.bias": (width,)}
        shapes |= {f"{start}.intermediate.dense.weight": (4 * width, width), f"{start}.output.dense.bias": (width,)}
        shapes |= {f"{start}.intermediate.dense.bias": (4 * width,), f"{start}.output.dense.weight": (width, 4 * width)}
        for name in ("attention.output", "output"):
            shapes |= {f"{start}.{name}.LayerNorm.{end}": (width,) for end in ("weight", "bias")}
    return shapes


class SparseHub:
    """A hub whose weights have headers alone."""

    def __init__(self, hub: hub_server.Hub) -> None:
        self.hub = hub
        self._known: dict[str, str] = {}

    def store(self, shapes: Shapes) -> str:
        """Write a sparse file of weights and return its digest; made up, since its data is never read."""
        key = sha256(repr(shapes).encode()).hexdigest()
        if key not in self._known:
            header, end = {}, 0
            for name, shape in shapes.items():
                begin, end = end, end + 2 * prod(shape)
                header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
            content = json.dumps(header, separators=(",", ":")).encode()
            with (self.hub.folder / key).open("wb") as file:
                file.write(len(content).to_bytes(8, "little") + content)
                file.truncate(8 + len(content) + end)
            self._known[key] = key
        return key

    def add(self, name: str, kind: str, files: dict[str, bytes | Shapes]) -> None:
        """Add a repo, tagged with its kind."""
        stored = {
            path: self.hub.store(content) if isinstance(content, bytes) else self.store(content)
            for path, content in files.items()
        }
        self.hub.repos[name] = hub_server.Repo(tags=(kind,))
        self.hub.repos[name].commit("main", stored, "Add files")


def make_repo(kind: str, number: int) -> dict[str, bytes | Shapes]:
    """Return the files of a repo of a kind; sizes differ from one to the next, so headers do."""
    if kind == "adapter":
        config = {"base_model_name_or_path": f"org/single{number % 100}", "peft_type": "LORA", "r": 8 + number % 8}
        config |= {"target_modules": ["q_proj", "v_proj"] if number % 3 else ["down_proj", "o_proj", "q_proj"]}
        return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": b""}
    if kind == "pickled":
        return {"config.json": b"{}", "pytorch_model.bin": b""}
    if kind == "pipeline":
        parts = {"transformer": llama(19, 3072), "text_encoder": bert(), "vae": bert(4, 512)}
        config = {part: json.dumps({"_class_name": f"{part.title()}Model"}).encode() for part in parts}
        files: dict[str, bytes | Shapes] = {"model_index.json": b"{}"}
        for part, shapes in parts.items():
            files |= {f"{part}/config.json": config[part], f"{part}/diffusion_pytorch_model.safetensors": shapes}
        return files
    shapes = bert(12, 768 + 8 * (number % 16)) if kind == "encoder" else llama(32, 4096 + 8 * (number % 16))
    config = {"model_type": "bert" if kind == "encoder" else "llama", "hidden_size": 4096 + number % 16}
    files = {"config.json": json.dumps(config | {"padding": "x" * 600}).encode()}
    if kind != "sharded":
        return files | {"model.safetensors": shapes}
    names = [*shapes]
    shards = {f"model-{i + 1:05}-of-00004.safetensors": names[i::4] for i in range(4)}
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    files |= {file: {name: shapes[name] for name in held} for file, held in shards.items()}
    return files | {"model.safetensors.index.json": json.dumps(index).encode()}


def _serve(pipe: Connection, folder: Path, kinds: dict[str, int], delay: float) -> None:
    with hub_server.running(folder) as hub:
        sparse = SparseHub(hub)
        for kind, count in kinds.items():
            for number in range(count):
                sparse.add(f"org/{kind}{number}", kind, make_repo(kind, number))
        hub.delay = delay
        pipe.send(hub.url)
        while pipe.recv() == "times":
            pipe.send([*zip(hub.times, hub.requests, strict=True)])


@contextmanager
def serving(folder: Path, kinds: dict[str, int], delay: float = 0.0) -> Iterator[tuple[str, Any]]:
    """Serve a hub with so many repos of each kind; yield its address and a function that returns its requests."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, folder, kinds, delay))
    process.start()
    url = here.recv()
    os.environ |= {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def list_requests() -> list[tuple[float, str]]:
        here.send("times")
        found: list[tuple[float, str]] = here.recv()
        return found

    try:
        yield url, list_requests
    finally:
        here.send("stop")
        process.join()
