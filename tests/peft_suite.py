"""Run PEFT's own tests of LoRA and IA3 against loradar, and print what passes, what is rejected by design, what fails.

    python tests/peft_suite.py FOLDER [--names peft] [--every 10] [files] [arguments of pytest]

FOLDER is the ``tests`` folder of PEFT's repository, at the tag of the installed version. Inside of its files alone,
every public name of PEFT that loradar has too (``LoraConfig``, ``get_peft_model``, ``PeftModel``...) is loradar's; all
others stay PEFT's. Nothing else is replaced. ``--names peft`` runs the same cases with PEFT's own names, and keeps what
fails then: the next run counts those cases apart. ``--every 10`` runs one case in ten.

Nothing is downloaded. A case with a model of the hub runs on the stand-in that ``peft_suite_models.py`` lists for it,
of the same class and of random weights, and is counted apart if there is none.
"""

import ast
import builtins
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter, defaultdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
from peft_suite_models import MODELS, write_cache

FILES = ("test_custom_models.py", "test_target_parameters.py", "test_tuners_utils.py")
"""The files whose cases are judged, if none is named."""
STRICT = r"::test_\w*(save|load|pretrained|pickle|state_dict|config|name|key|prefix|hotswap)"
"""A regex for the cases of saving, loading and names, which are counted once more across the files."""
NAMES, REPORT, EVERY = "LORADAR_SUITE_NAMES", "LORADAR_SUITE_REPORT", "LORADAR_SUITE_EVERY"
"""Environment variables: whose names the tests use, the file for the outcomes, and one in how many cases to run."""
CACHE = Path(__file__).parents[1] / ".cache" / "peft_suite"
"""The folder of the stand-in models, laid out as the hub's, and of the cases that fail with PEFT's own names."""
MISSING = ("datasets", "parameterized")
"""Packages that the files import at the top and few tests use."""
COLUMNS = ("passed", "by design", "failed", "skipped", "needs a download", "fails in PEFT too")

BY_DESIGN = {
    "variants of LoRA": r"is a feature of PEFT that loradar lacks",
    "messages": (
        r"Regex pattern did not match|TargetsNotFound: No layer ends with 'non_existent_module'|"
        r"::test_mixed_adapter_batches_mha_raises\b.*\n.*does not support mixed adapter batches yet|"
        r"::test_warn_for_tied_embeddings_merge\n|has no layer that LoRA can adapt, only: MyModule\.$"
    ),
    "device maps": r"device_map=.* cannot be honoured",
    "one method in a model": r"mixed=True: one model of loradar takes one method|carries adapters already",
    "internals": (
        r"::test_delete_adapter_multiple_adapters_with_(modules_to_save|trainable_token_indices)\n|"
        r"is no parameter, but computed|::test_only_params_are_updated\b.*EmbConv1D-LoraConfig.*\nassert not True|"
        r"no attribute '_register_custom_module'|::test_target_parameter_result_caching_works\n|"
        r"::test_target_multiple_parameters_on_same_module\n|::test_get_peft_model_applies_find_target_modules\n"
    ),
    "more than PEFT": (
        r"::test_weighted_combination_of_adapters\b.*\nFailed: DID NOT RAISE|\[XPASS\(strict\)\]|"
        r"::test_default_target_modules_(not_set|str)\w*\b.*\n(Failed: DID NOT RAISE|Assert\w+: assert \{'lin0'\})|"
        r"::test_save_pretrained_targeting_lora_to_embedding_layer_non_transformers\b.*True\]\n"
    ),
    "model cards": r"::test_(non_)?existing_model_card\n",
    "fields of configurations": r"target_modules=\[\] names no layer",
}
"""The rules of ``docs/training/peft-differences.md`` that explain failures: a regex for the case and its message."""

DOWNLOADS = (
    r"couldn't connect to 'https://huggingface\.co'|LocalEntryNotFoundError|OfflineModeIsEnabled|offline mode|"
    r"outgoing traffic has been disabled|is not a local folder and is not a valid model identifier|"
    r"Cannot find the requested files in the disk cache|not the path to a directory containing|Can't load .* for '"
)
"""A regex for the messages of tests whose model has no stand-in."""

Outcome = dict[str, str]
"""The result of one case: ``case``, ``outcome`` as pytest names it, and ``message``."""


def main(arguments: list[str]) -> int:
    """Run the files in a process of their own, and print the table; return 1 if a case fails."""
    folder = Path(arguments.pop(0)).resolve()
    names = "loradar"
    if arguments[:1] == ["--names"]:
        names = arguments[1]
        del arguments[:2]
    if arguments[:1] == ["--every"]:
        os.environ[EVERY] = arguments[1]
        del arguments[:2]
    files = [each for each in arguments if each.startswith("test_")] or FILES
    options = [each for each in arguments if each not in files]
    outcomes = run(folder, files, names, options)
    own = CACHE / "fails_in_peft.json"
    known = json.loads(own.read_text()) if own.exists() else []
    if names == "peft":
        failing = {each["case"] for each in outcomes if classify(each, ())[0] == "failed"}
        own.write_text(json.dumps(sorted(failing | {*known} - {each["case"] for each in outcomes})))
    print(describe(outcomes, known))  # noqa: T201 - its job
    return int(any(classify(each, known)[0] == "failed" for each in outcomes))


def run(folder: Path, files: list[str] | tuple[str, ...], names: str = "loradar", options: Any = ()) -> list[Outcome]:
    """Run the tests of these files under the names of ``loradar`` or ``peft``, and return the outcomes."""
    write_cache(CACHE)
    with TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        environment = {
            **os.environ,
            NAMES: names,
            REPORT: str(report),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(CACHE),
            "LORADAR_HOME": f"{scratch}/home",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }
        plugins = [f"-p{each}" for each in ("peft_suite", "no:randomly", "no:cacheprovider", "no:socket")]
        command = [sys.executable, "-m", "pytest", "-q", *plugins, "-c", os.devnull, f"--rootdir={folder}"]
        command += ["--tb=short", "--continue-on-collection-errors", "-Wignore", *options]
        command += [str(folder / each) for each in files]
        subprocess.run(command, env=environment, check=False, cwd=folder.parent)  # noqa: S603 - ours
        found: list[Outcome] = json.loads(report.read_text()) if report.exists() else []
        return found


def classify(outcome: Outcome, known: Any = ()) -> tuple[str, str]:
    """Return the column of an outcome, and the rule or the message behind it.

    Args:
        outcome: The outcome.
        known: The cases that fail with PEFT's own names.
    """
    kind, message = outcome["outcome"], outcome["message"]
    if kind != "failed":
        return kind, ""
    if re.search(DOWNLOADS, message):
        return "needs a download", ""
    if outcome["case"] in known:
        return "fails in PEFT too", ""
    for rule, pattern in BY_DESIGN.items():
        if re.search(pattern, f"{outcome['case']}\n{message}"):
            return "by design", rule
    lines = [line for line in message.strip().splitlines() if line.strip()] or [""]
    return "failed", lines[0] if lines[0].startswith("E ") or len(lines) == 1 else f"{lines[0]} {lines[-1]}"


def describe(outcomes: list[Outcome], known: Any = ()) -> str:
    """Return the table of all outcomes by file, the rules with their counts, and the failures by message."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    rules: Counter[str] = Counter()
    failures: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        column, why = classify(outcome, known)
        file, _, case = outcome["case"].partition("::")
        table[file.rpartition("/")[2]][column] += 1
        if re.search(STRICT, outcome["case"].partition("[")[0]):
            table["of these, saving, loading and names"][column] += 1
        if column == "by design":
            rules[why] += 1
        if column == "failed":
            failures[why[:180]].append(case)
    lines = [f"| file | {' | '.join(COLUMNS)} | passed of judged |", "| --- |" + " ---: |" * (len(COLUMNS) + 1)]
    for file, counts in table.items():
        judged = counts["passed"] + counts["failed"] + counts["by design"]
        share = f"{100 * counts['passed'] / judged:.1f}%" if judged else ""
        lines.append(f"| {file} | {' | '.join(str(counts[each]) for each in COLUMNS)} | {share} |")
    lines += ["", *(f"by design, {rule}: {count}" for rule, count in rules.most_common())]
    for message, cases in sorted(failures.items(), key=lambda pair: -len(pair[1])):
        lines += [f"{len(cases):4d}  {message}", *(f"        {case[:150]}" for case in cases[:3])]
    return "\n".join(lines)


# The plugin of pytest, in the process that runs the files


class Names(ModuleType):
    """A module of PEFT as the test files see it: with loradar's object for every name that loradar has too."""

    def __init__(self, module: ModuleType, ours: dict[str, object]) -> None:
        super().__init__(module.__name__, module.__doc__)
        self.__dict__.update(__path__=getattr(module, "__path__", []), __spec__=module.__spec__)
        self.__dict__["_seen"] = module, ours

    def __getattr__(self, name: str) -> object:
        module, ours = self.__dict__["_seen"]
        if name in ours and hasattr(module, name):
            return ours[name]
        try:
            return getattr(module, name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return type(name, (), {"__doc__": "A class of a later version of PEFT."})


class Missing(ModuleType):
    """A package that is not installed; of ``parameterized``, there is ``expand``."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    @staticmethod
    def expand(cases: Any) -> Any:
        """Return a decorator that runs a test once for each case."""

        def decorate(test: Any) -> Any:
            names = [*inspect.signature(test).parameters][1:]
            return pytest.mark.parametrize(names, [case if len(names) > 1 else case[0] for case in cases])(test)

        return decorate


OUTCOMES: list[Outcome] = []


def pytest_configure() -> None:
    """Replace PEFT's names within the test files, and the packages that are not installed."""
    import peft  # noqa: PLC0415 - seconds, for the runner itself

    import loradar  # noqa: PLC0415

    is_ours = os.environ.get(NAMES) == "loradar"
    ours = {name: getattr(loradar, name) for name in loradar.__all__ if is_ours and hasattr(peft, name)}
    original = builtins.__import__

    def importing(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> ModuleType:  # noqa: A002
        is_test = str((globals or {}).get("__name__", "")).startswith("tests.")
        if is_test and name in MISSING and find_spec(name) is None:
            return Missing(name)
        module = original(name, globals, locals, fromlist, level)
        return Names(module, ours) if is_test and level == 0 and name.partition(".")[0] == "peft" else module

    builtins.__import__ = importing


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Keep the cases of LoRA and IA3."""
    if (utilities := sys.modules.get("tests.testing_utils")) is not None:
        utilities._HUB_MODEL_ACCESSES = defaultdict(int, dict.fromkeys(MODELS, 1))  # seen before: the hub stays alone
    kept = [item for item in items if is_of_method(item)][:: int(os.environ.get(EVERY, "1"))]
    config.hook.pytest_deselected(items=[item for item in items if item not in {*kept}])
    items[:] = kept


def is_of_method(item: Any) -> bool:
    """Return whether a case is about LoRA or IA3 and no other method: by its parameters, else by the names it uses."""
    import peft  # noqa: PLC0415 - seconds, for the runner itself

    own = {"LoraConfig", "IA3Config"}
    others = {name for name in dir(peft) if name.endswith("Config")} - own - {"PeftConfig"}
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    classes = [value if isinstance(value, type) else type(value) for value in parameters]
    configs = {each.__name__ for each in classes if each.__name__.endswith("Config")}
    if configs:
        return configs <= own
    used = names_used(item)
    return bool(used & own) and not used & others


def names_used(item: Any) -> set[str]:
    """Return the names in a test's source, in its fixtures' and in the methods of its class that it calls."""
    functions = [item.function, *(each[-1].func for each in item._fixtureinfo.name2fixturedefs.values())]
    found: set[str] = set()
    while functions:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(functions.pop())))
        except (OSError, TypeError, SyntaxError):
            continue
        new = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        new |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        methods = (getattr(item.cls, name, None) for name in new - found if item.cls)
        functions += [method for method in methods if inspect.isfunction(method)]
        found |= new
    return found


def pytest_runtest_logreport(report: Any) -> None:
    """Note the outcome of each case."""
    if report.when == "call" or report.outcome != "passed":
        crash = getattr(report.longrepr, "reprcrash", None)
        message = crash.message if crash else str(report.longrepr or "")
        OUTCOMES.append({"case": report.nodeid, "outcome": report.outcome, "message": message})


def pytest_collectreport(report: Any) -> None:
    """Note a file that cannot be read, as one failure."""
    if report.failed:
        last = str(report.longrepr).strip().rpartition("\n")[2]
        OUTCOMES.append({"case": report.nodeid, "outcome": "failed", "message": f"the file is not read: {last}"})


def pytest_sessionfinish() -> None:
    """Write the outcomes for the process that started this one."""
    Path(os.environ[REPORT]).write_text(json.dumps(OUTCOMES), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
