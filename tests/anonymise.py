"""A transformers modeling file with every telling name replaced by a random one, so that only dataflow can tell roles.

``anonymise(modeling_llama, seed=1).module`` holds the same classes under meaningless names, and so do their modules,
parameters, methods and functions. What stays is what the framework calls by name (``forward``, ``config``,
``post_init`` ...), the configuration's fields, buffers, torch's ``weight`` and ``bias``, and classes imported from
elsewhere (activations, ``Conv1D``, rotary utilities).

The framework finds a few modules by name itself (``get_input_embeddings`` looks for ``embed_tokens``). Its finders are
copied into the renamed classes and renamed with them, so a model declares its embeddings and head just as before. Its
kernels for experts read ``gate_up_proj`` and the like: the renamed classes answer with properties, which no module or
parameter listing shows.
"""

import ast
import atexit
import builtins
import copy
import importlib.util
import inspect
import random
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations import moe
from transformers.utils import ModelOutput

LETTERS = "bcdfghjkmpqrtvwxyz"  # no vowels: a random name must not be a word by chance
TORCH_NAMES = frozenset({"weight", "bias"})
FRAMEWORK_NAMES = frozenset({*dir(PreTrainedModel), *dir(ModelOutput), "compute_default_rope_parameters"})
TENSOR_NAMES = frozenset(dir(torch.Tensor))
# Each of these swaps what a class or function does by its name, or reads the docstring of the original class.
NAMING_DECORATORS = re.compile("auto_docstring|use_kernel|force_accelerate_hooks")
EXPERTS_READ = frozenset(re.findall(r"self\.(\w+)", inspect.getsource(moe)))
"""What transformers' own expert implementations read from the class they run for."""
FINDERS = ("get_input_embeddings", "get_output_embeddings", "get_encoder", "get_decoder")
BY_NAME = frozenset({"getattr", "hasattr", "setattr", "delattr", "register_parameter", "add_module", "get_submodule"})
WORD = re.compile(r"(?<!\\)[A-Za-z_]\w*")


@dataclass(frozen=True)
class Anonymised:
    """A renamed modeling module.

    Attributes:
        module: The new module; its classes build from the original's configuration.
        class_name_map: Original class name -> new one.
        attribute_map: Original name of a module, parameter, method or function -> new one.
    """

    module: ModuleType
    class_name_map: dict[str, str]
    attribute_map: dict[str, str]

    def build_like(self, original: nn.Module) -> nn.Module:
        """Return the renamed counterpart of ``original``, on meta, from a copy of the same configuration."""
        model_class = getattr(self.module, self.class_name_map[type(original).__name__])
        with torch.device("meta"):
            return model_class(copy.deepcopy(original.config)).eval()

    def telling_names(self, renamed: nn.Module) -> set[str]:
        """Return the names of the original that are left in the paths of ``renamed``; there should be none."""
        new = set(self.attribute_map.values()) | TORCH_NAMES
        return {
            name
            for module in renamed.modules()
            if type(module).__module__ == self.module.__name__ or type(module) in (nn.ModuleDict, nn.ModuleList)
            for name in (*module._modules, *module._parameters)
            if name not in new and not name.isdecimal()
        }


def anonymise(module: ModuleType, seed: int) -> Anonymised:
    """Return ``module``, a transformers ``modeling_*`` module, under random names; the same seed, the same names."""
    tree = ast.parse(inspect.getsource(module))
    names = _Names(random.Random(seed))  # noqa: S311 - names, not secrets
    classes = {node.name: names.next().capitalize() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    told = sorted(_told(tree) - FRAMEWORK_NAMES - TORCH_NAMES - set(classes))
    attributes = {name: names.next() for name in told}
    _copy_finders(tree)
    renamed = ast.fix_missing_locations(_Renamer(tree, attributes, classes).visit(tree))
    new_module = _execute(ast.unparse(renamed), names.next(), module.__package__ or "")
    return Anonymised(new_module, classes, attributes)


def original_paths(original: nn.Module, renamed: nn.Module) -> dict[str, str]:
    """Return renamed path -> original path of every module and parameter, matched by position.

    Raises:
        ValueError: If the two models differ in structure.
    """
    pairs: dict[str, str] = {}
    for listing in ("named_modules", "named_parameters"):
        old, new = ([*getattr(model, listing)(remove_duplicate=False)] for model in (original, renamed))
        pairs.update((b[0], a[0]) for a, b in zip(old, new, strict=True))
        mismatch = [a for (a, one), (_, other) in zip(old, new, strict=True) if not _alike(one, other)]
        if mismatch:
            raise ValueError(f"The renamed model differs at {mismatch[0]!r} from its original.")
    return pairs


def _alike(one: nn.Module | nn.Parameter, other: nn.Module | nn.Parameter) -> bool:
    if isinstance(one, nn.Parameter):
        return one.shape == other.shape
    return len(one._modules) == len(other._modules) and len(one._parameters) == len(other._parameters)


class _Names:
    """An endless supply of words that mean nothing."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._given: set[str] = set()

    def next(self) -> str:
        """Return a word that was not given before."""
        word = "".join(self._source.choices(LETTERS, k=9))
        if word in self._given:
            return self.next()
        self._given.add(word)
        return word


def _told(tree: ast.Module) -> set[str]:
    """Return the names in a modeling file that tell: of modules, parameters, their dictionary keys, and functions."""
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    attributes = {name for node in ast.walk(tree) for name in _held(node)}
    local = functions & arguments  # a function that shares its name with an argument cannot be told from it
    return {name for name in functions - local if not name.startswith("__")} | attributes


def _held(node: ast.AST) -> Iterator[str]:
    """Yield the names under which a statement stores a module or a parameter."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        own = [t for t in targets if isinstance(t, ast.Attribute) and _root(t) == "self"]
        if own and node.value is not None:
            # A class passed in as an argument goes by its purpose: `self.downsample = downsample(...)`.
            passed = {_called(call) for call in ast.walk(node.value) if isinstance(call, ast.Call)}
            yield from (target.attr for target in own if target.attr in passed or _makes_module(node.value))
    elif isinstance(node, ast.Call):
        if _called(node) == "ModuleDict":
            yield from (k.value for a in node.args if isinstance(a, ast.Dict) for k in a.keys if _is_text(k))
        elif _called(node) in ("register_parameter", "add_module"):
            yield from (argument.value for argument in node.args[:1] if _is_text(argument))


def _makes_module(value: ast.expr) -> bool:
    """Tell whether an expression makes a module or passes one on: a call of a class, an activation, an argument."""
    if isinstance(value, ast.Name):
        return value.id.endswith(("embed_tokens", "shared", "encoder", "decoder", "embeddings", "model"))
    calls = [node for node in ast.walk(value) if isinstance(node, ast.Call)]
    made = [name for call in calls for name in (_called(call), _root(call.func))]
    looked_up = (_last(node.value) for node in ast.walk(value) if isinstance(node, ast.Subscript))
    is_class = any(re.match(r"[A-Z]|\w*_class$", name) and not name.endswith(("Config", "Cache")) for name in made)
    return is_class or "get_activation" in made or any(name.isupper() for name in looked_up)


def _called(node: ast.Call) -> str:
    """Return the last name of what is called; of an entry of a table of classes, the table's."""
    func = node.func.value if isinstance(node.func, ast.Subscript) else node.func
    return _last(func)


def _last(node: ast.AST) -> str:
    return getattr(node, "attr", None) or getattr(node, "id", None) or ""


def _root(node: ast.AST) -> str:
    """Return the variable an expression starts from: ``self`` of ``self.a[0].b``."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return getattr(node, "id", "")


def _is_text(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _copy_finders(tree: ast.Module) -> None:
    """Give the file's own base classes copies of the framework's finders, where they do not override them."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and "PreTrainedModel" in map(_last, node.bases):
            own = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            marked = {_last(t) for item in node.body if isinstance(item, ast.Assign) for t in item.targets}
            finders = [_source_of(name) for name in FINDERS if name not in own]
            if "_input_embed_layer" not in marked:
                finders.append(ast.parse(f"_input_embed_layer = {PreTrainedModel._input_embed_layer!r}").body[0])
            node.body.extend(finders)


def _source_of(finder: str) -> ast.stmt:
    source = textwrap.dedent(inspect.getsource(getattr(PreTrainedModel, finder)))
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    node.body = node.body[1:] if ast.get_docstring(node) else node.body
    node.is_finder = True  # type: ignore[attr-defined]
    return node


class _Renamer(ast.NodeTransformer):
    """Renames consistently: definitions, uses, and the strings that name attributes."""

    def __init__(self, tree: ast.Module, attributes: dict[str, str], classes: dict[str, str]) -> None:
        self.attributes = attributes
        self.classes = classes
        self.names = {**attributes, **classes}
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        self.imported = {(alias.asname or alias.name).partition(".")[0] for i in imports for alias in i.names}
        self.imported |= set(dir(builtins))
        defined = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        nested = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        methods = {id(m) for c in ast.walk(tree) if isinstance(c, ast.ClassDef) for m in c.body}
        self.variables = {node.name for node in defined} | {node.name for node in nested if id(node) not in methods}

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Rename a class and what its declarations name; drop its docstring and decorators that read names."""
        node.name = self.classes[node.name]
        for item in node.body:
            if isinstance(item, ast.Assign) and _last(item.targets[0]).startswith(("_", "base_model_prefix")):
                is_record = _last(item.targets[0]) == "_can_record_outputs"
                item.value = _Texts(self, keep_keys=is_record).visit(item.value)
        runs_experts = any("use_experts_implementation" in ast.unparse(d) for d in node.decorator_list)
        self._visit_body(node)
        if runs_experts:
            node.body.extend(self._aliases())
        return node

    def _aliases(self) -> Iterator[ast.stmt]:
        for name in sorted(EXPERTS_READ & set(self.attributes)):
            yield from ast.parse(f"{name} = property(lambda self: self.{self.attributes[name]})").body

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Rename a function or method; in the framework's finders every string that names an attribute, too."""
        node.name = self.attributes.get(node.name, node.name)
        if getattr(node, "is_finder", False):
            node.body = [_Texts(self, keep_keys=False).visit(item) for item in node.body]
        return self._visit_body(node)

    def _visit_body(self, node: ast.ClassDef | ast.FunctionDef) -> ast.AST:
        node.decorator_list = [d for d in node.decorator_list if not NAMING_DECORATORS.search(ast.unparse(d))]
        if ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Rename a use of a class or function of the file."""
        if node.id in self.variables:
            node.id = self.names.get(node.id, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Rename an attribute, unless it is of a configuration, a cache, an imported module or a tensor."""
        self.generic_visit(node)
        if node.attr in self.attributes and not self._is_foreign(node):
            node.attr = self.attributes[node.attr]
        return node

    def _is_foreign(self, node: ast.Attribute) -> bool:
        owner = _last(node.value).lower()
        if "config" in owner or _root(node) in self.imported - {"super", "self"}:
            return True
        if re.search("cache|past|output", _root(node)):
            return True
        return node.attr in TENSOR_NAMES and not self._is_module(node.value)

    def _is_module(self, node: ast.AST) -> bool:
        """Tell whether an expression is ``self`` or a chain of (already renamed) modules of it."""
        while isinstance(node, ast.Attribute) and node.attr in self.attributes.values():
            node = node.value
        return isinstance(node, ast.Name) and node.id in ("self", "module")

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Rename the strings by which attributes are read, set and recorded."""
        is_about_config = bool(node.args) and "config" in _last(node.args[0]).lower()
        if _called(node) in (BY_NAME | {"ModuleDict"}) and not is_about_config:
            node.args = [_Texts(self, keep_keys=False).visit(a) if _is_path_like(a) else a for a in node.args]
        for keyword in node.keywords:
            if keyword.arg in ("layer_name", "class_name"):
                keyword.value = _Texts(self, keep_keys=False).visit(keyword.value)
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Rename the key of an entry of a dictionary of modules."""
        is_held = isinstance(node.value, ast.Attribute) and node.value.attr in self.attributes
        if is_held and _is_text(node.slice):
            node.slice = _Texts(self, keep_keys=False).visit(node.slice)
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """Keep ``__all__`` true to the new names."""
        if _last(node.targets[0]) == "__all__":
            node.value = _Texts(self, keep_keys=False).visit(node.value)
        return self.generic_visit(node)


def _is_path_like(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant | ast.Dict | ast.JoinedStr)


class _Texts(ast.NodeTransformer):
    """Renames the words in string constants."""

    def __init__(self, renamer: _Renamer, *, keep_keys: bool) -> None:
        self.names = renamer.names
        self.keep_keys = keep_keys

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Rename each known word of a path or pattern."""
        if isinstance(node.value, str):
            node.value = WORD.sub(lambda found: self.names.get(found[0], found[0]), node.value)
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        """Rename keys and values, or values only."""
        keys: Iterable[ast.expr | None] = node.keys
        node.keys = [key if self.keep_keys or key is None else self.visit(key) for key in keys]
        node.values = [self.visit(value) for value in node.values]
        return node


def _execute(source: str, name: str, package: str) -> ModuleType:
    """Run ``source`` as a module of ``package``, so that relative imports work, and from a file, which is read again.

    transformers reads the file of a model's class to find out how its attention can be chosen.
    """
    folder = tempfile.TemporaryDirectory(prefix="anonymised-")
    atexit.register(folder.cleanup)
    path = Path(folder.name, f"{name}.py")
    path.write_text(source, "utf-8")
    spec = importlib.util.spec_from_file_location(f"{package}.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
