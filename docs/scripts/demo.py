"""``make demo``: scan, store, serve, look up, adapt and train an unregistered architecture.

The exit code is 0 only if every step succeeded.
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

STEPS = 4
TOLERANCE = 1e-4
REFERENCE = "torch:torchvision.models:maxvit_t"
NAME = "torchvision.models.maxvit.MaxVit"
"""torchvision's models are in no catalog: the scanner treats them as a user's own classes."""


def main() -> None:
    """Run every step once, in a new registry."""
    with tempfile.TemporaryDirectory(prefix="loradar-demo-") as folder:
        os.environ["LORADAR_HOME"] = folder
        os.environ.pop("LORADAR_DATABASE_URL", None)
        settings = Settings.from_environment()
        register(settings)
        with running(settings) as url:
            look_up(url)
            adapt_and_train()
    report("done", "the service has stopped and every step succeeded")


def register(settings: Settings) -> None:
    """Check that the architecture is unregistered, then scan and store it."""
    with Registry.open(settings) as registry:
        state = registry.info()
        counts = f"{state.counts['architectures']:,} architectures, {state.counts['mappings']:,} mappings"
        report("registry", f"{counts}, in {Path(settings.home).name}/")
        try:
            registry.lookup(NAME, library="torch")
        except NotRegistered as error:
            report("lookup", error.message)
        else:
            check(passed=False, message=f"{NAME} is registered already")
        found = loradar.scan(REFERENCE)
        report(
            "scan", f"{REFERENCE} by {found.method}: default targets {list(found.propose().spec.target_modules or ())}"
        )
        fused = next(layer for layer in found.layers if layer.role == "attention.qkv")
        report("", f"{fused.path}: {fused.evidence[0].says}; in {fused.layout}")
        for reason in found.propose().reasons:
            report("", reason)
        stored = registry.add_scan(found)
        report("store", f"{len(stored.added)} mappings added, serial {stored.serial}")


def look_up(url: str) -> None:
    """Look up the stored mapping in the running service."""
    with loradar.Client(url) as client:
        mapping = client.targets(NAME, library="torch")
    targets = list(mapping.spec.target_modules or ())
    report("serve", f"GET {url}/v1/targets/{NAME} -> {targets} ({mapping.source.kind}, revision {mapping.revision})")
    check(passed=targets == ["to_qkv"], message=f"unexpected targets {targets}")


def adapt_and_train() -> None:
    """Adapt a model with random weights without a configuration, train it on a fixed batch, and merge."""
    torch.manual_seed(0)
    model = loradar.get_peft_model(torchvision.models.maxvit_t(num_classes=4))
    decision = model.decision
    check(passed=decision is not None and decision.step == "registry", message=f"decided by {decision}")
    report("adapt", f"{len(model.targeted_module_names)} layers, by the {decision.says}")
    model.print_trainable_parameters()
    images, labels = torch.randn(2, 3, 224, 224), torch.arange(2)
    losses = train(model, images, labels)
    report("train", f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {STEPS} steps")
    check(passed=losses[-1] < losses[0], message="the loss did not fall")
    merge(model, images)


def train(model: loradar.PeftModel, images: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Return the loss of each step on a batch of ``images``, shape (images, channels, height, width)."""
    model.eval()  # no dropped paths and fixed batch norms, so that a few steps have an effect
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
    """Merge the adapter into the weights and check that the outputs stay the same."""
    before = model(images)
    plain = model.merge_and_unload()
    difference = (plain(images) - before).abs().max().item()
    check(passed=difference < TOLERANCE, message=f"merging changed the output by {difference:.1e}")
    report("merge", f"a plain {type(plain).__name__} again; its output changed by {difference:.1e}")


def report(step: str, text: str) -> None:
    """Print one line about a step."""
    print(f"{step:<9} {text}", flush=True)


def check(*, passed: bool, message: str) -> None:
    """Exit with code 1 and a message if a condition is false."""
    if not passed:
        sys.exit(f"demo failed: {message}")


if __name__ == "__main__":
    main()
