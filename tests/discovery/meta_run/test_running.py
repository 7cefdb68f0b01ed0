"""Running a model's own forward."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from patience import patience
from torch import nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from loradar.discovery.meta_run import conditions
from loradar.discovery.meta_run.conditions import OutOfTime, TimeLimit, time_limit, weights_on_cpu, weights_on_meta
from loradar.discovery.meta_run.running import Run, run_model


class Watcher:
    """Count the forwards and collect errors and devices."""

    def __init__(self):
        """Nothing seen yet."""
        self.entered, self.errors, self.devices = 0, [], set()

    def __call__(self, forward):
        """Watch one attempt."""
        self.entered += 1
        watcher = self

        class Mode(TorchFunctionMode):
            def __torch_function__(self, func, types, args=(), kwargs=None):
                result = func(*args, **(kwargs or {}))
                if isinstance(result, torch.Tensor):
                    watcher.devices.add(result.device.type)
                return result

        try:
            with Mode():
                forward()
        except BaseException as error:
            self.errors.append(error)
            raise


@pytest.fixture
def watcher():
    """A fresh watcher."""
    return Watcher()


class Net(nn.Module):
    """A user's own class without configuration."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.stem = nn.Conv2d(5, 8, 4, stride=4)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        """Classify an image of five channels."""
        return self.fc(self.stem(x).mean((2, 3)))


class Refuses(nn.Module):
    """Raises the error it was given."""

    def __init__(self, error):
        """Keep the error; own a block."""
        super().__init__()
        self.error = error
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 4))])

    def forward(self, x):
        """Raise."""
        del x
        raise self.error


class Endless(nn.Module):
    """Never returns, and swallows exceptions."""

    def __init__(self, wait):
        """Keep the function to call meanwhile."""
        super().__init__()
        self.wait = wait
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        """Loop."""
        del x
        while True:
            try:
                self.wait()
            except Exception:  # noqa: BLE001, S112 - what models do
                continue


class Recursing(nn.Module):
    """Calls itself."""

    def forward(self, x):
        """Never get anywhere."""
        return self.forward(x)


class Towers(nn.Module):
    """Two towers that are never used together."""

    def __init__(self):
        """Build them."""
        super().__init__()
        self.first = nn.ModuleDict({"layers": nn.ModuleList([nn.Sequential(nn.Linear(6, 6)) for _ in range(2)])})
        self.second = Tower()

    def forward(self, x):
        """Use none."""
        return x * 2


class Tower(nn.Module):
    """A stack of blocks."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(7, 7)) for _ in range(2)])

    def forward(self, states):
        """Call each."""
        for layer in self.layers:
            states = layer(states)
        return states


def small(model_class, config):
    """Build on meta."""
    with torch.device("meta"):
        return model_class(config)


def test_a_live_model_runs_on_meta_and_is_not_computed_with(watcher):
    """Weights on the CPU stay out of it."""
    model = Net()
    weight = model.fc.weight
    runs = run_model(model, watcher)
    assert runs[-1] == Run("", ("x",), "meta", None)
    assert watcher.entered == len(runs)
    assert watcher.devices == {"meta"}
    assert model.fc.weight is weight


def test_both_sides_of_an_encoder_decoder_run(watcher):
    """One forward reaches encoder and decoder."""
    sizes = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 2, "vocab_size": 64}
    model = small(T5ForConditionalGeneration, T5Config(**sizes))
    (run,) = run_model(model, watcher)
    assert run.error is None
    assert set(run.inputs) >= {"input_ids", "decoder_input_ids"}


def test_every_tower_runs_at_once(watcher):
    """Text and image are given together."""
    text = CLIPTextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    model = small(CLIPModel, CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
    (run,) = run_model(model, watcher)
    assert run == Run("", ("input_ids", "pixel_values", "attention_mask"), "meta", None)


def test_experts_run_without_asking_which_tokens_go_where(watcher):
    """The implementation is chosen for the run only."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = MixtralConfig(**sizes, num_hidden_layers=2, num_local_experts=4, vocab_size=64)
    model = small(MixtralForCausalLM, config)
    before = dict(vars(model.config))
    (run,) = run_model(model, watcher)
    assert run.error is None
    assert vars(model.config) == before


def test_unreached_parts_are_run_alone(watcher):
    """A stack that has a forward is run as a whole; of blocks that have none around them one stands for its kind."""
    runs = [run for run in run_model(Towers(), watcher) if run.error is None]
    assert [run.path for run in runs] == ["", "first.layers.0", "second"]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), GeneratorExit(), RecursionError("deep")])
def test_any_error_of_a_forward_is_recorded(watcher, error):
    """The run has it in one line, and the watcher sees it."""
    runs = run_model(Refuses(error), watcher)
    assert runs[0].error.startswith(type(error).__name__)
    assert watcher.errors[0] is error
    assert runs[-1] == Run("layers.0", ("input",), "meta", None) or any(run.path for run in runs)


def test_an_interrupt_by_the_user_is_passed_on(watcher):
    """Ctrl-C is none of the model's errors."""
    model = Refuses(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_model(model, watcher)
    assert not _get_current_function_mode_stack()
    assert model.training


def test_endless_recursion_is_recorded(watcher):
    """Python's limit ends it."""
    assert "RecursionError" in run_model(Recursing(), watcher)[0].error


@pytest.fixture
def endless(monkeypatch):
    """Make an endless model on a clock that stands still until its forward has begun, and has run out then."""
    begun = threading.Event()

    def make(wait):
        def begin():
            begun.set()
            wait()

        return Endless(begin)

    clock = SimpleNamespace(**{**vars(time), "monotonic": lambda: 1e9 * begun.is_set()})
    monkeypatch.setattr(conditions, "time", clock)
    return make


@pytest.mark.parametrize("wait", [lambda: None, lambda: time.sleep(1000), lambda: torch.zeros(2)])
def test_a_forward_that_never_ends_is_interrupted(watcher, endless, wait):
    """In the main thread, also while it sleeps or swallows exceptions."""
    runs = run_model(endless(wait), watcher, seconds=0.3)
    assert "OutOfTime: The forward did not end" in runs[-1].error


def test_a_forward_that_never_ends_is_interrupted_in_any_thread(watcher, endless):
    """A server scans in threads."""
    model = endless(lambda: None)
    with ThreadPoolExecutor(1) as pool:
        runs = pool.submit(run_model, model, watcher, seconds=0.3).result(patience())
    assert "OutOfTime" in runs[-1].error


def test_a_time_limit_that_is_kept_leaves_no_trace():
    """No alarm rings later, and the one there was is set again."""
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(TimeLimit(patience())):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before
    with pytest.raises(OutOfTime), time_limit(TimeLimit(0.05)):
        time.sleep(patience())


def test_other_programs_take_no_time_from_a_forward(monkeypatch):
    """On a busy machine a second of a forward takes several; without end it waits for none."""
    limit = TimeLimit(1.0)
    start = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start + 2.0)
    assert limit.left > 0
    monkeypatch.setattr(time, "monotonic", lambda: start + 4.0)
    assert limit.left <= 0


def test_example_inputs_stand_for_made_ones(watcher):
    """Named, positional or a single tensor; on meta as well."""
    image = torch.zeros(1, 5, 8, 8)
    for example in (image, (image,), {"x": image}):
        assert run_model(Net(), watcher, example) == (Run("", ("x",), "meta", None),)
    assert watcher.devices == {"meta"}


def test_example_inputs_that_meta_refuses_run_for_real(watcher):
    """On the device the model is on."""

    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            if self.linear(x).device.type == "meta":
                raise NotImplementedError("not on meta")
            return x

    runs = run_model(Asks(), watcher, torch.ones(2, 3))
    assert [(run.device, run.error is None) for run in runs] == [("meta", False), ("cpu", True)]


def test_a_model_that_meta_refuses_runs_on_the_cpu(watcher):
    """With weights of zeros, in half precision."""

    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            result = self.linear(x)
            if result.device.type == "meta":
                raise NotImplementedError("not on meta")
            return result

    model = Asks()
    runs = run_model(model, watcher)
    assert runs[-1] == Run("", ("x",), "cpu", None)
    assert model.linear.weight.dtype == torch.float32


def test_a_model_without_a_forward_is_run_in_parts(watcher):
    """Codecs have encode and decode only."""

    class Codec(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Tower()

    runs = run_model(Codec(), watcher)
    assert runs[0] == Run("", (), "meta", "Codec has no forward.")
    assert any(run.path == "encoder" and run.error is None for run in runs)


def test_a_result_of_names_is_asked_for_again(watcher):
    """Composites unpack the results of their parts, of which a mapping gives the names of its fields."""

    class Composite(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x, *, return_dict: bool = True):
            first, second = {"a": self.linear(x), "b": x} if return_dict else (self.linear(x), x)
            return first, second

    runs = run_model(Composite(), watcher)
    assert runs[0].error == "TypeError: The forward returned names instead of tensors."
    assert runs[1].error is None
    assert len(runs) == 2


def test_an_input_named_like_what_was_not_reached_is_added(watcher):
    """A second modality that a forward does without."""

    class Seeing(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = CLIPVisionConfig(audio_in_channels=6)
            self.linear = nn.Linear(768, 96)
            self.audio_embeddings = nn.Linear(6, 96)

        def forward(self, hidden_states, audio_hidden_states=None):
            seen = self.linear(hidden_states)
            return seen if audio_hidden_states is None else (seen, self.audio_embeddings(audio_hidden_states))

    runs = run_model(Seeing(), watcher)
    assert [run.inputs for run in runs if run.error is None][-1] == ("hidden_states", "audio_hidden_states")


def test_shared_tensors_stay_shared_on_meta():
    """A tie must be seen by whoever watches."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    weight = model[0].weight
    for replace in (weights_on_meta, weights_on_cpu):
        with replace(model):
            assert model[0].weight is model[1].weight
            assert model[0].weight is not weight
        assert model[0].weight is model[1].weight is weight


def test_an_error_whose_text_raises_is_recorded_by_its_name(watcher):
    """Nothing of a foreign model is trusted."""

    class Mute(Exception):
        def __str__(self):
            raise ValueError("no text")

    assert run_model(Refuses(Mute()), watcher)[0].error == "Mute"
