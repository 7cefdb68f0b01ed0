"""Clients of the application, without a server."""

import shutil
from dataclasses import dataclass

import pytest
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.api.workers import Checker
from loradar.domain.identities import TOKEN_ROLES
from loradar.domain.submissions import Checked, SubmissionEvidence
from loradar.domain.targets import Formula, TargetSpec
from loradar.registry import Registry
from loradar.schema import to_json
from loradar.settings import RequestLimits, Settings

UNLIMITED = RequestLimits(*[10**9] * 4)


@pytest.fixture
def client(seeded_settings):
    """A client of a service with a seeded registry; failures are answered as a real server would."""
    with TestClient(create_app(seeded_settings), raise_server_exceptions=False) as opened:
        yield opened


@dataclass(frozen=True)
class Service:
    """A service of one module's tests, with its registry beside it and a token of each role."""

    client: TestClient
    registry: Registry
    tokens: dict[str, str]

    def as_(self, name: str, **headers: str) -> dict[str, str]:
        """Return the headers of somebody's request."""
        return {"Authorization": f"Bearer {self.tokens[name]}", **headers}

    def post(self, path, body, name="contributor", **headers):
        """Send JSON as somebody."""
        return self.client.post(path, json=body, headers=self.as_(name, **headers))

    def settle(self, submission, failure=None):
        """Let the checks of a submission come to an end."""
        said = submission["statement"]
        spec = TargetSpec(target_modules=tuple(said["target_modules"]))
        evidence = (
            None if failure else SubmissionEvidence("names", builds=True, spec=spec, matched=2, formula=Formula(128, 0))
        )
        return to_json(self.registry.submissions.record_check(submission["id"], Checked(evidence, failure)))


@pytest.fixture(scope="module")
def service(seeded, tmp_path_factory):
    """One service for all tests of a module, which leave each other alone; nothing is checked unless a test does it."""
    folder = tmp_path_factory.mktemp("service")
    shutil.copy(seeded, folder / "registry.sqlite3")
    settings = Settings(folder, f"sqlite:///{folder / 'registry.sqlite3'}", limits=UNLIMITED, workers=1)
    with pytest.MonkeyPatch.context() as patch, Registry.open(settings) as registry:
        patch.setattr(Checker, "start", lambda _: None)
        patch.setattr(Checker, "stop", lambda _: None)
        tokens = {role: registry.tokens.create(role, role)[1] for role in TOKEN_ROLES}
        tokens["other"] = registry.tokens.create("other", "contributor")[1]
        with TestClient(create_app(settings), raise_server_exceptions=False) as client:
            yield Service(client, registry, tokens)
    shutil.rmtree(folder)
