"""Measure what reading a stored model costs: a checkpoint of 1,000 shards and 1 TB, and one file of 13 GB, on loopback.

python bench/headers.py        prints bytes, requests, seconds and memory; the files are sparse

The server is the hub of the tests, in a process of its own; the alternative is huggingface_hub's own
``get_safetensors_metadata``, in the same run.
"""

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import hub_server

SHARDS, BLOCKS, EXPERTS = 1000, 100, 58
WIDTH, INNER = 4096, 1792


def list_tensors() -> dict[str, tuple[int, ...]]:
    """Return the shapes of a mixture of experts of one terabyte in 16 bits."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (128_000, WIDTH)}
    for block in range(BLOCKS):
        start = f"model.layers.{block}"
        for name in ("q", "k", "v", "o"):
            shapes[f"{start}.self_attn.{name}_proj.weight"] = (WIDTH, WIDTH)
        shapes[f"{start}.input_layernorm.weight"] = (WIDTH,)
        shapes[f"{start}.mlp.gate.weight"] = (EXPERTS, WIDTH)
        for expert in range(EXPERTS):
            for name, shape in (("gate", (INNER * 5, WIDTH)), ("up", (INNER * 5, WIDTH)), ("down", (WIDTH, INNER * 5))):
                shapes[f"{start}.mlp.experts.{expert}.{name}_proj.weight"] = shape
    return {**shapes, "lm_head.weight": (128_000, WIDTH)}


def write_shard(path: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    """Write a sparse safetensors file of these tensors and return the bytes of its data."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    content = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + end)
    return end


def fill(hub: hub_server.Hub, folder: Path) -> None:
    """Put the two repos into a hub, whose files are named by digests that are made up here."""

    def add(repo: str, files: dict[str, Path | bytes]) -> None:
        stored = {}
        for name, content in files.items():
            if isinstance(content, bytes):
                stored[name] = hub.store(content)
            else:
                content.rename(folder / f"{repo.replace('/', '-')}-{name}")
                stored[name] = f"{repo.replace('/', '-')}-{name}"
        hub.repos.setdefault(repo, hub_server.Repo()).commit("main", stored, "Add files")

    config = json.dumps({"model_type": "brandnew"}).encode()
    names = list(list_tensors().items())
    per_shard = -(-len(names) // SHARDS)
    files: dict[str, Path | bytes] = {"config.json": config}
    weight_map, total = {}, 0
    for shard in range(-(-len(names) // per_shard)):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        own = dict(names[shard * per_shard : (shard + 1) * per_shard])
        total += write_shard(folder / "shard", own)
        weight_map |= dict.fromkeys(own, name)
        (folder / "shard").rename(folder / name)
        files[name] = folder / name
    files["model.safetensors.index.json"] = json.dumps(
        {"metadata": {"total_size": total}, "weight_map": weight_map}
    ).encode()
    add("bench/terabyte", files)
    single = {f"model.layers.{i}.{n}.weight": (WIDTH, WIDTH) for i in range(48) for n in "abcdefgh"}
    write_shard(folder / "single", single)
    add("bench/single", {"config.json": config, "model.safetensors": folder / "single"})


def serve(folder: str, pipe: Connection) -> None:
    """Serve the hub until the parent ends."""
    with hub_server.running(Path(folder)) as hub:
        fill(hub, Path(folder))
        pipe.send(hub.url)
        pipe.recv()


def main() -> None:
    """Measure both repos with both readers."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, theirs), daemon=True)
        server.start()
        os.environ |= {"HF_ENDPOINT": ours.recv(), "HF_HUB_DISABLE_XET": "1", "HF_HOME": f"{folder}/home"}
        from huggingface_hub import HfApi  # noqa: PLC0415 - reads the environment

        from loradar.weights import read_weights  # noqa: PLC0415

        HfApi().model_info("bench/single")  # connections and imports are not what is measured
        for repo in ("bench/single", "bench/terabyte"):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            started = time.perf_counter()
            found = read_weights(f"hub:{repo}")
            seconds = time.perf_counter() - started
            started = time.perf_counter()
            HfApi().get_safetensors_metadata(repo)
            alternative = time.perf_counter() - started
            size = sum(tensor.size for tensor in found.tensors)
            print(
                f"{repo}: {size / 1e9:,.0f} GB, {len(found.tensors):,} tensors in {found.files} files; "
                f"{found.headers} headers, {found.transferred / 1e3:,.0f} KB, {seconds:.2f} s "
                f"(get_safetensors_metadata {alternative:.2f} s, {alternative / seconds:.1f} times as long), "
                f"peak memory {before / 1024:.0f} MiB before, the process has "
                f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB after both; "
                f"assumed: {'; '.join(found.assumed) or 'nothing'}"
            )
        server.kill()


if __name__ == "__main__":
    main()
