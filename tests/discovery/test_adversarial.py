"""Hostile modules end in a clear error or a plain result, in time, and no module is changed by being scanned."""

import json
import multiprocessing
import re
import threading
import time

import pytest
import torch
import zoo
from edge_zoo import Found, MisnamedBlock, Stack
from hostile_zoo import (
    ODD_NAMES,
    AnswersEverything,
    ConfigIsMock,
    Contrary,
    EndlessProperty,
    Everything,
    FreshModelEveryTime,
    HostileError,
    Mock,
    OwnChild,
    Plain,
    Raises,
    RaisingProperty,
    RecursesForever,
    Returns,
    SleepsForever,
    SpinsForever,
    Unfinished,
    Vandal,
    deep_nest,
    many_layers,
    oddly_named,
)
from patience import patience

from loradar.discovery import scan
from loradar.discovery.meta_run import running
from loradar.errors import LoradarError, ScanFailed

PRESETS = ("default", "attention", "mlp", "all-linear")
INPUTS = (torch.zeros(2, 8),)


def outcome(make, **options):
    """Return what became of a scan: its method and its layers' paths, or the class and text of its error.

    For a process of its own: all forwards together are given two seconds.
    """
    running.SECONDS = 2.0
    try:
        result = scan(make(), **options)
    except LoradarError as error:
        return type(error).__name__, error.message
    except Exception as error:  # noqa: BLE001 - any other error is what these tests look for
        return "not ours", type(error).__name__
    return result.method, [layer.path for layer in result.layers]


def in_one_thread(make, **options):
    """The outcome in a forked child: threads of the parent's pool do not come along, and must not be waited for."""
    torch.set_num_threads(1)
    return outcome(make, **options)


def in_time(make, **options):
    """Return the outcome of a scan in a process of its own, which is ended when it hangs."""
    context = multiprocessing.get_context("fork")
    answer, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(in_one_thread(make, **options)), daemon=True)
    child.start()
    sender.close()
    try:
        assert answer.poll(patience()), f"the scan did not end within {patience():g} s"
        return answer.recv()
    except EOFError:
        child.join()
        pytest.fail(f"the scan ended its process with code {child.exitcode}")
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("method", ["names", "auto"])
@pytest.mark.parametrize(
    "kind", [AnswersEverything, ConfigIsMock, EndlessProperty, RaisingProperty, FreshModelEveryTime, OwnChild, Contrary]
)
def test_tricks_with_attributes_do_not_matter(kind, method):
    """Mocks for every name, endless properties, a module in itself: the layers are found, or one line says why not."""
    name, content = in_time(kind, method=method, example_inputs=INPUTS if method == "auto" else None)
    assert name in ("names", "dataflow", "ScanFailed")
    assert content == ["first", "second"] if name != "ScanFailed" else "\n" not in content


def test_a_layer_without_a_shape_is_no_trouble():
    """A lazy layer has no shape before its first call: a clear error, or the layers that have one."""
    name, content = in_time(Unfinished, example_inputs=INPUTS)
    assert name == "ScanFailed" or (name != "not ours" and {"first", "second"} <= set(content))


@pytest.mark.parametrize("kind", [SpinsForever, SleepsForever, RecursesForever])
def test_a_forward_without_end_is_ended(kind):
    """It computes, sleeps or recurses forever: the names are read instead, and asking for dataflow fails in a line."""
    assert in_time(kind, example_inputs=INPUTS) == ("names", ["first", "second"])
    name, message = in_time(kind, example_inputs=INPUTS, method="dataflow")
    assert name == "ScanFailed"
    assert "\n" not in message


def test_a_forward_without_end_is_ended_in_a_thread_too():
    """No signal reaches a thread, yet a forward that computes forever can be stopped where it calls torch."""

    def scan_in_thread():
        thread = threading.Thread(target=scan, args=(SpinsForever(),), kwargs={"example_inputs": INPUTS}, daemon=True)
        thread.start()
        thread.join(patience() / 2)
        if thread.is_alive():
            raise ScanFailed("The thread is still running.")
        return Plain()

    assert in_time(scan_in_thread, method="names")[0] == "names"


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        GeneratorExit(),
        RuntimeError("two\nlines"),
        MemoryError(),
        RecursionError(),
        StopIteration(),
        AssertionError(),
        BaseException("bare"),
        HostileError(),
        LoradarError("one of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_forward_raises_ends_in_one_line(error):
    """SystemExit and its like do not end the process; by dataflow alone there is one error with one line."""
    assert in_time(lambda: Raises(error), example_inputs=INPUTS) == ("names", ["first", "second"])
    with pytest.raises(ScanFailed) as caught:
        scan(Raises(error), example_inputs=INPUTS, method="dataflow")
    assert "\n" not in caught.value.message


def kind_of_value(value):
    """Name a value by its kind: a representation may hold an address, and workers must agree on names."""
    inside = ", ".join(type(item).__name__ for item in value) if isinstance(value, tuple) else ""
    return f"{type(value).__name__}({inside})"


@pytest.mark.parametrize("value", [None, Mock(), object(), [], {"a": [None]}, "text", iter(())], ids=kind_of_value)
def test_whatever_a_forward_returns_is_taken(value):
    """It ran, so both layers were called."""
    found = Found(Returns(value), example_inputs=INPUTS)
    assert [found.one(path, "called") for path in ("first", "second")] == [True, True]


@pytest.mark.parametrize(
    "inputs", [(), (None,), ("text",), (torch.zeros(2, 3),), {"nothing": 1}, 7, (Mock(),)], ids=kind_of_value
)
def test_inputs_that_do_not_fit_are_named(inputs):
    """Example inputs are the user's word: if they do not fit, the names are read, or one line says what is wrong."""
    name, content = in_time(Plain, example_inputs=inputs)
    assert name in ("names", "dataflow", "ScanFailed", "InvalidRequest")
    assert name in ("names", "dataflow") or "\n" not in content


# --- left as found -------------------------------------------------------------------------------------------------


@pytest.fixture
def process():
    """Put back what a vandal changes for the whole process, if a scan fails to."""
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    yield
    torch.set_rng_state(state)
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(True)


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("method", ["names", "auto"])
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("trains", [False, True])
def test_a_vandal_is_put_back(device, method, raises, trains):
    """Buffers, attributes, hooks, flags, modules, modes and random states are as before, also when it raises."""
    with torch.device(device):
        model = Vandal(raises=raises).train(trains)
    model.first.weight.requires_grad_(requires_grad=False)
    before = Everything(model)
    scan(model, example_inputs=INPUTS if method == "auto" else None, method=method)
    assert before.differences(Everything(model)) == []


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("raises", [False, True])
def test_a_vandal_is_put_back_by_dataflow_alone(raises):
    """The same where the trace is all that was asked for, and an error leaves the scan."""
    model = Vandal(raises=raises)
    before = Everything(model)
    if raises:
        with pytest.raises(ScanFailed):
            scan(model, example_inputs=INPUTS, method="dataflow")
    else:
        assert scan(model, example_inputs=INPUTS, method="dataflow").method == "dataflow"
    assert before.differences(Everything(model)) == []


@pytest.mark.parametrize(
    "specimen", [zoo.gpt2, zoo.bert, zoo.llama, zoo.t5, zoo.vit, zoo.resnet, zoo.attention, zoo.words]
)
def test_real_models_are_left_as_found(specimen):
    """Weights, buffers, configuration and random state are the same, and so is what the model answers."""
    made = specimen()
    made.model.train()
    config = getattr(made.model, "config", None)
    before, fields = Everything(made.model), config and config.to_dict()
    made.model.eval()
    answer = made()
    made.model.train()
    scan(made.model)
    assert before.differences(Everything(made.model)) == []
    assert fields == (config and config.to_dict())
    assert torch.equal(made(made.model.eval()), answer)


@pytest.mark.usefixtures("process")
def test_a_scan_can_be_repeated():
    """The second scan finds what the first did."""
    model = Vandal()
    first, second = (scan(model, example_inputs=INPUTS).to_dict() for _ in "ab")
    assert first == second


def test_inputs_are_left_as_found():
    """Example inputs are neither moved nor changed."""
    inputs = (torch.ones(1, 5, 32),)
    scan(Stack(MisnamedBlock), example_inputs=inputs)
    assert torch.equal(inputs[0], torch.ones(1, 5, 32))


# --- names and numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["names", "auto"])
@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_odd_names_are_kept_and_hit_exactly(name, method):
    """Quotes, spaces, other scripts and characters that mean something in a regex are part of the name."""
    found = Found(oddly_named(name), method=method, example_inputs=None if method == "names" else INPUTS)
    assert [layer.path for layer in found.scan.layers][:2] == [f"blocks.0.{name}", "blocks.0.plain"]
    assert json.loads(json.dumps(found.data)) == found.data
    for proposal in found.scan.proposals:
        hit = found.hits_of(proposal.spec)
        assert len(hit) == proposal.matched
        assert hit <= {layer.path for layer in found.scan.layers}


def test_targets_of_odd_names_run_in_linear_time():
    """A regex made from a hostile name is literal: it compiles and does not backtrack."""
    found = Found(oddly_named("(a+)+$"), method="names")
    for proposal in found.scan.proposals:
        targets = proposal.spec.target_modules
        regex = targets if isinstance(targets, str) else "|".join(map(re.escape, targets or ()))
        started = time.thread_time()
        re.fullmatch(regex, "blocks.0." + "a" * 5000 + "!")
        assert time.thread_time() - started < 0.5


@pytest.mark.parametrize(("method", "count"), [("names", 30_000), ("auto", 6_000)])
def test_thousands_of_layers_are_scanned(method, count):
    """Time grows with the number of layers, not with its square, which would not end."""
    inputs = (torch.zeros(1, 4, device="meta"),) if method == "auto" else None
    name, paths = in_time(lambda: many_layers(count), method=method, example_inputs=inputs)
    assert name in ("names", "dataflow")
    assert len(paths) == count


def test_layers_nested_too_deep_end_in_a_clear_error():
    """Even torch cannot walk a module of two thousand levels."""
    name, content = in_time(lambda: deep_nest(2000), method="names")
    assert name == "ScanFailed" or (name == "names" and len(content) == 1)
