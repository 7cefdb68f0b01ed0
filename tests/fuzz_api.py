"""Thousands of requests made from the service's own description, against the real service: what they bring to light.

``make fuzz`` runs it at length; ``tests/api/test_fuzz.py`` runs it briefly. schemathesis makes the requests, valid ones
and broken ones, follows links from answer to answer, and holds each answer to what the description promises.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx2
from patience import patience

from loradar.api import running
from loradar.domain.identities import Actor
from loradar.domain.submissions import Checked, Statement, SubmissionEvidence
from loradar.domain.targets import TargetSpec
from loradar.registry import Registry
from loradar.settings import RequestLimits, Settings

KEPT = 40
"""Architectures of the registry that is asked: what follows each write should not wait for a snapshot of thousands."""

SUBMITTED = 20
"""Submissions of somebody else's there are, half of them through their checks."""

TIMEOUT = patience()
"""Seconds for an answer: a scan may take as long as the service allows one, and the first waits for its libraries."""

FAR = 2_000_000_000
"""Number of the token that the requests come with."""

UNLIMITED = RequestLimits(*[10**9] * 4)

CONFIG = """
[auth.openapi.token]
bearer = "SECRET"

[phases.stateful]
max-steps = 8

[checks.positive_data_acceptance]
# What is well-formed may still be refused for what it says, with the reason; fuzz_hooks.py looks into the 422s.
expected-statuses = ["2xx", "3xx", "400", "401", "403", "404", "409", "412", "422", "429", "501", "502"]

[checks.negative_data_rejection]
# The tool's own, and 413: a body beyond the limit is rejected before it is read.
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "5xx"]
"""

COMMAND = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import fuzz_hooks; fuzz_hooks.main()"


@dataclass(frozen=True)
class Report:
    """What came of it: the exit code, the number of requests, and what was printed."""

    code: int
    cases: int
    text: str


def fuzz(folder: Path, *arguments: str, registry: Path | None = None) -> Report:
    """Serve a small registry in a folder, and have it fuzzed with an admin's token."""
    path = folder / "registry.sqlite3"
    settings = Settings(folder, f"sqlite:///{path}", limits=UNLIMITED, workers=1)
    if registry:
        shutil.copy(registry, path)
    with Registry.open(settings) as opened:
        secret = opened.tokens.create("fuzz", "admin")[1]
        _submit_some(opened)
    _keep_few(path)
    (folder / "schemathesis.toml").write_text(CONFIG.replace("SECRET", secret), "utf-8")
    events = folder / "events.ndjson"
    with running(settings) as url:
        httpx2.get(f"{url}/openapi.json", timeout=TIMEOUT).raise_for_status()  # the first takes long, and is stored
        options = ["--checks", "all", "--no-color", "--no-shrink", "--continue-on-failure"]
        options += ["--request-timeout", str(TIMEOUT), "--max-response-time", str(TIMEOUT)]
        report = ["--report", "ndjson", "--report-ndjson-path", str(events)]
        named = ["--config-file", str(folder / "schemathesis.toml"), "run", f"{url}/openapi.json"]
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", COMMAND, *named, *options, *report, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    return Report(done.returncode, _count(events), done.stdout + done.stderr)


def _submit_some(registry: Registry) -> None:
    """Let somebody else submit what the fuzzer, who may not review its own, can review."""
    ada = Actor("ada", "contributor")
    for number in range(SUBMITTED):
        spec = TargetSpec(target_modules=(f"layer{number}",))
        made = registry.submissions.add(Statement("transformers", "albert", "LORA", "mlp", **spec.stored), ada)
        if number % 2:
            registry.submissions.record_check(
                made.id, Checked(SubmissionEvidence("names", builds=True, spec=spec, matched=2))
            )


def _keep_few(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        few = "SELECT id FROM architectures WHERE library = 'transformers' ORDER BY name <> 'llama', name LIMIT ?"
        for table in ("mappings", "slots", "renames"):
            connection.execute(f"DELETE FROM {table} WHERE architecture_id NOT IN ({few})", (KEPT,))  # noqa: S608 - ours
        connection.execute(f"DELETE FROM architectures WHERE id NOT IN ({few})", (KEPT,))  # noqa: S608 - ours
        # Out of reach: a request that happened to revoke it would make every later one a stranger's.
        connection.execute("UPDATE tokens SET id = ?", (FAR,))
    connection.close()


def _count(events: Path) -> int:
    """Return the number of requests that were made, by the events schemathesis wrote."""
    text = events.read_text("utf-8") if events.exists() else ""
    return sum(len(_cases(json.loads(line))) for line in text.splitlines())


def _cases(event: dict) -> dict:
    finished = event.get("ScenarioFinished", {})
    return finished.get("recorder", {}).get("interactions", {})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        found = fuzz(Path(name), *sys.argv[1:])
    print(found.text)  # noqa: T201 - a script
    print(f"{found.cases} requests")  # noqa: T201
    sys.exit(found.code)
