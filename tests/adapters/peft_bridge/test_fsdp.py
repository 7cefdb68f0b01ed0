"""Sharded models: accelerate's FSDP helpers save and load the adapter alone, in two processes on the CPU."""

import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import fsdp_utils
from torch import distributed, nn
from torch.distributed.fsdp import FullOptimStateDictConfig, FullStateDictConfig, StateDictType, fully_shard
from torch.distributed.fsdp import FullyShardedDataParallel as Fsdp

import loradar
from loradar import LoraConfig

PROCESSES, VERSIONS = 2, (1, 2)
UNHURRIED = timedelta(hours=1)
X = torch.arange(12.0).view(3, 4)


def adapted(*, is_new):
    """Return a model with an adapter, of the same base weights each time; a new one changes nothing yet."""
    torch.manual_seed(0)
    host = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return loradar.get_peft_model(host, LoraConfig(target_modules=["0", "2"], init_lora_weights=is_new)).eval()


def shard(model, version):
    """Return the model sharded as accelerate does: wrapped (1), or layer by layer in place (2)."""
    if version == 1:
        return Fsdp(model, use_orig_params=True, device_id=torch.device("cpu"))
    mesh = distributed.init_device_mesh("cpu", (PROCESSES,))
    for layer in (model.base_model.model[0], model.base_model.model[2], model):
        fully_shard(layer, mesh=mesh)
    return model


def run(rank, folder):
    """Save the adapter of sharded models by accelerate, and load it into others; write what both compute."""
    store = distributed.FileStore(f"{folder}/store", PROCESSES)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES, timeout=UNHURRIED)
    PartialState(cpu=True)  # its loggers want one
    for version in VERSIONS:
        torch.save(go_through(rank, f"{folder}/{version}", version), f"{folder}/{version}-{rank}.pt")
    distributed.destroy_process_group()


def go_through(rank, folder, version):
    """Return what the saved, the new and the loaded model compute."""
    accelerator = SimpleNamespace(
        num_processes=PROCESSES,
        process_index=rank,
        is_main_process=rank == 0,
        is_fsdp2=version == 2,
        wait_for_everyone=distributed.barrier,
    )
    plugin = SimpleNamespace(
        fsdp_version=version,
        sync_module_states=True,
        state_dict_type=StateDictType.FULL_STATE_DICT,
        state_dict_config=FullStateDictConfig(),
        optim_state_dict_config=FullOptimStateDictConfig(),
    )
    trained, new = shard(adapted(is_new=False), version), adapted(is_new=True)
    if version == 2:
        new = shard(new, version)
    saved, before = trained(X), new(X)
    fsdp_utils.save_fsdp_model(plugin, accelerator, trained, folder, adapter_only=True)
    distributed.barrier()
    if version == 2:
        fsdp_utils.load_fsdp_model(plugin, accelerator, new, folder, adapter_only=True)
    else:  # into a wrapped model, peft 0.21.2 itself loads nothing: it takes the wrapper's name for a path
        loradar.set_peft_model_state_dict(new, torch.load(f"{folder}/pytorch_model_fsdp.bin"))
    return {"saved": saved.detach(), "before": before.detach(), "loaded": new(X).detach()}


def test_an_adapter_goes_through_a_sharded_state_dict(tmp_path):
    """Every process computes with the loaded adapter what the plain model computes with the saved one."""
    command = [sys.executable, __file__, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank)]) for rank in range(PROCESSES)]  # noqa: S603 - ours
    assert [process.wait() for process in processes] == [0] * PROCESSES
    expected = adapted(is_new=False)(X).detach()
    for version in VERSIONS:
        for rank in range(PROCESSES):
            outputs = torch.load(tmp_path / f"{version}-{rank}.pt")
            torch.testing.assert_close(outputs["saved"], expected)
            torch.testing.assert_close(outputs["loaded"], expected)
            assert not torch.allclose(outputs["before"], expected)
    keys = torch.load(tmp_path / "1/pytorch_model_fsdp.bin").keys()
    assert keys == adapted(is_new=True).adapter_state().keys()


if __name__ == "__main__":
    run(int(sys.argv[2]), sys.argv[1])


class Mixed(nn.Module):
    """An attention, whose weights are read and not called, and a convolution of a class of its own."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.conv = Padded(8, 4, 3)

    def forward(self, x):
        """Return (3, 4, 5) for (5, 3, 8)."""
        read, _ = self.attention(x, x, x)
        return self.conv(read.permute(1, 2, 0))


class Padded(nn.Conv1d):
    """A forward of its own, which an adapter runs with the updated weight."""

    def forward(self, x):
        """Pad, and convolve."""
        return super().forward(nn.functional.pad(x, (1, 1)))


def test_a_sharded_layer_runs_with_the_updated_weight():
    """FSDP's gathered values hide the parameters that functional_call exchanges: the update was lost without a word."""
    torch.manual_seed(0)
    x = torch.randn(5, 3, 8)
    config = LoraConfig(target_modules=["attention", "conv"], init_lora_weights=False)
    model = loradar.get_peft_model(Mixed(), config).eval()
    expected = model(x)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1, timeout=UNHURRIED)
    try:
        with pytest.warns(UserWarning, match="NO_SHARD"):  # one process has nothing to shard
            sharded = Fsdp(model, use_orig_params=True, device_id=torch.device("cpu"))
        with torch.no_grad():
            torch.testing.assert_close(sharded(x), expected)
        sharded(x).sum().backward()
        assert all(each.grad is not None for name, each in model.named_parameters() if "lora_" in name)
    finally:
        distributed.destroy_process_group()
