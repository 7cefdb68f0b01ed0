"""Number the blocks of a UNet as latent diffusion does: through from the input to the middle, and to the output."""

from collections.abc import Collection

from ...data import read_facts

FACTS = "adapter_layouts.toml"


def number_blocks(paths: Collection[str]) -> dict[str, str]:
    """Return the original name of each layer of a UNet of diffusers, by path.

    Each of its input blocks is a resnet with the attention behind it, or a downsampler; each output block is a resnet
    with an attention and an upsampler behind it, if they are there.
    """
    facts = read_facts(FACTS)["ldm"]
    starts = _list_starts(paths)
    inside = {name: original for original, name in facts["resnet"].items()}
    found = {path: original for original, path in facts["whole"].items() if path in paths}
    for path in paths:
        start = ".".join(path.split(".")[: 4 if path[0] != "m" else 3])  # down_blocks.0.resnets.1, mid_block.resnets.1
        if start not in starts:
            continue
        rest = path.removeprefix(start).removeprefix(".")
        if ".resnets." in start:
            if rest in inside:
                found[path] = f"{starts[start]}.{inside[rest]}"
        elif ".attentions." in start:
            found[path] = f"{starts[start]}.{rest}"
        elif rest == "conv":
            found[path] = starts[start]
    return found


def _list_starts(paths: Collection[str]) -> dict[str, str]:
    """Return the original name of each resnet, attention and sampler, by the start of its paths."""
    found = {
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    number = 0
    for block in range(_count(paths, "down_blocks")):
        for index in range(_count(paths, f"down_blocks.{block}.resnets")):
            number += 1
            found[f"down_blocks.{block}.resnets.{index}"] = f"input_blocks.{number}.0"
            found[f"down_blocks.{block}.attentions.{index}"] = f"input_blocks.{number}.1"
        if _count(paths, f"down_blocks.{block}.downsamplers"):
            number += 1
            found[f"down_blocks.{block}.downsamplers.0"] = f"input_blocks.{number}.0.op"
    number = -1
    for block in range(_count(paths, "up_blocks")):
        for index in range(_count(paths, f"up_blocks.{block}.resnets")):
            number += 1
            found[f"up_blocks.{block}.resnets.{index}"] = f"output_blocks.{number}.0"
            found[f"up_blocks.{block}.attentions.{index}"] = f"output_blocks.{number}.1"
        behind = 1 + bool(_count(paths, f"up_blocks.{block}.attentions"))
        found[f"up_blocks.{block}.upsamplers.0"] = f"output_blocks.{number}.{behind}.conv"
    return found


def _count(paths: Collection[str], start: str) -> int:
    """Return the number of modules in a list."""
    indices = [path.removeprefix(f"{start}.").partition(".")[0] for path in paths if path.startswith(f"{start}.")]
    return 1 + max(map(int, filter(str.isdecimal, indices)), default=-1)
