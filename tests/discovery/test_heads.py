"""Heads: every layer made anew around a pretrained model is trained in full, or the owner is told."""

import warnings

import pytest
import torch
from discovery_zoo import Decoder
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, GPT2Model, PreTrainedModel, RTDetrConfig

import loradar
from loradar.discovery import scan

WIDTH, VOCABULARY = 16, 64
BERT = BertConfig(
    hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=VOCABULARY
)
GPT2 = GPT2Config(
    n_embd=WIDTH, n_layer=2, n_head=2, vocab_size=VOCABULARY, n_positions=32, bos_token_id=0, eos_token_id=0
)


def heads(found):
    """Return the paths of the heads of a scan."""
    return {layer.path for layer in found.layers if layer.role == "head"}


def saved(found):
    """Return the modules that the default proposal saves."""
    return set(found.propose().spec.modules_to_save or ())


class Classifier(nn.Module):
    """A library's encoder under a user's head of two layers."""

    def __init__(self):
        super().__init__()
        self.bert = BertModel(BERT)
        self.classifier = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 3))

    def forward(self, input_ids):
        """Classify the first token."""
        return self.classifier(self.bert(input_ids).last_hidden_state[:, 0])


class Critic(nn.Module):
    """A language model with its own head, and a value head that was registered first."""

    def __init__(self):
        super().__init__()
        self.v_head = nn.Linear(WIDTH, 1)
        self.lm = GPT2LMHeadModel(GPT2)

    def forward(self, input_ids):
        """Return logits and values."""
        states = self.lm(input_ids, output_hidden_states=True)
        return states.logits, self.v_head(states.hidden_states[-1])


class Series(nn.Module):
    """A time series in and out of GPT-2."""

    def __init__(self):
        super().__init__()
        self.in_layer = nn.Linear(8, WIDTH)
        self.gpt2 = GPT2Model(GPT2)
        self.out_layer = nn.Linear(WIDTH, 5)

    def forward(self, x):
        """Forecast."""
        return self.out_layer(self.gpt2(inputs_embeds=self.in_layer(x)).last_hidden_state)


@pytest.mark.parametrize("method", ["names", "dataflow"])
def test_a_head_of_ones_own_over_a_librarys_model_is_saved(method):
    """All its layers, as one module; the pretrained pooler that leads to it is none."""
    found = scan(Classifier(), method=method)
    assert heads(found) == {"classifier.0", "classifier.2"}
    assert saved(found) == {"classifier"}
    assert any("trained in full and saved: classifier" in reason for reason in found.propose().reasons)


@pytest.mark.parametrize("method", ["names", "dataflow"])
def test_a_value_head_is_saved_and_the_language_head_is_not(method):
    """The latter is pretrained; that one of them is does not speak for the other."""
    found = scan(Critic(), method=method)
    assert heads(found) == {"v_head", "lm.lm_head"}
    assert saved(found) == {"v_head"}


def test_what_leads_into_a_librarys_model_is_no_head_and_saved_all_the_same():
    """A projection of raw values is random too."""
    found = scan(Series(), example_inputs=torch.zeros(2, 4, 8))
    assert heads(found) == {"out_layer"}
    assert saved(found) == {"in_layer", "out_layer"}


@pytest.mark.usefixtures("read_settings")
def test_a_fresh_head_is_trained_and_saved_without_a_configuration(tmp_path):
    """It gets a gradient, and its file has it."""
    model = loradar.get_peft_model(Classifier())
    model(torch.arange(4)[None]).sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any("classifier" in name and name.endswith("2.weight") for name in trained)
    model.save_pretrained(tmp_path)
    assert model.peft_config["default"].modules_to_save == ["classifier"]


class Clash(Classifier):
    """A head with the name of every value projection, blocks of its own and a bare parameter."""

    def __init__(self):
        super().__init__()
        self.value = nn.Linear(WIDTH, 1)
        self.mix = nn.ModuleList([nn.TransformerEncoderLayer(WIDTH, 2, 32) for _ in range(2)])
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, input_ids):
        """Return classes and a value."""
        states = self.bert(input_ids).last_hidden_state * self.scale
        for block in self.mix:
            states = block(states)
        return self.classifier(states[:, 0]), self.value(states)


@pytest.mark.usefixtures("read_settings")
def test_what_stays_frozen_is_said():
    """PEFT's ``modules_to_save`` cannot name one layer where its name ends other paths; a network is not a head."""
    found = scan(Clash())
    assert heads(found) == {"classifier.0", "classifier.2", "value"}
    assert saved(found) == {"classifier"}
    clash, rest = found.frozen
    assert "left frozen: value," in clash
    assert "bert.encoder.layer.0.attention.self.value" in clash
    assert rest.startswith("left frozen as initialised: scale, mix.*,")
    with pytest.warns(UserWarning, match="left frozen") as caught:
        loradar.get_peft_model(Clash())
    assert {clash, rest} <= {str(each.message) for each in caught}


@pytest.mark.usefixtures("read_settings")
def test_a_pretrained_model_alone_has_nothing_frozen():
    """Nothing was made anew."""
    assert scan(BertModel(BERT)).frozen == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loradar.get_peft_model(BertModel(BERT))


# --- a module of one's own -------------------------------------------------------------------------------------------


class Heads(nn.Module):
    """Blocks with a language head registered first and the heads of an actor and a critic."""

    def __init__(self):
        super().__init__()
        self.lm_head = nn.Linear(WIDTH, VOCABULARY)
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(WIDTH, 2, 32) for _ in range(2)])
        self.policy = nn.Linear(WIDTH, 4)
        self.value = nn.Linear(WIDTH, 1)

    def forward(self, input_ids):
        """Return the output of each head."""
        states = self.embed(input_ids)
        for block in self.blocks:
            states = block(states)
        return {"logits": self.lm_head(states), "policy": self.policy(states), "value": self.value(states)}


@pytest.mark.parametrize("method", ["names", "dataflow"])
def test_all_heads_of_ones_own_module_are_found(method):
    """The first registered, the one over the vocabulary, which is not saved, and both others."""
    found = scan(Heads(), method=method)
    assert heads(found) == {"lm_head", "policy", "value"}
    assert saved(found) == {"policy", "value"}


class Reader(nn.Module):
    """Two dense layers, and a start and an end; or, without blocks, a head that was registered first."""

    def __init__(self, *, is_odd=False):
        super().__init__()
        self.is_odd = is_odd
        if is_odd:
            self.out = nn.Linear(WIDTH, 3)
        self.first = nn.Linear(8, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        if not is_odd:
            self.start = nn.Linear(WIDTH, 1)
            self.end = nn.Linear(WIDTH, 1)

    def forward(self, x):
        """Return both."""
        x = self.second(self.first(x).relu()).relu()
        return self.out(x) if self.is_odd else (self.start(x), self.end(x))


@pytest.mark.parametrize("method", ["names", "dataflow"])
def test_start_and_end_are_both_heads(method):
    """And nothing before them."""
    assert heads(scan(Reader(), method=method)) == {"start", "end"}


def test_a_last_resort_leaves_the_head_alone():
    """Where a forward runs, the order of registration does not matter."""
    found = scan(Reader(is_odd=True))
    assert heads(found) == {"out"}
    for proposal in found.proposals:
        assert "out" not in (proposal.spec.target_modules or ())


class Boxes(nn.Module):
    """A detector: blocks, one box head of three layers per block, scores whose best are chosen."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(8, WIDTH)
        self.layers = nn.ModuleList([nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True) for _ in range(4)])
        self.boxes = nn.ModuleList([Deep() for _ in range(4)])
        self.scores = nn.ModuleList([nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)) for _ in range(4)])

    def forward(self, x):
        """Return scores and boxes of every depth, of the likeliest places."""
        states, scores, boxes = self.stem(x), [], []
        for layer, box, score in zip(self.layers, self.boxes, self.scores, strict=True):
            states = layer(states)
            scores.append(score(states))
            boxes.append(box(states))
        best = scores[-1].topk(1, dim=-1).values.sigmoid()
        return best, torch.stack(scores), torch.stack(boxes)


class Deep(nn.Module):
    """A box head."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4)])

    def forward(self, x):
        """Return a box."""
        return self.parts[2](self.parts[1](self.parts[0](x).relu()).relu())


def test_the_heads_of_a_detector_are_no_routers_and_no_experts():
    """Four scores are ranked beside lists of four modules: chance, as each of these reads another block."""
    found = scan(Boxes(), example_inputs=torch.zeros(2, 5, 8))
    expected = {f"boxes.{n}.parts.{m}" for n in range(4) for m in range(3)} | {f"scores.{n}.1" for n in range(4)}
    assert heads(found) == expected
    assert not [layer for layer in found.layers if layer.role.startswith(("moe.", "expert."))]


# --- a library's models ----------------------------------------------------------------------------------------------


def test_heads_inside_of_a_base_model_are_found():
    """RT-DETR's task class puts its heads into the decoder of its base model; a table of four rows is no vocabulary."""
    found = scan(RTDetrConfig(decoder_layers=3, num_labels=3))
    names = ("enc_score_head", "enc_bbox_head", "class_embed", "bbox_embed")
    dense = {layer.path for layer in found.layers if any(f".{name}" in layer.path for name in names)}
    assert heads(found) == {path for path in dense if "denoising" not in path}
    assert {"model.decoder.class_embed.0", "model.decoder.bbox_embed.2", "model.enc_score_head"} <= saved(found)


class FrontEnd(PreTrainedModel):
    """A model whose ``base_model_prefix`` names a small front end."""

    config_class = BertConfig
    base_model_prefix = "front"

    def __init__(self, config):
        super().__init__(config)
        self.front = Front(config)
        self.widen = nn.Linear(WIDTH, WIDTH)
        self.decoder = Decoder()
        self.convnext = nn.ModuleList([ConvNext(), ConvNext()])
        self.steps = nn.ModuleList([Step(Decoder().blocks[0].attn), Step(nn.Linear(WIDTH, WIDTH))])
        self.top = nn.Linear(WIDTH, 3)


class ConvNext(nn.Module):
    """A depthwise convolution, a widening and a narrowing layer; its norm is made of embeddings, as in WavTokenizer."""

    def __init__(self):
        super().__init__()
        self.deep = nn.Conv1d(WIDTH, WIDTH, 3, groups=WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, WIDTH)


class Step(nn.Module):
    """A norm before an attention, or before another layer in the same list."""

    def __init__(self, inner):
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(WIDTH), inner


class Front(PreTrainedModel):
    """The front end."""

    config_class = BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.mix = nn.ModuleList([nn.Sequential(nn.Linear(WIDTH, WIDTH))])


def test_a_network_behind_a_small_front_end_is_no_head():
    """Blocks with an attention keep their roles, and so does what leads into them."""
    found = scan(FrontEnd(BertConfig(attn_implementation="eager")), method="names")
    roles = {layer.path: layer.role for layer in found.layers}
    assert roles["decoder.blocks.0.attn.q_proj"] == "attention.query"
    inside = ("convnext.1.deep", "convnext.1.wide", "convnext.1.narrow", "steps.1.inner", "widen")
    assert "head" not in {roles[path] for path in inside}
    assert roles["top"] == "head"


class Margin(nn.Module):
    """A library's encoder under a matrix that the model itself holds, one row for each class (arXiv:1801.07698)."""

    def __init__(self):
        super().__init__()
        self.bert = BertModel(BERT)
        self.weight = nn.Parameter(torch.randn(3, WIDTH))

    def forward(self, input_ids):
        """Return cosines."""
        states = self.bert(input_ids).last_hidden_state[:, 0]
        return nn.functional.linear(nn.functional.normalize(states), nn.functional.normalize(self.weight))


def test_a_weight_of_the_model_itself_is_named_as_left_frozen():
    """It belongs to no module that could be saved; a user is told, and the rest is adapted."""
    with pytest.warns(UserWarning, match="left frozen as initialised: weight"):
        adapted = loradar.get_peft_model(Margin())
    assert len(adapted.targeted_module_names) == 4


class Compared(nn.Module):
    """A query and a document in one encoder, and a projection of each."""

    def __init__(self):
        super().__init__()
        self.u = nn.ModuleList(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8)) for _ in range(2))
        self.q, self.d = nn.Linear(8, 4), nn.Linear(8, 4)

    def encode(self, x):
        """Run the blocks."""
        for block in self.u:
            x = x + block(x)
        return x.mean(1)

    def forward(self, query, document):
        """Return the similarities of all pairs."""
        query, document = self.q(self.encode(query)), self.d(self.encode(document))
        return query / query.norm(dim=-1, keepdim=True) @ document.T


def test_layers_whose_products_a_model_returns_are_its_heads():
    """The similarity of a query and a document."""
    found = scan(Compared(), (torch.zeros(2, 5, 8), torch.zeros(3, 6, 8)))
    assert {layer.path for layer in found.layers if layer.role == "head"} == {"q", "d"}
    assert found.propose("LORA", "default").modules_to_save == ("q", "d")
