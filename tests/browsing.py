"""A service with people and submissions in it, and a headless Chromium to see it with."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from in_process import InProcess
from patience import patience, wait_until
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from loradar.api import workers
from loradar.api.server import running
from loradar.registry import Registry
from loradar.settings import RequestLimits, Settings

PEOPLE = {"ada": "contributor", "bob": "contributor", "eve": "reviewer", "root": "admin"}
FAILED = 500
UNLIMITED = RequestLimits(*[10**9] * 4)

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">{{7*7}}"
"""A rationale that is markup, a script and a template."""

CONFIG = '{"model_type": "olmo2", "num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 512}'
"""A configuration to scan."""

LISTED = "\n".join(f"layers.{n}.{name} 64x64" for n in range(2) for name in ("mix.q", "mix.v", "mlp.up"))
"""The layers of a model of somebody's own, as the form takes them."""


LOST = 120.0
"""Seconds after which what a page does not show is taken for missing; on an idle machine all comes within six."""

NONE = "no Chromium is installed: `apt-get install chromium`, or set LORADAR_CHROMIUM to the path of one"


def patient() -> float:
    """Return the bound of an event in a page in seconds, scaled by the environment."""
    return patience(LOST)


def find_chromium() -> str | None:
    """Return the path of Chromium, as Debian's package of that name installs it."""
    return os.environ.get("LORADAR_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a headless Chromium that reaches loopback alone.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = find_chromium()
    if path is None:
        raise FileNotFoundError(NONE)
    # As root, as in a container, its own sandbox does not start; it opens our own pages alone.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=[*options, "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        url: Its address.
        registry: Its registry.
        tokens: The token of each person.
    """

    url: str
    registry: Registry
    tokens: dict[str, str]

    def send(self, person: str, path: str, **body: Any) -> dict[str, Any]:
        """Send a write over REST as a person, and return its response."""
        headers = {"Authorization": f"Bearer {self.tokens[person]}"}
        response = httpx2.post(self.url + path, json=body, headers=headers, timeout=patience())
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    def submit(self, person: str, **stated: Any) -> int:
        """Submit as a person, and return the number once it is checked."""
        number: int = self.send(person, "/v1/submissions", **stated)["id"]
        wait_until(lambda: self.registry.submissions.get(number).status != "checking", "its checks")
        return number


@contextmanager
def serving(folder: Path, seeded: Path) -> Iterator[Service]:
    """Serve a copy of a seeded registry in this process, its checks too."""
    database = folder / "registry.sqlite3"
    shutil.copy(seeded, database)
    settings = Settings(folder, f"sqlite:///{database}", limits=UNLIMITED, workers=1)
    with pytest.MonkeyPatch.context() as patch, Registry.open(settings) as registry:
        patch.setattr(workers, "Sandbox", InProcess)
        tokens = {name: registry.tokens.create(name, role)[1] for name, role in PEOPLE.items()}
        with running(settings) as url:
            yield Service(url, registry, tokens)


@dataclass
class Seen:
    """What a page did beside its content: errors in its console, and requests."""

    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def visiting(browser: Browser, service: Service, as_: str | None = None, **options: Any) -> Iterator[tuple[Page, Seen]]:
    """Open a page in a browser profile of its own, signed in as a person."""
    options = {"viewport": DESKTOP, "base_url": service.url, **options}
    context: BrowserContext = browser.new_context(**options)
    context.set_default_timeout(1000 * patient())
    page, seen = context.new_page(), Seen()
    page.on("console", lambda said: seen.problems.append(said.text) if said.type in ("error", "warning") else None)

    def give_up(problem: str) -> None:
        seen.problems.append(problem)
        context.close()  # whoever waits for something on the page fails now, not at the end of its patience

    page.on("pageerror", lambda error: give_up(f"{error}"))
    page.on("response", lambda got: give_up(f"{got.status} of {got.url}") if got.status == FAILED else None)
    page.on("request", lambda request: seen.requests.append(request.url))
    if as_:
        _, session = service.registry.tokens.sign_in(service.tokens[as_])
        context.add_cookies([{"name": "loradar", "value": session, "url": service.url}])
    try:
        yield page, seen
    finally:
        context.close()


PAGES = {
    "home": ("/", None),
    "search": ("/search?q=q_proj", None),
    "search-nothing": ("/search?q=zzzz", None),
    "browse": ("/architectures", None),
    "architecture": ("/architectures/transformers/llama", None),
    "architecture-seeing": ("/architectures/transformers/qwen2_vl?towers=language,vision", None),
    "architecture-largest": ("/architectures/transformers/nllb-moe", None),
    "architecture-wrong": ("/architectures/transformers/llama?preset=experts", None),
    "compare": ("/compare?a=llama&b=mistral", None),
    "compare-form": ("/compare", None),
    "compare-problem": ("/compare?a=lama&b=gpt2", None),
    "audit": ("/audit", None),
    "audit-partial": ("/audit?verdict=partial", None),
    "scan": ("/scan", None),
    "scanned": ("/scan/{scanned}", None),
    "placement": ("/placement", None),
    "guide": ("/docs", None),
    "missing": ("/nothing/here", None),
    "login": ("/login", None),
    "signed-in": ("/login", "eve"),
    "submissions": ("/submissions", "eve"),
    "queue": ("/submissions?status=needs_review", None),
    "no-submissions": ("/submissions?status=rejected", None),
    "contribute": ("/submissions/new", "ada"),
    "contribute-filled": ("/submissions/new?name=qwen2_vl&target_modules=q_proj,v_prj,qkv,self_attn", None),
    "contribute-unknown": ("/submissions/new?name=LlamaForCausalLM&target_modules=q_proj", "ada"),
    "review": ("/submissions/{waiting}", "eve"),
    "own-submission": ("/submissions/{waiting}", "ada"),
    "failed-submission": ("/submissions/{failed}", None),
    "published-submission": ("/submissions/{published}", "eve"),
    "withdrawn-submission": ("/submissions/{withdrawn}", None),
}
"""The path of every page, by name, with the person who sees it."""


def list_pages(service: Service) -> dict[str, tuple[str, str | None]]:
    """Return ``PAGES`` with the numbers of submissions in each state, which it makes."""
    waiting = service.submit("ada", name="llama", target_modules=["q_proj", "k_proj", "v_proj"], rationale=HOSTILE)
    failed = service.submit("ada", name="gpt2", target_modules=["q_proj"], rationale="As in llama.")
    published = service.submit("bob", name="gpt2", target_modules=["c_attn", "c_proj"], rationale="Both of attention.")
    service.send("eve", f"/v1/submissions/{published}/reviews", decision="approve", comment="Reaches all blocks.")
    withdrawn = service.submit("bob", name="llama", target_modules=["q_proj", "mlp"], rationale="Tried on 7B.")
    service.send("bob", f"/v1/submissions/{withdrawn}/withdrawal", reason="mlp is no layer.")
    browser = {"Accept": "text/html", "Origin": service.url}
    answer = httpx2.post(f"{service.url}/scan", data={"text": CONFIG}, headers=browser, timeout=patience())
    scanned = answer.headers["Location"].rpartition("/")[2]
    made = {"waiting": waiting, "failed": failed, "published": published, "withdrawn": withdrawn, "scanned": scanned}
    return {name: (path.format(**made), person) for name, (path, person) in PAGES.items()}
