"""How stored weights fit the layers of a model."""

from loradar.weights import Weight, compare

MODEL = {
    "model.embed_tokens": ((100, 8), "embedding.token"),
    **{f"model.layers.{i}.self_attn.q_proj": ((8, 8), "attention.query") for i in range(3)},
    **{f"model.layers.{i}.self_attn.v_proj": ((4, 8), "attention.value") for i in range(3)},
    **{f"model.layers.{i}.mlp.experts.gate_up_proj": ((2, 32, 8), "expert.gate_up") for i in range(3)},
    **{f"model.layers.{i}.mlp.experts.down_proj": ((2, 8, 16), "expert.down") for i in range(3)},
    "lm_head": ((100, 8), "head"),
}


def weights(layers):
    """Return weights of (shape, role) by path."""
    return [Weight(path, *facts) for path, facts in layers.items()]


def fit(stored):
    """Return the fit of stored layers to the model above."""
    return compare(weights(MODEL), weights(stored))


def test_what_is_the_same_fits():
    """Nothing is renamed, missing or beyond."""
    found = fit(MODEL)
    assert (found.verdict, found.renames, found.missing, found.beyond, found.shapes) == ("fits", {}, (), (), ())


def test_a_prefix_is_a_rename():
    """Of a base model that is stored alone, its head made anew."""
    stored = {path.removeprefix("model."): facts for path, facts in MODEL.items() if path != "lm_head"}
    found = fit(stored)
    assert found.verdict == "fits with renames"
    assert found.renames == {"model.*": ("*",)}
    assert found.missing == ("lm_head",)


def test_experts_one_by_one_are_told_apart_by_their_roles():
    """All three matrices of an expert have the same size."""
    stored = {path: facts for path, facts in MODEL.items() if "experts" not in path}
    for block in range(3):
        for expert in range(2):
            start = f"model.layers.{block}.block_sparse_moe.experts.{expert}"
            stored |= {f"{start}.w1": ((16, 8), "expert.gate"), f"{start}.w2": ((8, 16), "expert.down")}
            stored |= {f"{start}.w3": ((16, 8), "expert.up")}
    start = "model.layers.*.block_sparse_moe.experts.*"
    assert fit(stored).renames == {
        "model.layers.*.mlp.experts.gate_up_proj": (f"{start}.w1", f"{start}.w3"),
        "model.layers.*.mlp.experts.down_proj": (f"{start}.w2",),
    }


def test_other_names_are_paired_by_role_and_shape():
    """As where a library renames its layers between versions."""
    names = {"self_attn.q_proj": "attention.query", "self_attn.v_proj": "attention.value"}
    stored = {}
    for path, facts in MODEL.items():
        old = path
        for new, before in names.items():
            old = old.replace(new, before)
        stored[old] = facts
    found = fit(stored)
    assert found.verdict == "fits with renames"
    assert found.renames == {f"model.layers.*.{new}": (f"model.layers.*.{old}",) for new, old in names.items()}


def test_a_fused_projection_of_the_file_is_several_of_the_model():
    """As of checkpoints older than a class that has them apart."""
    stored = {path: facts for path, facts in MODEL.items() if "self_attn" not in path}
    stored |= {f"model.layers.{i}.attn.qv": ((12, 8), "attention.qkv") for i in range(3)}
    found = fit(stored)
    assert found.verdict == "fits with renames"
    assert found.renames == {
        f"model.layers.*.self_attn.{name}_proj": ("model.layers.*.attn.qv",) for name in ("q", "v")
    }
    assert found.beyond == ()


def test_steps_of_a_sequence_are_paired_one_by_one():
    """A neck that is numbered in the file and named in the model, or the other way round; deepseek_ocr2 has one."""
    steps = [((4, 8, 1, 1), "conv.pointwise"), ((4,), "norm"), ((4, 4, 3, 3), "conv.spatial"), ((4,), "norm")]
    named = dict(zip((f"sam_encoder.neck.{n}" for n in ("conv1", "norm1", "conv2", "norm2")), steps, strict=True))
    numbered = {f"sam_model.neck.{number}": facts for number, facts in enumerate(steps)}
    for model, stored in ((named, numbered), (numbered, named)):
        found = compare(weights({**MODEL, **model}), weights({**MODEL, **stored}))
        assert (found.verdict, found.missing, found.beyond) == ("fits with renames", (), ())
        assert found.renames == {ours: (theirs,) for ours, theirs in zip(model, stored, strict=True)}
    lacks = {path: facts for path, facts in numbered.items() if not path.endswith("2")}
    found = compare(weights({**MODEL, **named}), weights({**MODEL, **lacks}))
    assert (found.verdict, found.missing) == ("differs", ("sam_encoder.neck.conv2",))


def test_what_is_no_layer_of_the_model_may_be_stored_beside_its_layers():
    """Such as the transposed convolutions among the resizing layers of depth_anything."""
    stored = {**MODEL, "model.layers.3.mlp.experts.down_proj": ((3, 5), "other")}
    assert fit(stored).verdict == "fits"


def test_what_lacks_and_what_has_another_shape_differs():
    """Half of the blocks, another width, no value projection."""
    half = {path: facts for path, facts in MODEL.items() if "layers.2" not in path}
    assert fit(half).verdict == "differs"
    assert "model.layers.*.self_attn.q_proj" in fit(half).shapes
    none = {path: facts for path, facts in MODEL.items() if "v_proj" not in path}
    assert (fit(none).verdict, fit(none).missing) == ("differs", ("model.layers.*.self_attn.v_proj",))
    wide = {path: ((16, 8) if "q_proj" in path else shape, role) for path, (shape, role) in MODEL.items()}
    assert (fit(wide).verdict, fit(wide).shapes) == ("differs", ("model.layers.*.self_attn.q_proj",))
    other = {"conv1": ((8, 3, 7, 7), "embedding.patch"), "fc": ((10, 8), "head")}
    assert (fit(other).verdict, fit(other).beyond) == ("differs", ("conv1", "fc"))
