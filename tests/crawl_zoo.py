"""Repos of a hub to crawl: models by their headers alone, adapters, and one of each kind that cannot be read."""

import json
import os
import signal
import time
from math import prod

from loradar.crawl.units import read_unit

LLAMA = {"model.embed_tokens.weight": (32, 8), "lm_head.weight": (32, 8)}
LLAMA |= {f"model.layers.{i}.self_attn.{part}_proj.weight": (8, 8) for i in range(2) for part in "qkvo"}
BERT = {f"encoder.layer.{i}.attention.self.{part}.weight": (8, 8) for i in range(2) for part in ("query", "value")}


def weights(shapes):
    """Return a safetensors file of zeros."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def model(model_type="llama", shapes=None, **config):
    """Return the files of a model."""
    stated = {"model_type": model_type, "architectures": [f"{model_type.title()}Model"], **config}
    return {"config.json": json.dumps(stated).encode(), "model.safetensors": weights(shapes or LLAMA)}


def adapter(base, *targets, **config):
    """Return the files of an adapter."""
    stated = {"base_model_name_or_path": base, "peft_type": "LORA", "target_modules": [*targets], **config}
    return {"adapter_config.json": json.dumps(stated).encode(), "adapter_model.safetensors": b"never read"}


def sharded(model_type="llama", shapes=None):
    """Return the files of a model of one shard per tensor."""
    shapes = shapes or LLAMA
    files = {f"model-{i:05}.safetensors": weights({name: shape}) for i, (name, shape) in enumerate(shapes.items())}
    index = {"metadata": {}, "weight_map": dict(zip(shapes, files, strict=True))}
    config = {"config.json": json.dumps({"model_type": model_type}).encode()}
    return files | config | {"model.safetensors.index.json": json.dumps(index).encode()}


def pipeline(**parts):
    """Return the files of a pipeline of diffusers, by class and shapes of each part."""
    files = {"model_index.json": b"{}"}
    for part, (class_name, shapes) in parts.items():
        files[f"{part}/config.json"] = json.dumps({"_class_name": class_name}).encode()
        files[f"{part}/diffusion_pytorch_model.safetensors"] = weights(shapes)
    return files


def unreadable():
    """Return repos that cannot be read, by the cause, each with its files and facts."""
    plain = model()
    huge = (2**63).to_bytes(8, "little") + b"{}"
    return {
        "gated": (plain, {"gated": True}),
        "missing_config": ({"model.safetensors": weights(LLAMA)}, {}),
        "unnamed": (plain | {"config.json": b'{"hidden_size": 8}'}, {}),
        "no_weights": ({"config.json": b"{}", "README.md": b""}, {}),
        "pickled": ({"config.json": b"{}", "pytorch_model.bin": b"never opened"}, {}),
        "gguf": ({"llama.Q4.gguf": b"GGUF"}, {}),
        "unreadable": (plain | {"model.safetensors": huge}, {}),
    }


def read_or_die(unit, *, mark, repo):
    """Read a unit; the first worker that gets a certain repo dies once it has read it."""
    found = read_unit(unit)
    if any(one.name == repo for one in unit.repos) and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return found


def halve_or_die(number):
    """Return the half of an even number, and die of an odd one."""
    if number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number // 2


def note_process(seconds, *, folder):
    """Leave a mark of the process, and stay in it for some seconds; the first to come waits for another one."""
    (folder / str(os.getpid())).touch()
    while len([*folder.iterdir()]) < 2:
        time.sleep(0.05)
    time.sleep(seconds)
