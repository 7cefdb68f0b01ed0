"""Write ``data/names/LIBRARY.json``: the classes, checkpoints and tags that the installed libraries name.

python docs/scripts/known_names.py [FOLDER]    by default ``data/names``; the same libraries give the same bytes

transformers and diffusers are read as syntax trees, so that nothing of them is imported; timm's register is asked.
"""

import ast
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module, metadata, util
from pathlib import Path

LIBRARIES = ("transformers", "timm", "diffusers")
FOLDER = Path(__file__).parents[2] / "data/names"
CATALOG = Path(__file__).parents[2] / "data/catalog"

_LOADED = re.compile(r"(\w+)\s*\.from_pretrained\(\s*[\"']([\w.-]+/[\w.-]+)[\"']")
_LINKED = re.compile(r"\[([\w.-]+/[\w.-]+)\]\(https://huggingface\.co/\1\)")
_UNREAL = re.compile(
    r"^\.|^meta-(?!llama/|models/)|(^|[/_-])(dummy|random|test|testing|internal|your|path|user|username)([/_-]|$)",
    re.IGNORECASE,
)
"""Repositories of tests, folders, Llama's docstring with another name in it, placeholders as ``your-name/model``."""

Facts = dict[str, dict[str, list[str]]]


def folder_of(library: str) -> Path:
    """Return the folder of an installed library, without importing it."""
    spec = util.find_spec(library)
    if spec is None or spec.origin is None:
        message = f"{library} is not installed"
        raise SystemExit(message)
    return Path(spec.origin).parent


@cache
def parse(file: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(file.read_text("utf-8"))


def classes_in(file: Path) -> Iterator[ast.ClassDef]:
    """Yield the classes at the top of a file."""
    yield from (node for node in parse(file).body if isinstance(node, ast.ClassDef))


def public_in(file: Path) -> list[str]:
    """Return ``__all__`` of a file."""
    for node in parse(file).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
    return []


def declared(node: ast.ClassDef, name: str) -> ast.expr | None:
    """Return what a class assigns, or else annotates, to a name in its body."""
    for line in node.body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == name:
            return line.value
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == name:
            return line.value or line.annotation
    return None


def arguments_of(node: ast.ClassDef) -> dict[str, str]:
    """Return the annotations of the arguments of a class's constructor."""
    for line in node.body:
        if isinstance(line, ast.FunctionDef) and line.name == "__init__":
            given = (*line.args.args, *line.args.kwonlyargs)
            return {one.arg: ast.unparse(one.annotation) for one in given if one.annotation}
    return {}


def bases_of(node: ast.ClassDef) -> list[str]:
    """Return the names of the bases of a class."""
    return [ast.unparse(base).rsplit(".", 1)[-1] for base in node.bases]


def transformers_facts() -> Facts:
    """Return the model classes and checkpoints of each model type, from configurations, models and docstrings."""
    root = folder_of("transformers") / "models"
    types = config_types(root)
    configs = {
        name: kind for file in sorted(root.glob("*/configuration_*.py")) for name, kind in types_in(file, types).items()
    }
    classes: dict[str, str] = {}
    for file in sorted(root.glob("*/modeling_*.py")):
        classes |= {name: kind for name, kind in models_in(file, configs).items() if name not in classes}
    for name, kind in auto_classes(root).items():
        if kind in types:
            classes.setdefault(name, kind)
    checkpoints = collect_checkpoints(root, {**configs, **classes}, types)
    return gather(dict.fromkeys(types, ()), classes=invert(classes), checkpoints=checkpoints)


def config_types(root: Path) -> dict[str, str]:
    """Return the configuration class of every model type that AutoConfig knows."""
    found: dict[str, str] = {}
    for file in (root / "auto/auto_mappings.py", root / "auto/configuration_auto.py"):
        for name, table in tables_in(file):
            if "CONFIG_MAPPING_NAMES" in name and "ADDED" not in name:
                found |= table
    return found


def tables_in(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the tables of names that a file of auto classes assigns, adds to or copies, with where they go."""
    for node in parse(file).body:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.value
            table: dict[str, str] = {}
            for part in ast.walk(node.value):
                if isinstance(part, ast.Dict):
                    pairs = zip(part.keys, part.values, strict=True)
                    table |= {k.value: v.value for k, v in pairs if is_text(k) and is_text(v)}
                if isinstance(part, ast.Tuple) and len(part.elts) == 2 and is_text(part.elts[0]):  # noqa: PLR2004
                    texts = [text.value for text in ast.walk(part.elts[1]) if is_text(text)]
                    table |= {part.elts[0].value: texts[0]} if texts else {}
            yield ast.unparse(target), table


def is_text(node: ast.AST | None) -> bool:
    """Return whether a node is a string."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def types_in(file: Path, types: dict[str, str]) -> dict[str, str]:
    """Return the model type of each configuration in a file: its own where AutoConfig has it, else AutoConfig's."""
    named = {config: kind for kind, config in reversed(types.items())}
    found = {}
    for node in classes_in(file):
        stated = declared(node, "model_type")
        own = stated.value if is_text(stated) else None
        kind = own if own in types else named.get(node.name)
        if kind:
            found[node.name] = kind
    return found


def models_in(file: Path, configs: dict[str, str]) -> dict[str, str]:
    """Return the model type of each public model in a file, by the configuration it declares, takes or inherits."""
    known: dict[str, str] = {}
    for node in classes_in(file):
        stated = declared(node, "config") or declared(node, "config_class")
        taken = arguments_of(node).get("config", "")
        names = [ast.unparse(stated) if stated else "", taken]
        kinds = [configs[name.strip("'\"")] for name in names if name.strip("'\"") in configs]
        kinds += [known[base] for base in bases_of(node) if base in known]
        if kinds:
            known[node.name] = kinds[0]
    return {name: known[name] for name in public_in(file) if name in known and not name.endswith("PreTrainedModel")}


def auto_classes(root: Path) -> dict[str, str]:
    """Return the model type of each class that an auto class of models loads, the first that names it."""
    found: dict[str, str] = {}
    for name, table in tables_in(root / "auto/modeling_auto.py"):
        if "MAPPING_NAMES" in name:
            for kind, model in table.items():
                found.setdefault(model, kind)
    return found


def collect_checkpoints(root: Path, classes: dict[str, str], types: dict[str, str]) -> dict[str, list[str]]:
    """Return the checkpoints of each model type: those its configuration names, then those its docstrings load.

    In a folder named after a type, they are all of that type: the others there are its parts, which have no repository.
    One that docstrings load as several types belongs to ``owner_of`` it.
    """
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    stated: set[str] = set()
    for file in sorted(root.glob("*/*.py")):
        main = next((kind for kind in types if same(kind, file.parent.name)), None)
        for node in classes_in(file) if file.name.startswith("configuration_") else ():
            kind = main or classes.get(node.name)
            for repo in decorated(node) | set(_LINKED.findall(ast.get_docstring(node) or "")):
                if kind:
                    votes[repo][kind] += 3
                    stated.add(repo)
        own = {node.name for other in file.parent.glob("*.py") for node in classes_in(other)}
        for name, repo in _LOADED.findall(file.read_text("utf-8")):
            kind = main if name in own & classes.keys() or name.startswith("AutoModel") else None
            kind = kind or classes.get(name)
            if kind:
                votes[repo][kind] += 2 if name in classes else 1
    copied = Counter(template for repo in votes for template in {template_of(repo, kind) for kind in votes[repo]})
    found: dict[str, list[str]] = defaultdict(list)
    for repo, counted in sorted(votes.items()):
        first = owner_of(repo, counted)
        is_copy = first and repo not in stated and copied[template_of(repo, first)] > 1
        if first and not (is_copy or _UNREAL.search(repo) or repo.startswith("timm/")):
            found[first].append(repo)
    return found


def owner_of(repo: str, counted: Counter[str]) -> str | None:
    """Return the type that loads a repository most, ``None`` for a tie that the repository's name does not decide.

    ``instructblip-vicuna-7b`` is of the type that its name begins with, though ``instructblipvideo`` loads it more.
    """
    (first, most), *others = counted.most_common()
    name = words_in(repo.rpartition("/")[2])
    named = [kind for kind, _ in (*others, (first, most)) if name.startswith(words_in(kind))]
    for kind in named:
        if counted[kind] == most or (first not in named and words_in(first).startswith(words_in(kind))):
            return kind
    return None if any(votes == most for _, votes in others) else first


def words_in(name: str) -> str:
    """Return the letters and digits of a name."""
    return "".join(re.findall(r"[a-z0-9]+", name.casefold()))


def template_of(repo: str, kind: str) -> str:
    """Return a repository without the name of its type, which is all that differs where docstrings were copied.

    ``meta-qwen2/Qwen2-2-7b-hf``, which does not exist, is the docstring of ``meta-llama/Llama-2-7b-hf`` renamed.
    """
    words = "[-_.]?".join(re.escape(word) for word in re.findall(r"[a-z]+|\d+", kind))
    return re.sub(words, "*", repo, flags=re.IGNORECASE)


def same(one: str, other: str) -> bool:
    """Return whether two names differ in nothing but ``-`` and ``_``."""
    return one.replace("-", "_") == other.replace("-", "_")


def decorated(node: ast.ClassDef) -> set[str]:
    """Return the checkpoints that the decorators of a configuration name."""
    words = (word for line in node.decorator_list if isinstance(line, ast.Call) for word in line.keywords)
    return {word.value.value for word in words if word.arg == "checkpoint" and "/" in str(word.value.value)}


def diffusers_facts() -> Facts:
    """Return the pipelines and checkpoints of each model class: a pipeline is its denoiser, the model it trains."""
    root = folder_of("diffusers")
    models = {node.name for file in sorted(root.glob("models/**/*.py")) for node in classes_in(file)}
    models |= {node.name for file in sorted(root.glob("pipelines/**/*.py")) for node in classes_in(file)}
    public = {name for name in exported(root) if name in models}
    pipelines: dict[str, str] = {}
    for file in sorted(root.glob("pipelines/**/*.py")):
        for node in classes_in(file):
            parts = arguments_of(node)
            main = next((parts[part] for part in ("transformer", "unet", "prior", "decoder") if part in parts), "")
            kinds = [kind for kind in re.findall(r"\w+", main) if kind in public]
            if kinds and node.name in set(exported(root)):
                pipelines[node.name] = kinds[0]
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for file in sorted(root.glob("**/*.py")):
        text = file.read_text("utf-8")
        for loaded in _LOADED.finditer(text):
            name, repo = loaded.groups()
            is_part = "subfolder" in text[loaded.end() : text.find(")", loaded.end())]
            kind = pipelines.get(name) or (name if name in public and not is_part else None)
            if kind and not _UNREAL.search(repo):
                votes[repo][kind] += 1 if name in pipelines else 0
    checkpoints: dict[str, list[str]] = defaultdict(list)
    for repo, counted in sorted(votes.items()):
        checkpoints[counted.most_common(1)[0][0]].append(repo)
    architectures = {name: () for name in sorted(public) if is_model(name, root)}
    return gather(architectures, pipelines=invert(pipelines), checkpoints=checkpoints)


@cache
def exported(root: Path) -> frozenset[str]:
    """Return the names in the import structure of diffusers."""
    return frozenset(
        part.value for part in ast.walk(parse(root / "__init__.py")) if isinstance(part, ast.Constant) and is_text(part)
    )


@cache
def parents(root: Path) -> dict[str, tuple[str, ...]]:
    """Return the bases of every class of diffusers."""
    files = (file for file in sorted(root.glob("**/*.py")) if not file.name.startswith("dummy_"))
    return {node.name: tuple(bases_of(node)) for file in files for node in classes_in(file)}


def is_model(name: str, root: Path) -> bool:
    """Return whether a class of diffusers is a model."""
    bases = parents(root).get(name, ())
    return "ModelMixin" in bases or any(base != name and is_model(base, root) for base in bases)


def timm_facts() -> Facts:
    """Return the tags of each architecture, and its repositories that are not ``timm/NAME.TAG``."""
    registry = import_module("timm.models._registry")
    tags: dict[str, list[str]] = {name: [] for name in registry.list_models()}
    elsewhere: dict[str, list[str]] = defaultdict(list)
    for name in registry.list_pretrained():
        base, _, tag = name.partition(".")
        if base in tags and tag:
            tags[base].append(tag)
        repo = registry.get_pretrained_cfg(name).hf_hub_id
        if repo and not repo.startswith("timm/"):
            elsewhere[base].append(repo)
    former: dict[str, list[str]] = defaultdict(list)
    for name, now in registry._deprecated_models.items():  # noqa: SLF001 - timm has no public list of them
        former[(now or "").partition(".")[0]].append(name)
    return gather(tags, tags=tags, checkpoints=elsewhere, former=former, classes=timm_classes())


def timm_classes() -> dict[str, list[str]]:
    """Return the class of each architecture in the catalog, which has built them all."""
    rows = map(json.loads, (CATALOG / "timm.jsonl").read_text("utf-8").splitlines()[1:])
    return {name: [row["class"]] for row in rows for name in [row.get("name")] if name and "class" in row}


def invert(kinds: dict[str, str]) -> dict[str, list[str]]:
    """Return the names of each kind."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, kind in kinds.items():
        found[kind].append(name)
    return found


def gather(names: Iterable[str], **columns: dict[str, list[str]]) -> Facts:
    """Return the columns by architecture, sorted, without empty ones."""
    return {
        name: {key: sorted({*column[name]}) for key, column in columns.items() if column.get(name)}
        for name in sorted(names)
    }


def write(library: str, folder: Path) -> None:
    """Write the facts of a library, an architecture a line."""
    facts = {"transformers": transformers_facts, "timm": timm_facts, "diffusers": diffusers_facts}[library]()
    lines = (f"{json.dumps(name)}:{json.dumps(facts[name], separators=(',', ':'))}" for name in facts)
    head = f'{{"library":"{library}","version":"{metadata.version(library)}","names":{{\n'
    (folder / f"{library}.json").write_text(head + ",\n".join(lines) + "\n}}\n", "utf-8")


if __name__ == "__main__":
    for each in LIBRARIES:
        write(each, Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
