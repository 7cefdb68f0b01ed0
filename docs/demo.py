"""``make demo``: an architecture nobody registered is scanned, stored, served, looked up, adapted and trained.

Exits with 0 only if every step held.
"""

import os
import sys
import tempfile
from pathlib import Path

import torch
import torchvision

import loradar
from loradar.api import running
from loradar.errors import NotRegistered
from loradar.registry import Registry
from loradar.settings import Settings

STEPS = 8
TOLERANCE = 1e-4
REFERENCE = "torch:torchvision.models:maxvit_t"
NAME = "torchvision.models.maxvit.MaxVit"
"""torchvision's models are in no catalog: to the scanner they are a user's own classes."""


def main() -> None:
    """Go the whole way once, in a registry of its own."""
    with tempfile.TemporaryDirectory(prefix="loradar-demo-") as folder:
        os.environ["LORADAR_HOME"] = folder
        os.environ.pop("LORADAR_DATABASE_URL", None)
        settings = Settings.from_environment()
        register(settings)
        with running(settings) as url:
            look_up(url)
            adapt_and_train()
    say("done", "the service has stopped and everything held")


def register(settings: Settings) -> None:
    """Show that the registry does not know the architecture, then scan and store it."""
    with Registry.open(settings) as registry:
        state = registry.info()
        held = f"{state.counts['architectures']:,} architectures, {state.counts['mappings']:,} mappings"
        say("registry", f"{held}, in {Path(settings.home).name}/")
        try:
            registry.lookup(NAME, library="torch")
        except NotRegistered as error:
            say("lookup", error.message)
        else:
            check(held=False, message=f"{NAME} is registered already")
        found = loradar.scan(REFERENCE)
        say("scan", f"{REFERENCE} by {found.method}: default targets {list(found.propose().spec.target_modules or ())}")
        fused = next(layer for layer in found.layers if layer.role == "attention.qkv")
        say("", f"{fused.path}: {fused.evidence[0].says}; in {fused.layout}")
        for reason in found.propose().reasons:
            say("", reason)
        report = registry.add_scan(found)
        say("store", f"{len(report.added)} mappings added, serial {report.serial}")


def look_up(url: str) -> None:
    """Ask the running service for what was just stored."""
    with loradar.Client(url) as client:
        mapping = client.targets(NAME, library="torch")
    targets = list(mapping.spec.target_modules or ())
    say("serve", f"GET {url}/v1/targets/{NAME} -> {targets} ({mapping.source.kind}, revision {mapping.revision})")
    check(held=targets == ["to_qkv"], message=f"unexpected targets {targets}")


def adapt_and_train() -> None:
    """Adapt the randomly filled model without any configuration, train it on a fixed batch, and merge."""
    torch.manual_seed(0)
    model = loradar.get_peft_model(torchvision.models.maxvit_t(num_classes=4))
    decision = model.decision
    check(held=decision is not None and decision.step == "registry", message=f"decided by {decision}")
    say("adapt", f"{len(model.targeted_module_names)} layers, by the {decision.says}")
    model.print_trainable_parameters()
    images, labels = torch.randn(4, 3, 224, 224), torch.arange(4)
    losses = train(model, images, labels)
    say("train", f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {STEPS} steps")
    check(held=losses[-1] < losses[0], message="the loss did not fall")
    merge(model, images)


def train(model: loradar.PeftModel, images: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Return the loss of each step on a batch of ``images``, shape (images, channels, height, width)."""
    model.eval()  # without dropped paths and with batch norm at rest, so that a few steps show
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


@torch.no_grad()
def merge(model: loradar.PeftModel, images: torch.Tensor) -> None:
    """Merge the adapter into the weights and check that the plain model answers the same."""
    before = model(images)
    plain = model.merge_and_unload()
    difference = (plain(images) - before).abs().max().item()
    check(held=difference < TOLERANCE, message=f"merging changed the output by {difference:.1e}")
    say("merge", f"a plain {type(plain).__name__} again; its output moved by {difference:.1e}")


def say(step: str, text: str) -> None:
    """Print one line of the way."""
    print(f"{step:<9} {text}", flush=True)


def check(*, held: bool, message: str) -> None:
    """Stop with exit code 1 if something did not hold."""
    if not held:
        sys.exit(f"demo failed: {message}")


if __name__ == "__main__":
    main()
