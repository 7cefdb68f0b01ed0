"""What is exported into a constants.py, what is not and why; and that a patch is what it says."""

import subprocess
from dataclasses import replace

import pytest
from constants_zoo import mapping

from loradar.domain.architectures import ArchitectureName
from loradar.errors import ConstantsUnreadable, MissingExtra
from loradar.registry import ExportOptions, LeftOut, export_constants, installed_constants, parse_constants
from loradar.registry.peft_constants.export import Export, ExportPlan, apply_plan

LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
BOFT = "TRANSFORMERS_MODELS_TO_BOFT_TARGET_MODULES_MAPPING"
OSF = "TRANSFORMERS_MODELS_TO_OSF_TARGET_MODULES_MAPPING"
IA3 = "TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING"
FEEDFORWARD = "TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING"
FILE = f"""\
{LORA} = {{
    "llama": ["q_proj"],
    "gemma4": r".*(q_proj)",
}}
{BOFT} = {LORA}.copy()
{OSF} = {{
    "llama": ["q_proj"],
}}
{IA3} = {{}}
{FEEDFORWARD} = {{}}
"""


def export(*mappings, file=FILE, **wish):
    """Return the patch, and its tables with what was there taken out."""
    patch = export_constants(file.encode(), mappings, ExportOptions(**wish))
    before, after = (parse_constants(source, "", "constants.py").tables for source in (patch.before, patch.after))
    new = {
        table: {name: value for name, value in entries.items() if before[table].get(name) != value}
        for table, entries in after.items()
    }
    return patch, {table: entries for table, entries in new.items() if entries}


def test_a_proved_mapping_goes_into_its_table_and_its_copies():
    """The copy is not written to: it has the entry by itself."""
    patch, new = export(mapping())
    assert new == {table: {"olmo2": ["q_proj", "v_proj"]} for table in (LORA, BOFT)}
    assert [(one.table, one.name) for one in patch.plan.added] == [(LORA, "olmo2")]
    assert patch.diff().decode().count("\n+") == 2  # the entry, and the header


def test_ia3_gets_an_entry_in_both_of_its_tables():
    """Without feed-forward layers the second is empty, as PEFT has it for mt5."""
    _, new = export(
        mapping("a", "k", "v", "fc2", peft_type="IA3", feedforward_modules=("fc2",)), mapping("b", "k", peft_type="IA3")
    )
    assert new == {IA3: {"a": ["k", "v", "fc2"], "b": ["k"]}, FEEDFORWARD: {"a": ["fc2"], "b": []}}


REFUSED = [
    (mapping(status="unproven"), {}, "not proved on transformers 5.24.0"),
    (mapping(status=None), {}, "never checked"),
    (mapping(status="partial"), {"unproven": True}, "partial on transformers 5.24.0: q matches nothing"),
    (mapping(status="dead"), {"unproven": True}, "dead on transformers 5.24.0: q matches nothing"),
    (mapping(target_parameters=("experts.up",)), {}, "it needs target_parameters, which a table cannot express"),
    (mapping(exclude_modules="vision.*"), {}, "it needs exclude_modules, which a table cannot express"),
    (mapping(target_modules=None), {}, "it names no modules"),
]


@pytest.mark.parametrize(("refused", "wish", "reason"), REFUSED, ids=[reason for _, _, reason in REFUSED])
def test_what_a_table_cannot_hold_is_left_out_with_the_reason(refused, wish, reason):
    """Nothing is written, and the other architecture is."""
    patch, new = export(refused, mapping("olmo3"), **wish)
    assert patch.plan.left_out == (LeftOut(LORA, "olmo2", reason),)
    assert new[LORA] == {"olmo3": ["q_proj", "v_proj"]}


@pytest.mark.parametrize("status", ["unproven", None])
def test_unproven_mappings_are_exported_when_told(status):
    """Somebody who will try them."""
    assert export(mapping(status=status), unproven=True)[1][LORA] == {"olmo2": ["q_proj", "v_proj"]}


def test_a_regex_goes_only_where_peft_takes_one():
    """Never into IA3's table, nor into a file whose PEFT may be too old for one."""
    regex = r".*\.q_proj"
    lora, ia3 = mapping(target_modules=regex), mapping(peft_type="IA3", target_modules=regex)
    patch, new = export(lora, ia3)
    assert new[LORA] == {"olmo2": regex}
    assert [left.table for left in patch.plan.left_out] == [IA3]
    patch, new = export(lora, file=FILE.replace('r".*(q_proj)"', '["q_proj"]'))
    assert new == {}
    assert "no table of this file has one" in patch.plan.left_out[0].reason


def test_ia3_needs_its_second_table():
    """Half an entry would make PEFT ask for the other half; one that says otherwise already is not contradicted."""
    one = mapping(peft_type="IA3", feedforward_modules=("fc2",))
    patch, _ = export(one, file=FILE.replace(f"{FEEDFORWARD} = {{}}\n", ""))
    assert patch.plan.left_out == (LeftOut(IA3, "olmo2", f"there is no {FEEDFORWARD}"),)
    patch, new = export(one, file=FILE.replace(f"{FEEDFORWARD} = {{}}", f'{FEEDFORWARD} = {{"olmo2": ["fc1"]}}'))
    assert new == {}
    assert patch.plan.left_out == (LeftOut(IA3, "olmo2", f"{FEEDFORWARD} already has ['fc1']"),)


def test_what_peft_has_itself_is_not_exported():
    """Neither what the file has, in whatever branch, nor what a newer PEFT has."""
    file = FILE + f'if new:\n    {LORA}["olmo3"] = ["q_proj"]\n'
    patch, new = export(mapping("llama"), mapping("olmo3"), mapping("qwen9", kind="peft"), mapping("qwen9"), file=file)
    assert (new, patch.plan, patch.diff()) == ({}, ExportPlan(), b"")
    assert patch.after == patch.before


def test_a_reviewed_mapping_comes_before_a_scan():
    """The registry's own precedence."""
    _, new = export(mapping(), mapping("olmo2", "o_proj", kind="community"))
    assert new[LORA] == {"olmo2": ["o_proj"]}


def test_a_table_gets_what_answers_for_its_method():
    """OSF's family has its own mapping; other presets and libraries stay out."""
    mlp, timm = replace(mapping(), preset="mlp"), replace(mapping(), architecture=ArchitectureName("timm", "olmo2"))
    _, new = export(mapping("olmo2", "q_proj", "o_proj", peft_type="OSF"), mlp, timm)
    assert new == {OSF: {"olmo2": ["q_proj", "o_proj"]}}


def test_a_method_nobody_knows_is_passed_over():
    """An old file has a table for BONE, which PEFT has dropped; and tables of other things."""
    file = FILE + "TRANSFORMERS_MODELS_TO_BONE_TARGET_MODULES_MAPPING = {}\nTRANSFORMERS_MODELS_TO_X_MAPPING = {}\n"
    assert export(mapping(), file=file)[1].keys() == {LORA, BOFT}


@pytest.mark.parametrize(
    ("wish", "names", "tables"),
    [
        ({"names": frozenset({"b"})}, ("b",), {LORA, OSF}),
        ({"peft_types": frozenset({"OSF"})}, ("a", "b", "c"), {OSF}),
        ({"limit": 2}, ("a", "b"), {LORA, OSF}),
        ({"limit": 1, "usage": {"b": 5, "c": 9, "d": 99}}, ("c",), {LORA, OSF}),
        ({"limit": 9, "usage": {"b": 5, "c": 9}}, ("b", "c"), {LORA, OSF}),
    ],
)
def test_a_wish_narrows_what_is_exported(wish, names, tables):
    """By name, by method, by number."""
    every = [mapping(name, peft_type=method) for name in "cab" for method in ("LORA", "OSF")]
    patch, _ = export(*every, **wish)
    assert patch.plan.names == names
    assert {one.table for one in patch.plan.added} == tables


def test_dead_entries_are_corrected_when_told():
    """Where the file sets them; what it inherits it gets from the original, and nothing is touched unasked."""
    dead = [
        mapping("llama", "q_proj", status="dead", kind="peft", peft_type=method) for method in ("LORA", "BOFT", "OSF")
    ]
    ours = [mapping("llama"), mapping("llama", "o_proj", peft_type="OSF")]
    assert export(*dead, *ours)[1] == {}
    patch, new = export(*dead, *ours, correct=True)
    qv = {"llama": ["q_proj", "v_proj"]}
    assert new == {LORA: qv, BOFT: qv, OSF: {"llama": ["o_proj"]}}
    assert {(one.table, one.replaces) for one in patch.plan.corrected} == {(t, ("q_proj",)) for t in (LORA, BOFT, OSF)}
    assert patch.after.decode() == FILE.replace('"llama": ["q_proj"]', '"llama": ["q_proj", "v_proj"]', 1).replace(
        f'{OSF} = {{\n    "llama": ["q_proj"]', f'{OSF} = {{\n    "llama": ["o_proj"]'
    )


def test_a_correction_is_not_made_up():
    """Nothing changes without another mapping that holds, for an entry that is not the dead one, or in a copy alone."""
    dead = mapping("llama", "q_proj", status="dead", kind="peft")
    patch, new = export(dead, correct=True)
    assert (new, patch.plan.left_out[0].reason) == ({}, "dead, but not corrected: nothing else is known")
    other = replace(dead, target_modules=("x",))
    assert export(other, mapping("llama"), correct=True)[1] == {}
    patch, new = export(replace(dead, peft_type="BOFT"), mapping("llama"), correct=True)
    assert (new, [left.table for left in patch.plan.left_out]) == ({}, [BOFT])


def test_ia3_is_corrected_in_both_tables():
    """What is scaled at the input belongs to the targets."""
    file = FILE.replace(
        f"{IA3} = {{}}\n{FEEDFORWARD} = {{}}", f"{IA3} = {{'a': ['x']}}\n{FEEDFORWARD} = {{'a': ['x']}}"
    )
    dead = mapping("a", "x", status="dead", kind="peft", peft_type="IA3", feedforward_modules=("x",))
    ours = mapping("a", "k", "fc2", peft_type="IA3", feedforward_modules=("fc2",))
    assert export(dead, ours, file=file, correct=True)[1] == {IA3: {"a": ["k", "fc2"]}, FEEDFORWARD: {"a": ["fc2"]}}


def test_exporting_again_changes_nothing():
    """The patched file has it all."""
    every = [mapping(name, peft_type=method) for name in "ab" for method in ("LORA", "OSF", "IA3")]
    first, _ = export(*every)
    second, new = export(*every, file=first.after.decode())
    assert (new, second.after, second.diff()) == ({}, first.after, b"")


def test_a_patch_that_is_not_what_was_planned_is_refused():
    """A plan for another file would overwrite an entry of this one."""
    plan = ExportPlan(added=(Export.of(mapping("llama"), LORA, ("v_proj",)),))
    with pytest.raises(ConstantsUnreadable, match=r"does not read back as planned: .*\['llama'\] has changed"):
        apply_plan(FILE.encode(), plan, "constants.py")


def test_imported_tables_are_compared_entry_by_entry():
    """One changed, one gone, one too many, one missing, a table too many."""
    patch, _ = export(mapping())
    before, after = (parse_constants(source, "", "c.py").tables for source in (patch.before, patch.after))
    assert patch.differing(before, after) == ()
    changed = [
        {**after, LORA: after[LORA] | {"llama": ["x"]}},
        {**after, OSF: {}},
        {**after, OSF: after[OSF] | {"new": ["x"]}},
        {**after, LORA: before[LORA]},
        {**after, "TRANSFORMERS_MODELS_TO_X": {}},
    ]
    assert all(len(patch.differing(before, tables)) == 1 for tables in changed)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n"], ids=["no line end", "line end"])
def test_git_applies_the_diff(tmp_path, newline, end):
    """As it is, and to the very bytes of the patched file."""
    source = FILE.removesuffix("\n").replace("\n", newline) + end.replace("\n", newline)
    file = source.removesuffix(newline).rpartition(newline)[0] + newline + f"{FEEDFORWARD} = {{}}{end and newline}"
    patch, _ = export(mapping(), mapping("a", peft_type="IA3"), file=file)
    target = tmp_path / "src/peft/utils/constants.py"
    target.parent.mkdir(parents=True)
    target.write_bytes(patch.before)
    (tmp_path / "ours.diff").write_bytes(patch.diff())
    for command in (["init", "-q"], ["apply", "--check", "ours.diff"], ["apply", "ours.diff"]):
        subprocess.run(["git", "-c", "core.autocrlf=false", *command], cwd=tmp_path, check=True)  # noqa: S603, S607 - git
    assert target.read_bytes() == patch.after != patch.before


def test_without_libcst_the_extra_is_named(monkeypatch):
    """Writing needs it, reading does not."""
    monkeypatch.setattr("loradar.extras.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"'libcst' is not installed.*loradar\[peft\]"):
        export_constants(FILE.encode(), [])


def test_everything_in_the_installed_file_survives():
    """Entries for all of its own tables: every old line is still there, in its order."""
    path = installed_constants()
    methods = ("LORA", "OSF", "IA3", "LN_TUNING", "BEFT")
    every = [mapping(f"new_{number}", peft_type=method) for number in range(30) for method in methods]
    patch = export_constants(path.read_bytes(), every, path=str(path))
    before, after = patch.before.splitlines(), iter(patch.after.splitlines())
    assert all(line in after for line in before)
    assert len(patch.after.splitlines()) == len(before) + 30 * 9
