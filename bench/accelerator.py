"""Measure training steps and single tokens with an adapter on a GPU: loradar against peft and the frozen base.

    python bench/accelerator.py [--rounds N] [--json FILE] [--device DEVICE] [--tiny]

The arms of ``training.py`` on a random llama of 1.1 billion parameters in bfloat16, adapters in float32, eager and
through ``torch.compile``; a step reads 4 x 1,024 tokens. Time is wall time, with the device synchronised before and
after. Memory is the device's peak beyond the frozen weights, with adapter, gradients and optimizer. On the CPU,
``--tiny`` only tests the code; its figures have no meaning.
"""

from collections.abc import Callable
from functools import partial
from time import perf_counter

import torch
from arms import Row, Times, alternate, compare, make_parser, print_head, seconds, write
from training import ARMS, TARGETS, TOKENS_IN_A_ROW, Subject, build

SIZE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}
TINY = {**SIZE, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8}
SHAPE, TINY_SHAPE = (4, 1024), (2, 16)
GOALS = {"eager step": "<= 0.90", "compiled step": "<= 1.00"}
"""Ratios aimed at, ours over peft, with ``all-linear``."""


def make(arm: str, preset: str, device: str, *, tiny: bool, compiled: bool) -> Subject:
    """Return the model of one arm on the device."""
    with torch.device(device):
        model = build(TINY if tiny else SIZE).bfloat16()
    subject = Subject(model, arm, TARGETS[preset], TINY_SHAPE if tiny else SHAPE)
    if compiled:
        subject.model = torch.compile(subject.model)
    return subject


def time_on(device: str, action: Callable[[], None]) -> float:
    """Return the seconds until the device has finished ``action``."""
    if device == "cpu":
        return seconds(action, perf_counter)
    torch.cuda.synchronize()
    return seconds(lambda: (action(), torch.cuda.synchronize()), perf_counter)


def find_peak(subject: Subject) -> float:
    """Return the peak memory of one step on the device beyond the frozen weights, in megabytes."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    subject.step()
    return (torch.cuda.max_memory_allocated() - before + subject.adapter_bytes()) / 1e6


def compare_arms(name: str, unit: str, times: Times, goal: str = "") -> list[Row]:
    """Print and return the ratios ours / peft, ours / base and peft / base."""
    pairs = {("ours", "peft"): goal, ("ours", "base"): "", ("peft", "base"): ""}
    return [compare(f"{name}, {unit}", times, *pair, target) for pair, target in pairs.items()]


def measure(mode: str, preset: str, subjects: dict[str, Subject], device: str, rounds: int) -> list[Row]:
    """Measure steps, their memory and single tokens of one mode and preset."""
    steps = alternate({arm: partial(time_on, device, each.step) for arm, each in subjects.items()}, rounds)
    goal = GOALS[f"{mode} step"] if preset == "all-linear" else ""
    rows = compare_arms(f"{mode} step, {preset}", "s", steps, goal)
    if device != "cpu":
        peaks = alternate({arm: partial(find_peak, each) for arm, each in subjects.items()}, 1)
        rows += compare_arms(f"{mode} peak, {preset}", "MB", peaks)
    for each in subjects.values():
        each.model.eval()
    tokens = alternate({arm: partial(time_on, device, each.forward_token) for arm, each in subjects.items()}, rounds)
    return rows + compare_arms(f"{mode} one token, {preset}", f"s for {TOKENS_IN_A_ROW}", tokens)


def main() -> None:
    """Measure both modes and presets and print the table, or exit if there is no device."""
    parser = make_parser(__doc__, 15)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="use a tiny model, to test the code")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(f"--device {options.device}: torch sees no CUDA device. To try the code: --device cpu --tiny")
    print_head()
    results = []
    for mode in ("eager", "compiled"):
        for preset in TARGETS:
            torch.compiler.reset()  # torch limits the number of compiled variants of one function
            how = {"device": options.device, "tiny": options.tiny, "compiled": mode == "compiled"}
            subjects = {arm: make(arm, preset, **how) for arm in ARMS}
            results += measure(mode, preset, subjects, options.device, options.rounds)
    name = options.device if options.device == "cpu" else torch.cuda.get_device_name()
    write(results, options, device=name, tiny=options.tiny)


if __name__ == "__main__":
    main()
