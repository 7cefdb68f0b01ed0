"""The table that a notebook shows of a model with adapters."""

from dataclasses import replace

from zoo import llama

from loradar.adapters import IA3Config, LoraConfig, get_peft_model


def test_a_model_shows_its_adapters():
    """A row of each, with its size and whether it is active."""
    model = get_peft_model(llama().model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
    html = model._repr_html_()
    assert ">LlamaForCausalLM · targets given in the configuration</caption>" in html
    first, second = html.partition("<tbody>")[2].split("</tr>")[:2]
    layers = len(model.targeted_module_names)
    size = sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert cells(first) == ["default", "LORA", "4", str(layers), f"{size:,}", "yes"]
    assert (cells(second)[:4], cells(second)[5]) == (["second", "LORA", "2", str(layers // 2)], "no")
    model.delete_adapter("second")
    model.delete_adapter("default")
    assert "<tbody></tbody>" in model._repr_html_()


def test_a_method_without_a_rank_has_none():
    """IA3; and what a registry says stays text."""
    model = get_peft_model(llama().model, IA3Config(target_modules=["k_proj"], feedforward_modules=[]))
    model.decision = replace(model.decision, says="<script>")
    html = model._repr_html_()
    assert cells(html.partition("<tbody>")[2])[:3] == ["default", "IA3", ""]
    assert "<script>" not in html


def cells(row):
    """Return the texts of a row's cells."""
    return [cell.rpartition(">")[2] for cell in row.split("</td>")[:-1]]
