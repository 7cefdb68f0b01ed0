"""Independence of the modes that the caller is inside of: adapters are the same, and can train, whatever they are."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def without_modes() -> Iterator[None]:
    """Leave torch's modes that change new tensors and products, for a ``with`` block or a function.

    In ``torch.inference_mode()`` new parameters could never train. An ambient device (``torch.device("meta")``), a
    default dtype and autocast change what functions that state none of them compute, such as PEFT's initialisers.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(mode=False))
            stack.enter_context(torch.no_grad())  # as it was
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        accelerator = torch.accelerator.current_accelerator()
        for kind in ("cpu",) if accelerator is None else ("cpu", accelerator.type):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if (dtype := torch.get_default_dtype()) != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
