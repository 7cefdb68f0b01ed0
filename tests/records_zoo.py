"""Small scans, made by hand from records: what discovery would find, without it."""

from dataclasses import replace

from loradar.domain.architectures import Architecture
from loradar.domain.layers import Layer, Slot
from loradar.domain.mappings import Mapping
from loradar.domain.scans import Proposal, Scan
from loradar.domain.targets import Formula
from loradar.domain.vocabulary import Kind, Role, Tower

VERSION = "5.24.0"


def layer(path: str, kind: Kind = "linear", role: Role = "other", tower: Tower = "language", depth: int = 1) -> Layer:
    """Return a layer with a 4 x 4 weight."""
    return Layer(path, kind, "Linear", (4, 4), 4, 4, depth=depth, role=role, tower=tower)


def without_gaps(mapping: Mapping) -> Mapping:
    """Return an answer without what a lookup adds: reasons that name the evidence it lacks, and verdicts of engines."""
    reasons = tuple(reason for reason in mapping.reasons if not reason.startswith("no "))
    return replace(mapping, reasons=reasons, served=())


def block_layers(blocks: int = 2) -> list[Layer]:
    """Return the layers of a decoder: q, k, v, o, two of an MLP and a norm per block, an embedding and a head."""
    roles: dict[str, Role] = {
        "self_attn.q_proj": "attention.query",
        "self_attn.k_proj": "attention.key",
        "self_attn.v_proj": "attention.value",
        "self_attn.o_proj": "attention.output",
        "mlp.up_proj": "mlp.up",
        "mlp.down_proj": "mlp.down",
    }
    inside = [layer(f"model.layers.{n}.{name}", role=role) for n in range(blocks) for name, role in roles.items()]
    norms = [layer(f"model.layers.{n}.input_layernorm", "norm", "norm") for n in range(blocks)]
    ends = [
        layer("model.embed_tokens", "embedding", "embedding.token", depth=0),
        layer("lm_head", role="head", depth=0),
    ]
    return [*inside, *norms, *ends]


def proposal(*targets: str, preset: str = "default", peft_type: str = "LORA") -> Proposal:
    """Return a proposal for these suffixes."""
    return Proposal(
        peft_type=peft_type,
        preset=preset,
        target_modules=targets,
        matched=4,
        formula=Formula(16, 0),
        reasons=("query and value by name",),
    )


def paths_of(layers: list[Layer]) -> tuple[str, ...]:
    """Return every module path there must be for these layers, containers included."""
    paths = {""}
    for one in layers:
        parts = one.path.split(".")
        paths.update(".".join(parts[: n + 1]) for n in range(len(parts)))
    return tuple(sorted(paths))


def make_scan(
    name: str = "olmo2",
    *,
    layers: list[Layer] | None = None,
    proposals: tuple[Proposal, ...] | None = None,
    **architecture: str | None,
) -> Scan:
    """Return a scan of a two-block decoder, or of the layers given; keywords change its architecture."""
    layers = block_layers() if layers is None else layers
    proposals = (proposal("q_proj", "v_proj"),) if proposals is None else proposals
    seen = Architecture("transformers", name, "Olmo2ForCausalLM", VERSION, "sha256:" + "0" * 64)
    return Scan(
        architecture=replace(seen, **architecture),
        method="names",
        layers=tuple(layers),
        towers={"language": ("model",)},
        slots=(Slot("language", "attention.query", "linear", "model.layers.*.self_attn.q_proj", 2),),
        proposals=proposals,
        module_paths=paths_of(layers),
    )
