"""Mutate headers of real files for some minutes, and read them as the commands `scan` and `doctor` and the service do.

python bench/fuzz_headers.py [--seconds 600] [--seed 1]

A header may be rejected in one line by an error of loradar's; anything else, and whatever takes over a minute, is
printed with the seed that repeats it, and makes the exit code 1.
"""

import argparse
import collections
import contextlib
import itertools
import json
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

import loradar
from loradar.discovery import scan
from loradar.errors import LoradarError
from loradar.weights.sent_files import read_sent

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from gguf_files import write_adapter, write_model

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 2}
SIZES |= {"num_hidden_layers": 2, "vocab_size": 64}
SECONDS = 60
LONGEST = 2000
"""Characters of an error."""

NUMBERS = (0, 1, -1, 255, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1, 1e308)
TEXTS = (
    "",
    "..",
    "../../etc/passwd",
    "a/b",
    "a\\b",
    "\x00",
    "\u202e",
    "\ud800",
    "x" * 5000,
    "__metadata__",
    "1" * 5000,
)
VALUES = (*NUMBERS, *TEXTS, None, True, [], {}, [[]] * 50, {"a": {"b": {}}})


def write_files(folder: Path) -> dict[str, Path]:
    """Write a file of each kind, and return the file whose header is mutated by the folder or file that is read."""
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    for name, size in (("whole", "1GB"), ("shards", "20KB"), ("indexed", "20KB")):
        model.save_pretrained(folder / name, max_shard_size=size)
    adapted = loradar.get_peft_model(model, loradar.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    adapted.save_pretrained(folder / "adapter")
    adapted.save_pretrained(folder / "configured")
    write_model(folder / "model.gguf", "llama", LlamaForCausalLM(LlamaConfig(**SIZES)))
    factors = {f"blk.{n}.attn_{one}": (torch.rand(4, 32), torch.rand(32, 4)) for n in (0, 1) for one in "qv"}
    write_adapter(folder / "lora.gguf", "llama", factors)
    stem = "lora_unet_double_blocks_0_img_attn_proj"
    kohya = {f"{stem}.lora_down.weight": torch.rand(4, 3072), f"{stem}.lora_up.weight": torch.rand(3072, 4)}
    save_file({**kohya, f"{stem}.alpha": torch.tensor(4.0)}, folder / "kohya.safetensors")
    first = min((folder / "shards").glob("*.safetensors"))
    return {
        "scan whole": folder / "whole" / "model.safetensors",
        "scan shards": first,
        "scan indexed": folder / "indexed" / "model.safetensors.index.json",
        "scan model.gguf": folder / "model.gguf",
        "doctor adapter": folder / "adapter" / "adapter_model.safetensors",
        "doctor configured": folder / "configured" / "adapter_config.json",
        "doctor lora.gguf": folder / "lora.gguf",
        "doctor kohya.safetensors": folder / "kohya.safetensors",
    }


def change_bytes(content: bytes, chance: random.Random) -> bytes:
    """Change the beginning of a file: bits, numbers, parts taken out, doubled or cut off."""
    found = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(min(len(found), 4096) or 1)
        part = found[place : place + chance.choice((1, 2, 8, 64))]
        number = (int(chance.choice(NUMBERS[:-1])) % 2**64).to_bytes(8, "little")
        flipped = bytes([part[0] ^ 1 << chance.randrange(8)]) + part[1:] if part else b""
        instead = chance.choice((flipped, number, b"", part * chance.choice((2, 4, 101)), None))
        if instead is None:
            del found[place + 1 :]
        else:
            found[place : place + len(part)] = instead
    return bytes(found)


def change_json(value: object, chance: random.Random) -> object:
    """Change one value somewhere in JSON, or its name."""
    if isinstance(value, dict) and value and chance.randrange(7):
        name = chance.choice(list(value))
        if not chance.randrange(3):
            return {(chance.choice(TEXTS) if key == name else key): one for key, one in value.items()}
        return {**value, name: change_json(value[name], chance)}
    if isinstance(value, list) and value and chance.randrange(3):
        place = chance.randrange(len(value))
        return [*value[:place], change_json(value[place], chance), *value[place + 1 :]]
    return chance.choice(VALUES)


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Change a file; the JSON of one that has any, as often as its bytes."""
    if chance.randrange(2) or content.startswith(b"GGUF"):
        return change_bytes(content, chance)
    start = 0 if content.startswith(b"{") else 8
    end = len(content) if not start else 8 + int.from_bytes(content[:8], "little")
    value = json.loads(content[start:end])
    for _ in range(chance.randint(1, 3)):
        value = change_json(value, chance)
    text = json.dumps(value).encode()
    if not chance.randrange(10):
        text = text.replace(b"{", b'{"a": 1, "a": 2,', 1)
    return (len(text).to_bytes(8, "little") if start else b"") + text + content[end:]


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TimeoutError when the time is over."""

    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def find_fault(read: Callable[[], object]) -> str:
    """Return what is wrong with the way in which a file is read; empty if nothing is."""
    try:
        with within(SECONDS):
            read()
    except LoradarError as error:
        text = str(error)
        return "" if len(text) < LONGEST and text.isprintable() else f"an error of {len(text)}: {text[:300]!r}"
    except Exception as error:  # noqa: BLE001 - what this looks for
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    """Fuzz, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    counts, faults = collections.Counter[str](), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [(what, path, path.read_bytes()) for what, path in write_files(folder).items()]
        end = time.monotonic() + options.seconds
        for number in itertools.count(options.seed):
            if time.monotonic() > end:
                break
            what, path, content = files[number % len(files)]
            path.write_bytes(mutate(content, random.Random(number)))  # noqa: S311 - mutations, not secrets
            command, _, place = what.partition(" ")
            read = (
                partial(scan, f"file:{folder / place}")
                if command == "scan"
                else partial(loradar.doctor, folder / place)
            )
            for how, one in ((what, read), (f"sent {path.name}", partial(read_sent, {path.name: path.read_bytes()}))):
                counts[how] += 1
                if fault := find_fault(one):
                    faults[f"{how}: {fault.splitlines()[0][:400]}"] += 1
                    print(f"--seed {number}: {how}: {fault[:400]}", flush=True)
            path.write_bytes(content)
    print(dict(counts))
    if faults:
        sys.exit("\n".join(f"{count} times {fault}" for fault, count in faults.most_common()))


if __name__ == "__main__":
    main()
