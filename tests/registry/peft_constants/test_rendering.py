"""The registry's answers as a Python file, and as rows of PEFT's support matrix."""

import subprocess
import sys

from constants_zoo import mapping

from loradar.domain.architectures import Architecture
from loradar.domain.mappings import ArchitectureSummary
from loradar.registry import (
    ExportOptions,
    constants_python,
    export_constants,
    load_constants,
    parse_constants,
    support_rows,
)
from loradar.registry.peft_constants.reading import peft_type_of

LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
VERA = "TRANSFORMERS_MODELS_TO_VERA_TARGET_MODULES_MAPPING"
IA3 = "TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING"
FEEDFORWARD = "TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING"


def read(source):
    """Return the tables of a source."""
    return parse_constants(source.encode(), "1.0", "ours.py").tables


def test_pefts_stored_entries_come_back_whole(registry):
    """Every table of targets, and what IA3 scales at the input, as the seed has them."""
    found = read(constants_python(registry.list_mappings("transformers")))
    tables = load_constants().tables
    expected = {name: table for name, table in tables.items() if peft_type_of(name) or name == FEEDFORWARD}
    assert found == expected


def test_what_is_proved_is_added_and_the_rest_is_not():
    """For every method of the family; PEFT's own entries stay what they are."""
    peft = mapping("llama", "q_proj", kind="peft")
    ia3 = mapping("olmo2", "k", "fc2", peft_type="IA3", feedforward_modules=("fc2",))
    source = constants_python([peft, mapping("llama"), mapping(), ia3, mapping("x", status="unproven")])
    found = read(source)
    assert found[LORA] == {"llama": ["q_proj"], "olmo2": ["q_proj", "v_proj"]}
    assert found[VERA] == {"llama": ["q_proj", "v_proj"], "olmo2": ["q_proj", "v_proj"]}  # PEFT's is for LoRA alone
    assert (found[IA3], found[FEEDFORWARD]) == ({"olmo2": ["k", "fc2"]}, {"olmo2": ["fc2"]})
    assert "PEFT's entries are those of 0.21.2" in source


def test_ours_alone_leaves_pefts_entries_out():
    """Both kinds of the file add up to the whole."""
    mappings = [mapping("llama", "q_proj", kind="peft"), mapping()]
    whole, ours = (read(constants_python(mappings, only_ours=only)) for only in (False, True))
    assert ours[LORA] == {"olmo2": ["q_proj", "v_proj"]}
    assert whole[LORA] == {"llama": ["q_proj"]} | ours[LORA]


def test_the_file_is_imported_without_peft(tmp_path):
    """By an interpreter that sees no package at all; a table that says the same as another is its copy, not it."""
    (tmp_path / "ours.py").write_text(constants_python([mapping()]), encoding="utf-8")
    code = f"import sys; sys.path.insert(0, '.'); import ours; print(ours.{VERA}, ours.{VERA} is ours.{LORA})"
    done = subprocess.run([sys.executable, "-ISc", code], cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert done.stdout == "{'olmo2': ['q_proj', 'v_proj']} False\n"


def architecture(name, class_name):
    """Return what the list of architectures says of one."""
    found = Architecture("transformers", name, class_name, "5.24.0", None, None)
    return ArchitectureSummary(found, ("scanner",), ("LORA",), ("default",))


def rows(mappings, architectures, **wish):
    """Return the rows for a file that has empty tables."""
    source = f"{LORA} = {{}}\n{IA3} = {{}}\n{FEEDFORWARD} = {{}}\n".encode()
    return support_rows(export_constants(source, mappings, ExportOptions(**wish)).plan, architectures)


def test_rows_stand_under_their_task_with_a_mark_per_proved_method():
    """In the form of PEFT's README; prompt learning was not tried, so nothing is claimed of it."""
    known = [architecture("olmo2", "Olmo2ForCausalLM"), architecture("vit", "ViTForImageClassification")]
    found = rows([mapping(), mapping(peft_type="IA3"), mapping("vit")], known)
    assert found == (
        "### Causal Language Modeling\n"
        "|   Model         | LoRA | Prefix Tuning | P-Tuning | Prompt Tuning | IA3 |\n"
        "| --------- | ---- | ---- | ---- | ---- | ---- |\n"
        "| Olmo2          | ✅  |    |    |    | ✅  |\n"
        "\n"
        "### Image Classification\n"
        "|   Model         | LoRA | Prefix Tuning | P-Tuning | Prompt Tuning | IA3 |\n"
        "| --------- | ---- | ---- | ---- | ---- | ---- |\n"
        "| ViT            | ✅  |    |    |    |    |\n"
    )


def test_an_architecture_without_a_task_is_listed_all_the_same():
    """Under its model type if nobody knows its class; what gets no mark has no row."""
    found = rows([mapping("odd"), mapping("thing")], [architecture("odd", "OddModel")])
    assert found.splitlines()[0] == "### Other Models"
    assert [line.split()[1] for line in found.splitlines()[3:]] == ["Odd", "thing"]
    assert rows([mapping("odd", peft_type="OSF")], []) == ""
