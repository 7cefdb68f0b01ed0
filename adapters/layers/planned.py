"""The plan of one adapter on one layer."""

from typing import Any, NamedTuple

from ...domain.vocabulary import Kind


class PlannedAdapter(NamedTuple):
    """The plan of one adapter on one layer.

    Attributes:
        path: Path of the layer.
        named: Path that the configuration matched: that of the attention, for the projections of one.
        location: Path of its tensors in an adapter file: ``path``, with ``base_layer`` for each adapter around it.
        kind: Kind of the layer; ``expert_parameter`` for any bare parameter.
        r: Rank; 0 for IA3.
        scaling: ``alpha / r``, or ``alpha / sqrt(r)`` with rsLoRA.
        dropout: Dropout on the adapter's input.
        fan_in_fan_out: Whether the layer's class stores the weight as (in, out).
        shares_weight: Whether another module holds the same weight, as with tied embeddings.
        parameter: Name of the bare parameter to adapt; empty for a layer.
        is_feedforward: Whether IA3 scales the layer's input.
        use_dora: Whether LoRA rescales each output feature to a learned magnitude (``layers.dora``).
        lora_bias: Whether ``B`` of LoRA has a bias.
        tokens: The rows that train in place of the layer's own, by number; of no other adapter.
        tied_to: Path of the layer whose trained rows this one uses too; empty if it has its own.
        lora_alpha: The numerator of LoRA's scaling.
        use_rslora: Whether its denominator is the root of the rank.
        variant: The variant that PEFT's class computes (``layers.peft_variants``); ``None`` for plain LoRA and DoRA.
    """

    path: str
    named: str
    location: str
    kind: Kind
    r: int = 0
    scaling: float = 1.0
    dropout: float = 0.0
    fan_in_fan_out: bool = False
    shares_weight: bool = False
    parameter: str = ""
    is_feedforward: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    tokens: tuple[int, ...] = ()
    tied_to: str = ""
    lora_alpha: float = 0
    use_rslora: bool = False
    variant: Any = None
