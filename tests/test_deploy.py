"""What stands in ``deploy/``: files that no test can run agree with the code."""

import re
import shlex
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml
from prometheus_client.parser import text_string_to_metric_families

from loradar.api import create_app
from loradar.api.process.metrics import Metrics
from loradar.api.routes.operations import RegistryCollector
from loradar.cli import app as commands
from loradar.settings import Settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
OPERATING = (ROOT / "docs/service/operating.md").read_text("utf-8")
SETTINGS = set(re.findall(r"^\| `(LORADAR_\w+)`", (ROOT / "docs/service/settings.md").read_text("utf-8"), re.MULTILINE))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
ALERTS = [
    rule for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text("utf-8"))["groups"] for rule in group["rules"]
]
INSTRUCTIONS = [
    line.partition(" ")[::2]
    for line in re.sub(r"\\\n\s*", "", (DEPLOY / "Containerfile").read_text("utf-8")).splitlines()
    if line and not line.startswith("#")
]
FINAL = INSTRUCTIONS[max(place for place, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM") :]


def last(name):
    """Return the argument of the last instruction of a name in the final image."""
    return [argument for instruction, argument in FINAL if instruction == name][-1]


def parse(arguments):
    """Return the parameters of a command of ours, parsed without being run."""
    command = typer.main.get_command(commands)
    name, *options = arguments
    assert name in command.commands
    return command.commands[name].make_context(name, options).params


@pytest.mark.parametrize("arguments", [yaml.safe_load(last("CMD")), COMPOSE["services"]["loradar"]["command"]])
def test_the_commands_are_ours(arguments):
    """They listen for others, on the port that is exposed and published."""
    assert yaml.safe_load(last("ENTRYPOINT")) == ["loradar"]
    options = parse(arguments)
    assert options["host"] == "0.0.0.0"  # noqa: S104 - within the container
    assert str(options["port"]) == last("EXPOSE")
    (port,) = COMPOSE["services"]["loradar"]["ports"]
    assert port.split(":")[-1] == last("EXPOSE")
    assert port.startswith("127.0.0.1:")


def test_the_image_checks_its_readiness_and_is_nobody_special():
    """By a route that exists, as a user without rights; what it copies and installs exists."""
    paths = create_app(Settings(Path("/nonexistent"), "sqlite://")).openapi()["paths"]
    path = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", last("HEALTHCHECK"))
    assert path.group(1) == last("EXPOSE")
    assert path.group(2) in paths
    assert last("USER").isdecimal()
    assert int(last("USER")) > 0
    extras = dict(INSTRUCTIONS)["ARG"].partition("=")[2].split(",")
    compose = COMPOSE["services"]["loradar"]["build"]["args"]["EXTRAS"].split(",")
    assert {*extras, *compose} <= tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ].keys()


def test_the_context_has_all_that_is_built():
    """The folders of code, and the files that the build reads."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-dir"]
    assert allowed == {path.partition("/")[0] for path in folders.values()} | {"pyproject.toml", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in allowed)


def test_the_settings_exist_and_are_valid():
    """Of both files; the addresses of the database are those of its service."""
    service, database = COMPOSE["services"]["loradar"], COMPOSE["services"]["database"]
    environment = {name: re.sub(r"\$\{(\w+)(:-)?\}", "", str(value)) for name, value in service["environment"].items()}
    image = dict(part.split("=", 1) for part in shlex.split(last("ENV")) if part.startswith("LORADAR_"))
    assert {*environment, *image} <= SETTINGS
    found = Settings.from_environment({**image, **environment})
    assert found.database_url == f"postgresql+psycopg://{database['environment']['POSTGRES_USER']}:@database/loradar"
    assert database["environment"]["POSTGRES_DB"] == "loradar"
    assert f"home:{image['LORADAR_HOME']}" in service["volumes"]
    assert service["depends_on"]["database"]["condition"] == "service_healthy"


def metric_names():
    """Return the names of all metrics, and of those whose samples exist only after an event, with their labels."""
    metrics = Metrics("0", RegistryCollector(SimpleNamespace(get=_registry)))
    metrics.count("GET", "/", 200, 0.1)
    with metrics.scanning("scan"):
        pass
    families = text_string_to_metric_families(metrics.render().decode())
    return {sample.name: {*sample.labels} for family in families for sample in family.samples} | {"up": {"job"}}


def _registry():
    submissions = SimpleNamespace(count=dict)
    mirror = SimpleNamespace(state=lambda: SimpleNamespace(expires="2026-01-01T00:00:00+00:00"))
    return SimpleNamespace(serial=lambda: 1, submissions=submissions, mirror=mirror)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_is_on_metrics_that_exist(rule):
    """With labels that they have, and a severity."""
    known = metric_names()
    text = re.sub(r'"[^"]*"', '""', rule["expr"])
    used = re.findall(r"\b(up|loradar_\w+)(?:\{([^}]*)\})?", text)
    assert used
    for name, labels in used:
        assert name in known, name
        asked = {part.partition("=")[0].rstrip("!~") for part in labels.split(",") if part}
        assert asked <= known[name] | {"job"}, (name, asked)
    assert rule["labels"]["severity"] in ("page", "ticket")
    routes = re.findall(r'route="([^"]*)"', rule["expr"])
    assert {*routes} <= create_app(Settings(Path("/nonexistent"), "sqlite://")).openapi()["paths"].keys()


def test_each_alert_has_its_chapter():
    """And each chapter its alert; every metric is documented."""
    chapters = re.findall(r"^### (Loradar\w+)$", OPERATING, re.MULTILINE)
    assert chapters == [rule["alert"] for rule in ALERTS]
    for rule in ALERTS:
        assert rule["annotations"]["runbook"] == f"docs/service/operating.md#{rule['alert'].lower()}"
    documented = set(re.findall(r"`(loradar_\w+)`", OPERATING))
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metric_names() if name.startswith("loradar_")}
    assert ours - documented <= {"loradar_info"} | {name for name in ours if name.endswith("_created")}


def test_the_workflow_publishes_what_was_checked():
    """It runs the target that checks, attests the files it made, and stores no token."""
    text = (DEPLOY / "release.yml").read_text("utf-8")
    steps = [step for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"]]
    assert {"run": "make release-check"} in steps
    assert any("attest-build-provenance" in step.get("uses", "") for step in steps)
    assert "secrets." not in text
    assert re.search(r"^release-check:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
