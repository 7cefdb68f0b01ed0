"""A hub of the tests' own, on loopback: the part of the protocol that huggingface_hub speaks for models.

Repos, branches and commits, files in the commit (base64) or by LFS (batch, then PUT), and ``resolve`` with the headers
downloads rest on. Every request is noted, so that a test can tell what was asked for.
"""

import asyncio
import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import huggingface_hub
import pytest
import uvicorn
import yaml
from huggingface_hub import constants
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

ACCOUNTS = {"hf_alice": "alice", "hf_bob": "bob"}
"""Who a token belongs to; an account writes to the repos under its name."""


@dataclass
class Repo:
    """A repo: the files of every commit, by path, as digests of their content."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, str]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, str], message: str) -> str:
        """Put a commit on a branch and return its name."""
        files = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        name = hashlib.sha1(f"{len(self.commits)}{files}".encode(), usedforsecurity=False).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        self.messages.append(message)
        return name

    def find(self, revision: str) -> str | None:
        """Return the commit a branch or a commit's own name stands for."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class Refused(Exception):
    """An answer that is an error, with the code huggingface_hub tells errors apart by."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message)
        self.response = JSONResponse(
            {"error": message or code}, status, {"X-Error-Code": code, "X-Error-Message": message or code}
        )


class Hub:
    """The state of the hub and the answers to its requests.

    Attributes:
        repos: By ``org/name``.
        requests: Method and path of every request so far.
        ranges: The range of bytes that each of them asks for.
        tokens: The credentials that each of them carries.
        honours_ranges: Whether a part of a file is given; else the whole is.
        down: Whether every request is answered with an error of the server.
        full: Whether no file can be stored any more.
        revises: Whether every revision is answered, as the main branch.
        redirects: Where a request for a file is redirected to, by the path of the request.
        page: Repos in a page of the listing.
        throttled: Answers 429 to as many requests for files, with a ``Retry-After`` of ``pause`` seconds.
        times: The time of every request so far.
        delay: Seconds before each answer, as on a network.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        self.ranges: list[str | None] = []
        self.tokens: list[str | None] = []
        self.honours_ranges = True
        self.down = self.full = self.revises = False
        self.redirects: dict[str, str] = {}
        self.page, self.throttled, self.pause = 1000, 0, "0"
        self.times: list[float] = []
        self.delay = 0.0
        self.url = ""

    def add(self, repo: str, files: dict[str, bytes], branch: str = "main", **facts: object) -> str:
        """Put files into a repo, made if need be, and return the commit."""
        stored = {path: self.store(content) for path, content in files.items()}
        return self.repos.setdefault(repo, Repo(**facts)).commit(branch, stored, "Add files")

    def read(self, repo: str, path: str, revision: str = "main") -> bytes:
        """Return the content of a file."""
        found = self.repos[repo]
        return (self.folder / found.commits[found.branches[revision]][path]).read_bytes()

    def store(self, content: bytes) -> str:
        """Keep content under its digest, as LFS does."""
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / digest).write_bytes(content)
        return digest

    def app(self) -> Starlette:
        """Return the application."""
        repo = "/{org}/{name}"
        handlers = {
            ("POST", "/api/repos/create"): self.create,
            ("POST", "/api/validate-yaml"): self.validate,
            ("GET", "/api/models"): self.listing,
            ("GET", f"/api/models{repo}"): self.info,
            ("GET", f"/api/models{repo}/revision/{{revision:path}}"): self.info,
            ("GET", f"/api/models{repo}/tree/{{revision:path}}"): self.tree,
            ("POST", f"/api/models{repo}/branch/{{branch:path}}"): self.branch,
            ("POST", f"/api/models{repo}/preupload/{{revision:path}}"): self.preupload,
            ("POST", f"{repo}.git/info/lfs/objects/batch"): self.batch,
            ("PUT", "/lfs/{digest}"): self.put,
            ("POST", f"/api/models{repo}/commit/{{revision:path}}"): self.commit,
            ("GET", f"{repo}/resolve/{{file:path}}"): self.resolve,
        }
        routes = [Route(path, self._noted(answer), methods=[method]) for (method, path), answer in handlers.items()]
        return Starlette(routes=routes)

    def _noted(self, answer):
        async def noted(request: Request) -> Response:
            self.times.append(time.monotonic())
            self.requests.append(f"{request.method} {request.url.path}")
            self.ranges.append(request.headers.get("range"))
            self.tokens.append(request.headers.get("authorization"))
            await asyncio.sleep(self.delay)
            if self.down:
                return JSONResponse({"error": "Out of order"}, 500)
            try:
                return await answer(request)
            except Refused as refused:
                return refused.response

        return noted

    def _account(self, request: Request) -> str | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in ACCOUNTS:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return ACCOUNTS.get(token)

    def _repo(self, request: Request, *, to_write: bool = False) -> tuple[str, Repo]:
        """Return the repo of a request; one that is not open to the account is as good as missing, as on the hub."""
        org, account = request.path_params["org"], self._account(request)
        name = f"{org}/{request.path_params['name']}"
        repo = self.repos.get(name)
        if repo is None or (repo.private and account != org):
            raise Refused(404 if account else 401, "RepoNotFound", "Repository not found")
        if to_write and account != org:
            raise Refused(403, "", "You don't have the rights to write here")
        return name, repo

    def _commit(self, request: Request, repo: Repo) -> str:
        revision = request.path_params.get("revision", "main")
        commit = repo.find("main" if self.revises else revision)
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    async def create(self, request: Request) -> Response:
        """Make a repo."""
        asked, account = await request.json(), self._account(request)
        if account is None:
            raise Refused(401, "", "Invalid username or password.")
        org = asked["organization"] or account
        if org != account:
            raise Refused(403, "", f"You don't have the rights to create a model under the namespace '{org}'")
        name = f"{org}/{asked['name']}"
        status = 409 if name in self.repos else 200
        if status == 200:
            self.repos[name] = Repo(private=asked.get("visibility") == "private")
            self.repos[name].commit(
                "main", {".gitattributes": self.store(b"*.safetensors filter=lfs\n")}, "initial commit"
            )
        return JSONResponse({"url": f"{self.url}/{name}", "name": name}, status)

    async def validate(self, request: Request) -> Response:
        """Check the front matter of a card as far as its types and the name of the base model go."""
        front = yaml.safe_load((await request.json())["content"].split("---\n")[1])
        base = front.get("base_model", "a/b")
        if not isinstance(front.get("tags"), list) or base.count("/") > 1 or base.startswith((".", "/")):
            errors = [{"message": f'"base_model" with value "{base}" is not valid.'}]
            return JSONResponse({"errors": errors, "warnings": []}, 400)
        return JSONResponse({"errors": [], "warnings": []})

    async def listing(self, request: Request) -> Response:
        """List the repos with their files, a page at a time; the link to the next one is in the headers."""
        asked, account = request.query_params, self._account(request)
        start, wanted = int(asked.get("cursor", 0)), set(asked.getlist("filter"))
        names = [
            name
            for name, repo in self.repos.items()
            if asked.get("author") in (None, name.partition("/")[0])
            and wanted <= set(repo.tags)
            and (not repo.private or account == name.partition("/")[0])
        ]
        page = [self._listed(name) for name in names[start : start + self.page]]
        if start + self.page >= len(names):
            return JSONResponse(page)
        following = request.url.include_query_params(cursor=start + self.page)
        return JSONResponse(page, headers={"Link": f'<{following}>; rel="next"'})

    def _listed(self, name: str) -> dict[str, object]:
        repo = self.repos[name]
        commit = repo.branches["main"]
        files = [{"rfilename": path} for path in sorted(repo.commits[commit])]
        facts = {"id": name, "sha": commit, "private": repo.private, "gated": repo.gated, "tags": [*repo.tags]}
        return facts | {"lastModified": "2026-01-02T03:04:05.000Z", "siblings": files}

    async def info(self, request: Request) -> Response:
        """Tell the commit of a revision and its files."""
        name, repo = self._repo(request)
        commit = self._commit(request, repo)
        files = [{"rfilename": path} for path in sorted(repo.commits[commit])]
        return JSONResponse({"id": name, "sha": commit, "private": repo.private, "siblings": files})

    async def tree(self, request: Request) -> Response:
        """List the files of a revision."""
        _, repo = self._repo(request)
        stored = repo.commits[self._commit(request, repo)].items()
        sizes = {digest: (self.folder / digest).stat().st_size for _, digest in stored}
        return JSONResponse([{"type": "file", "path": p, "oid": d, "size": sizes[d]} for p, d in sorted(stored)])

    async def branch(self, request: Request) -> Response:
        """Make a branch from the main one."""
        _, repo = self._repo(request, to_write=True)
        branch = request.path_params["branch"]
        if branch.startswith("refs/"):
            raise Refused(400, "", f"Invalid reference for a branch: {branch}")
        if branch in repo.branches:
            raise Refused(409, "", f"Reference {branch} already exists")
        repo.branches[branch] = repo.branches["main"]
        return JSONResponse({}, 201)

    async def preupload(self, request: Request) -> Response:
        """Say which files go by LFS."""
        self._commit(request, self._repo(request, to_write=True)[1])
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in (await request.json())["files"]
        ]
        return JSONResponse({"files": files})

    async def batch(self, request: Request) -> Response:
        """Say where to put the files."""
        self._repo(request, to_write=True)
        objects = [
            {**asked, "actions": {"upload": {"href": f"{self.url}/lfs/{asked['oid']}"}}}
            for asked in (await request.json())["objects"]
        ]
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def put(self, request: Request) -> Response:
        """Keep a file, if it is the one announced."""
        if self.full:
            return JSONResponse({"error": "Disk is full"}, 507)
        stored = self.store(await request.body())
        return Response(status_code=200 if stored == request.path_params["digest"] else 422)

    async def commit(self, request: Request) -> Response:
        """Make a commit, or a pull request with one, from one JSON a line."""
        name, repo = self._repo(request, to_write=True)
        self._commit(request, repo)
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        message = next(line["value"]["summary"] for line in lines if line["key"] == "header")
        files = {
            line["value"]["path"]: line["value"].get("oid") or self.store(base64.b64decode(line["value"]["content"]))
            for line in lines
            if line["key"] in ("file", "lfsFile")
        }
        is_request = "create_pr" in request.query_params
        commit = repo.commit("refs/pr/1" if is_request else request.path_params["revision"], files, message)
        answer = {"commitUrl": f"{self.url}/{name}/commit/{commit}", "commitOid": commit}
        if is_request:
            answer["pullRequestUrl"] = f"{self.url}/{name}/discussions/1"
        return JSONResponse(answer)

    async def resolve(self, request: Request) -> Response:
        """Give a file, or its headers alone; also a range of it."""
        if target := self.redirects.get(request.url.path):
            return Response(status_code=307, headers={"Location": target, "X-Repo-Commit": "0" * 40, "ETag": '"0"'})
        if self.throttled > 0:
            self.throttled -= 1
            return JSONResponse({"error": "Too many requests"}, 429, {"Retry-After": self.pause})
        _, repo = self._repo(request)
        asked = (
            request.scope["raw_path"].decode().partition("/resolve/")[2]
        )  # slashes of a branch are still quoted here
        request.path_params["revision"], path = map(unquote, asked.split("/", 1))
        commit = self._commit(request, repo)
        if path not in repo.commits[commit]:
            raise Refused(404, "EntryNotFound", "Entry not found")
        if repo.gated and self._account(request) != request.path_params["org"]:
            raise Refused(403, "GatedRepo", "Access to this model is restricted")
        file = self.folder / repo.commits[commit][path]
        headers = {"ETag": f'"{file.name}"', "X-Repo-Commit": commit, "X-Linked-Size": str(file.stat().st_size)}
        if not self.honours_ranges:
            return Response(file.read_bytes(), headers=headers)
        return FileResponse(file, headers=headers)


@contextmanager
def running(folder: Path) -> Iterator[Hub]:
    """Serve a hub that keeps its files in ``folder`` while the context lasts."""
    hub = Hub(folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hub.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(hub.app(), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.should_exit = True
            thread.join()


def ask(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub ask this hub, here, where it read the address at import, and in processes started here."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_ENDPOINT", url)


@contextmanager
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a hub with nothing in it, and let huggingface_hub ask it, with an empty cache and no token."""
    (folder / "hub").mkdir()
    with running(folder / "hub") as hub:
        ask(hub.url, monkeypatch)
        settings = {"HF_HUB_CACHE": str(folder / "cache"), "HF_TOKEN_PATH": str(folder / "no-token")}
        for name, value in (settings | {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}).items():
            monkeypatch.setattr(constants, name, value)
        for name, value in (settings | {"HF_HUB_OFFLINE": "0"}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
    huggingface_hub.close_session()
