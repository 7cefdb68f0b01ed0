"""The package loradar-data: built from a few architectures, it answers as the registry does, and needs nothing."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from loradar.registry import Registry
from loradar.registry.answers.data_writing import write_data
from loradar.settings import Settings

ROOT = Path(__file__).parent.parent
FIELDS = ("target_modules", "exclude_modules", "modules_to_save", "target_parameters", "rank_pattern")
WANTED = ("transformers:llama", "transformers:qwen3_moe", "timm:resnet50", "diffusers:UNet2DConditionModel")


@pytest.fixture(scope="module")
def package(tmp_path_factory, seeded):
    """The wheel, unpacked: its folder."""
    source, out = tmp_path_factory.mktemp("source") / "data-package", tmp_path_factory.mktemp("unpacked")
    shutil.copytree(ROOT / "data-package", source)
    with Registry.open(Settings(out, f"sqlite:///{seeded}")) as registry:
        write_data(registry, source / "loradar_data", WANTED)
    (source / "VERSION").write_text("2026.11.29\n")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("loradar_data-2026.11.29-*.whl")
    zipfile.ZipFile(wheel).extractall(out)
    return out


def ask(package, expression):
    """Return the value of an expression in a Python that has the package and no other."""
    code = f"import json, sys; sys.path.insert(0, {str(package)!r}); import loradar_data as d"
    code += f"; print(json.dumps({expression}))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def answers(package):
    """Every answer of the package, by reference and choice."""
    return ask(package, "{r: {c: d.lookup(r, *c.split('/')) for c in d.choices(r)} for r in d.references()}")


def test_every_answer_is_that_of_the_registry(answers, read_settings):
    """Targets, sizes and outcomes of the check, for each method and preset."""
    assert sorted(answers) == sorted(WANTED)
    with Registry.open(read_settings) as registry:
        for reference, found in answers.items():
            assert {"LORA/default", "LORA/recommended"} <= found.keys()
            for choice, answer in found.items():
                mapping = registry.lookup(reference, *choice.split("/"))
                for field in (
                    "target_modules",
                    "exclude_modules",
                    "modules_to_save",
                    "target_parameters",
                    "rank_pattern",
                ):
                    stated = getattr(mapping, field)
                    assert answer.get(field) == (list(stated) if isinstance(stated, tuple) else stated), (choice, field)
                assert (answer["matched"], answer["per_rank"]) == (mapping.matched, mapping.per_rank)
                assert answer["status"] == (mapping.verification.status if mapping.verification else None)


def test_names_are_found(package):
    """Types, references and classes; what is unknown has near names."""
    found = ask(package, "[d.lookup(n)['name'] for n in ('llama', 'timm:resnet50', 'resnet50', 'LlamaForCausalLM')]")
    assert found == ["llama", "resnet50", "resnet50", "llama"]
    assert ask(package, "d.lookup('llama', library='transformers')['library_version']") == "5.24.0"
    assert ask(package, "d.__version__") == "2026.11.29"
    for query, words in {
        "'lama'": "near: llama",
        "'llama', 'LORRA'": "it has LORA/default",
        "'x', library='y'": "unknown library",
    }.items():
        with pytest.raises(AssertionError, match=words):
            ask(package, f"d.lookup({query})")


def test_the_files_are_what_the_readme_says(package):
    """For programs in other languages."""
    readme = (ROOT / "data-package" / "README.md").read_text("utf-8")
    for library in ("transformers", "timm", "diffusers"):
        content = json.loads((package / "loradar_data" / f"{library}.json").read_text("utf-8"))
        for name in content:
            assert f"`{name}`" in readme
        for entry in content["architectures"].values():
            assert entry.keys() == {"class", "choices", "rows"}
            assert all(len(row) == 5 for row in entry["rows"])
