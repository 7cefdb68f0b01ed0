"""Writers that never give up, against a service that is killed again and again: nothing lost, nothing twice.

``make soak`` runs it at length; ``tests/api/test_soak.py`` briefly. Each writer submits a mapping and withdraws it,
each with an idempotency key, and repeats a request until it is acknowledged. Kills follow acknowledged writes, not the
clock.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from patience import patience

from loradar.registry import Registry
from loradar.settings import Settings

SERVE = """
import sys
from loradar.api import serve, workers
from loradar.settings import Settings
workers.NEEDED = (*workers.NEEDED, "no_such_package")  # no checks: they would take the processors
serve(Settings.from_environment(), port=int(sys.argv[1]), ready=lambda url: print(url, flush=True))
"""
MANY = ",".join(f"{name}=999999999" for name in ("address", "token", "failed", "scan"))


@dataclass
class Outcome:
    """What was acknowledged, the seconds of each, and the answers by status."""

    submitted: list[int] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    kills: int = 0


class Soak:
    """A service on one database, its writers, and whoever kills it."""

    def __init__(self, settings: Settings, writers: int) -> None:
        self.settings, self.outcome = settings, Outcome()
        with Registry.open(settings) as registry:
            self.tokens = [registry.tokens.create(f"writer{n}", "contributor")[1] for n in range(writers)]
        self.over, self.lock = threading.Event(), threading.Lock()
        self.port, self.url, self.process = 0, "", None

    def start(self) -> None:
        """Start the service, on the port it had."""
        own = {"LORADAR_HOME": str(self.settings.home), "LORADAR_DATABASE_URL": self.settings.database_url}
        command = [sys.executable, "-c", SERVE, str(self.port)]
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            env=os.environ | own | {"LORADAR_LIMITS": MANY},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the service by a signal."""
        self.process.send_signal(number)
        self.process.wait(patience())
        self.process.stdout.close()

    def send(self, client: httpx2.Client, path: str, body: dict, key: str) -> dict:
        """Repeat a write until it is acknowledged; return its answer."""
        start = time.perf_counter()
        while True:
            try:
                answer = client.post(f"{self.url}{path}", json=body, headers={"Idempotency-Key": key})
                self.outcome.statuses[str(answer.status_code)] += 1
                if answer.is_success:
                    self.outcome.took.append(time.perf_counter() - start)
                    return answer.json()
                assert answer.status_code == 503, answer.text
            except httpx2.HTTPError as error:
                self.outcome.statuses[type(error).__name__] += 1
            time.sleep(0.1)

    def write(self, number: int) -> None:
        """Submit and withdraw until it is over."""
        headers = {"Authorization": f"Bearer {self.tokens[number]}"}
        with httpx2.Client(headers=headers, timeout=patience()) as client:
            turn = 0
            while not self.over.is_set():
                name = f"soak{number}x{turn}"
                made = self.send(client, "/v1/submissions", {"name": name, "target_modules": ["q_proj"]}, f"s{name}")
                path = f"/v1/submissions/{made['id']}/withdrawal"
                self.send(client, path, {"reason": "It was a test."}, f"w{name}")
                with self.lock:
                    self.outcome.submitted.append(made["id"])
                turn += 1

    def run(self, kills: int, after: int, seconds: float = 0.0) -> Outcome:
        """Kill the service each time that so many more writes are acknowledged; go on for some seconds after that."""
        self.start()
        threads = [threading.Thread(target=self.write, args=(n,)) for n in range(len(self.tokens))]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        for _ in range(kills):
            before = len(self.outcome.took)
            while len(self.outcome.took) < before + after:
                time.sleep(0.01)
            self.stop(signal.SIGKILL)
            self.start()
            self.outcome.kills += 1
        self.over.wait(max(end - time.monotonic(), 0))
        self.over.set()
        for thread in threads:
            thread.join(patience())
        self.stop()
        return self.outcome

    def check(self) -> None:
        """Check that each acknowledged write is there once, and that the log is whole."""
        numbers = self.outcome.submitted
        assert len(numbers) == len(set(numbers))
        with Registry.open(self.settings) as registry:
            found = [registry.submissions.get(number) for number in numbers]
            report = registry.verify_log()
        assert {one.status for one in found} <= {"withdrawn"}
        names = [one.statement.name for one in found]
        assert len(names) == len(set(names))
        assert not report.faults, report.faults
        assert report.serial >= 2 * len(numbers)


def main() -> None:
    """Run at length, and print figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--writers", type=int, default=32)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--after", type=int, default=50, help="acknowledged writes between two kills")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--database", help="SQLAlchemy URL; if not given, an SQLite file of its own")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        url = options.database or f"sqlite:///{name}/registry.sqlite3"
        soak, start = Soak(Settings(Path(name), url), options.writers), time.monotonic()
        outcome = soak.run(options.kills, options.after, options.seconds)
        took = time.monotonic() - start
        soak.check()
    late = statistics.quantiles(outcome.took, n=100)
    print(f"{len(outcome.took)} writes, {len(outcome.took) / took:.0f} a second, {outcome.kills} kills")  # noqa: T201
    print(f"p50 {1000 * late[49]:.0f} ms, p99 {1000 * late[98]:.0f} ms; answers {dict(outcome.statuses)}")  # noqa: T201


if __name__ == "__main__":
    main()
