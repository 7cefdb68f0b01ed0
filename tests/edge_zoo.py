"""What the edge-case tests look at: cached scans of real models, fake quantised layers, and small modules of users."""

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from scan_cache import scan
from torch import nn
from transformers.models.gemma4 import Gemma4AudioConfig, Gemma4Config, Gemma4TextConfig, Gemma4VisionConfig

from loradar.domain.layers import Layer
from loradar.domain.patterns import pattern_of
from loradar.domain.targets import TargetMatcher, TargetSpec
from loradar.errors import UnknownPreset
from loradar.schema import to_json

PRESETS = ("default", "attention", "mlp", "all-linear")

# --- scans of real models ----------------------------------------------------------------------------------------


class Found:
    """One scan, asked by path pattern (``model.layers.*.mlp.gate``, ``*`` for an index) or by its beginning or end."""

    def __init__(self, subject: Any, **options: Any) -> None:
        self.scan = scan(subject, **options)
        self.data = to_json(self.scan)

    @cached_property
    def by_pattern(self) -> dict[str, list[dict[str, Any]]]:
        """Layers as JSON, by path pattern."""
        grouped: dict[str, list[dict[str, Any]]] = {}
        for layer in self.data["layers"]:
            grouped.setdefault(pattern_of(layer["path"]), []).append(layer)
        return grouped

    def layers(self, tail: str) -> list[dict[str, Any]]:
        """Return the layers whose pattern is ``tail`` or ends with it, segment by segment; there must be some."""
        found = [
            layer
            for pattern, layers in self.by_pattern.items()
            if pattern == tail or pattern.endswith(f".{tail}")
            for layer in layers
        ]
        assert found, f"no layer ends with {tail!r}; there are {sorted(self.by_pattern)}"
        return found

    def all(self, tail: str, field: str) -> set[Any]:
        """Return the values of a field over those layers."""
        return {tuple(v) if isinstance(v := layer[field], list) else v for layer in self.layers(tail)}

    def one(self, tail: str, field: str) -> Any:
        """Return the value of a field that all those layers share."""
        values = self.all(tail, field)
        assert len(values) == 1, f"{tail} has {field} {values}"
        return values.pop()

    def roles(self, *tails: str) -> dict[str, Any]:
        """Return the role of each."""
        return {tail: self.one(tail, "role") for tail in tails}

    def with_role(self, *starts: str) -> dict[str, list[dict[str, Any]]]:
        """Return path pattern -> layers of the layers whose role starts with any of these."""
        kept = {p: [la for la in ls if la["role"].startswith(starts)] for p, ls in self.by_pattern.items()}
        return {pattern: layers for pattern, layers in kept.items() if layers}

    def count(self, role: str) -> int:
        """Return how many layers have a role."""
        return sum(layer["role"] == role for layer in self.data["layers"])

    def hits(self, preset: str) -> set[str]:
        """Return the paths a preset's target spec hits, by PEFT's rule; none if there is no such preset."""
        try:
            spec = self.scan.propose(preset=preset).spec
        except UnknownPreset:
            return set()
        return self.hits_of(spec)

    def hits_of(self, spec: TargetSpec) -> set[str]:
        """Return the paths a target spec hits, by PEFT's rule."""
        hit: set[str] = set()
        if spec.target_modules is not None:
            matcher, excluded = TargetMatcher(spec.target_modules), TargetMatcher(spec.exclude_modules or ())
            hit |= {path for path in self.scan.module_paths if matcher.find(path) and not excluded.find(path)}
        for name in spec.target_parameters or ():
            hit |= {la.path for la in self.experts if la.path == name or la.path.endswith(f".{name}")}
        return hit

    @property
    def experts(self) -> list[Layer]:
        """The layers that are bare parameters."""
        return [layer for layer in self.scan.layers if layer.kind == "expert_parameter"]

    def hit_patterns(self, preset: str) -> set[str]:
        """Return the patterns of the paths a preset hits."""
        return {pattern_of(path) for path in self.hits(preset)}

    def proposed(self) -> set[str]:
        """Return the patterns of all that any preset hits, but for ``everything``."""
        proposals = (proposal for proposal in self.scan.proposals if proposal.preset != "everything")
        return {pattern_of(path) for proposal in proposals for path in self.hits_of(proposal.spec)}

    def words(self, tail: str) -> str:
        """Return all that is said of some layers, by their evidence and by the proposals."""
        said = [item["says"] for layer in self.layers(tail) for item in layer["evidence"]]
        return "\n".join([*said, *(reason for p in self.scan.proposals for reason in p.reasons)])


def on_meta(model_class: type, config: Any) -> nn.Module:
    """Return a model of a task class of one's choice, on meta."""
    with torch.device("meta"):
        return model_class(config).eval()


def small_detr() -> nn.Module:
    """Return a DETR with a mask head."""
    return on_meta(hf.DetrForSegmentation, hf.DetrConfig())


SPECIAL: dict[str, Callable[[], Any]] = {
    "phi3 with grouped heads": lambda: hf.Phi3Config(num_key_value_heads=8),
    "falcon with many heads": lambda: hf.FalconConfig(multi_query=False),
    "falcon with groups": lambda: hf.FalconConfig(
        new_decoder_architecture=True, hidden_size=4096, num_attention_heads=64, num_kv_heads=8
    ),
    "gemma4 with towers": lambda: Gemma4Config(vision_config=Gemma4VisionConfig(), audio_config=Gemma4AudioConfig()),
    "gemma4 reusing k": lambda: Gemma4Config(text_config=Gemma4TextConfig(attention_k_eq_v=True)),
    "blip-2 on t5": lambda: hf.Blip2Config(text_config=hf.T5Config()),
    "detr with masks": small_detr,
    "wav2vec2 for speakers": lambda: on_meta(hf.Wav2Vec2ForXVector, hf.Wav2Vec2Config()),
    "roberta classifier": lambda: on_meta(hf.RobertaForSequenceClassification, hf.RobertaConfig()),
    "bert for questions": lambda: on_meta(hf.BertForQuestionAnswering, hf.BertConfig()),
    "bert with pooler": lambda: on_meta(hf.BertModel, hf.BertConfig()),
    "gpt2 classifier": lambda: on_meta(hf.GPT2ForSequenceClassification, hf.GPT2Config()),
    "deepseek_v2 without q_a": lambda: hf.DeepseekV2Config(q_lora_rank=None),
}


@cache
def found(name: str) -> Found:
    """Return the scan of a reference or of one of the special models, made once for all tests."""
    return Found(SPECIAL[name]() if name in SPECIAL else name)


def source_line(architecture: str, where: str) -> str:
    """Return the line of transformers' source that ``file.py:line`` names."""
    file, line = where.rsplit(":", 1)
    path = Path(hf.__file__).parent / "models" / architecture / file
    return path.read_text("utf-8").splitlines()[int(line) - 1]


# --- quantised linears, without their libraries --------------------------------------------------------------------


class PackedLinear(nn.Module):
    """A linear whose weight is packed into integers, as GPTQ, AWQ and HQQ store it: no ``weight`` to be found."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("qweight", torch.zeros(in_features // 8, out_features, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(1, out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return something of the right shape."""
        return x[..., :1] * self.scales


class Linear4bit(nn.Linear):
    """A linear whose weight is packed flat, as bitsandbytes stores it."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        packed = torch.zeros(in_features * out_features // 2, 1, dtype=torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return something of the right shape."""
        return x[..., :1].expand(*x.shape[:-1], self.out_features)


class Mxfp4Experts(nn.Module):
    """Experts in blocks and scales, as gpt-oss is released: no matrix per expert to adapt."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj_blocks = nn.Parameter(torch.zeros(4, 16, 1, 4, dtype=torch.uint8), requires_grad=False)
        self.gate_up_proj_scales = nn.Parameter(torch.zeros(4, 16, 1, dtype=torch.uint8), requires_grad=False)


def quantised(linear: Callable[[int, int], nn.Module]) -> nn.Module:
    """Return a classifier of two blocks whose linears are of one quantised kind."""
    blocks = [nn.ModuleDict({"up_proj": linear(16, 32), "act": nn.GELU(), "down_proj": linear(32, 16)}) for _ in "ab"]
    return nn.ModuleDict({"layers": nn.ModuleList(blocks), "head": nn.Linear(16, 2)})


# --- small modules of users ----------------------------------------------------------------------------------------


class MisnamedBlock(nn.Module):
    """An attention and a gated feed-forward network whose names say the opposite of what they do."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.down_proj = nn.Linear(width, width)  # query
        self.gate_proj = nn.Linear(width, width)  # key
        self.o_proj = nn.Linear(width, width)  # value
        self.q_proj = nn.Linear(width, width)  # output
        self.v_proj = nn.Linear(width, 2 * width)  # gate
        self.k_proj = nn.Linear(width, 2 * width)  # up
        self.up_proj = nn.Linear(2 * width, width)  # down

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return as many vectors as came in."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.down_proj, self.gate_proj, self.o_proj)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.q_proj(mixed.transpose(1, 2).flatten(2))
        return x + self.up_proj(nn.functional.silu(self.v_proj(x)) * self.k_proj(x))


MISNAMED = {
    "down_proj": "attention.query",
    "gate_proj": "attention.key",
    "o_proj": "attention.value",
    "q_proj": "attention.output",
    "v_proj": "mlp.gate",
    "k_proj": "mlp.up",
    "up_proj": "mlp.down",
}


class Stack(nn.Module):
    """Blocks, one after another, under the name of one's choice."""

    def __init__(self, block: Callable[[], nn.Module], name: str = "blocks", count: int = 2) -> None:
        super().__init__()
        self.list_name = name
        self.add_module(name, nn.ModuleList(block() for _ in range(count)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return as many vectors as came in."""
        for block in self._modules[self.list_name].children():
            x = block(x)
        return x


class RootList(nn.Sequential):
    """Blocks that stand at the root of the model, under bare indices."""

    def __init__(self) -> None:
        super().__init__(MisnamedBlock(), MisnamedBlock())
