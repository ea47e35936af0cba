"""Static int8: what is stored, what is executed, and what each parameter does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from netzip_mlflow import runtimes
from netzip_mlflow.deployable import Deployable
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics.graph import Graph
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.techniques.ptq import PTQ
from netzip_mlflow.twin import Architecture, InputSpec, Twin


@pytest.fixture(scope="module")
def made(twin: Twin, context: Context) -> Deployable:
    return PTQ().apply(twin, context)


def _codes(model: onnx.ModelProto) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each weight's codes, int64, with its scale, as the graph unpacks and pairs them."""
    graph = Graph(model)
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear" and graph.is_constant(node.input[0]):
            codes, scale = map(graph.value, node.input[:2])
            assert codes.dtype == np.int8, "biases are float"
            assert not graph.value(node.input[2]).any(), "symmetric"
            yield codes.astype(np.int64), scale.astype(np.float64)


def _floats(model: onnx.ModelProto) -> dict[tuple[int, ...], np.ndarray]:
    """The weights of an FP32 graph by shape: no two layers of the tiny network share one."""
    found = {tuple(t.dims): numpy_helper.to_array(t) for t in model.graph.initializer}
    return {shape: w.astype(np.float64) for shape, w in found.items() if len(shape) > 1}


def test_every_layer_is_executed_in_int8(
    made: Deployable, optimised: Callable[[onnx.ModelProto], list[str]], tmp_path
) -> None:
    kinds = optimised(made.model)
    assert kinds.count("QLinearConv") == 2
    assert kinds.count("QGemm") == 1
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"} & set(kinds)
    executed = runtimes.find().executed(made.save(tmp_path))
    assert (executed.int8_layers, executed.layers) == (3, 3)


@pytest.mark.parametrize(("reduce_range", "levels"), [(True, 128), (False, 254)])
def test_weights_are_symmetric_and_per_channel(
    reduce_range: bool, levels: int, twin: Twin, context: Context, baseline: Deployable
) -> None:
    exact = _floats(baseline.model)
    found = list(_codes(PTQ(reduce_range=reduce_range).apply(twin, context).model))
    assert len(found) == 3
    for codes, scale in found:
        weight = exact[codes.shape] if codes.shape in exact else exact[codes.shape[::-1]].T
        axis = weight.shape.index(scale.size)
        others = tuple(a for a in range(weight.ndim) if a != axis)
        expected = 2 * np.abs(weight).max(axis=others) / levels
        np.testing.assert_allclose(scale, expected, rtol=2.0**-11)
        wide = np.expand_dims(scale, others)
        assert np.abs(codes - weight / wide).max() < 0.5 + 1e-5, "rounded to the nearest"
        assert np.abs(codes).max() == levels // 2


def test_reduced_range_never_saturates_a_pair_of_products(made: Deployable) -> None:
    # without VNNI two products u8 x s8 are added in int16: 2 x 255 x 64 fits, 2 x 255 x 127 not
    largest = max(int(np.abs(codes).max()) for codes, _ in _codes(made.model))
    assert 2 * 255 * largest <= np.iinfo(np.int16).max


def test_activations_are_uint8_per_tensor(made: Deployable) -> None:
    stored = {t.name: t for t in made.model.graph.initializer}
    nodes = [n for n in made.model.graph.node if n.op_type == "QuantizeLinear"]
    assert nodes
    for node in nodes:
        assert not stored[node.input[1]].dims
        assert stored[node.input[2]].data_type == TensorProto.UINT8


def test_the_runtime_computes_what_the_graph_says(made: Deployable, task: Classification) -> None:
    images, _ = next(task.split("validation").batches(64))
    expected = np.asarray(ReferenceEvaluator(made.model).run(None, {"images": images})[0])
    session = onnxruntime.InferenceSession(
        made.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    scores = session.run(None, {"images": images})[0]
    step = np.unique(np.diff(np.unique(expected))).min()
    assert np.abs(scores - expected).max() <= 3 * step, "a few roundings apart"
    assert (scores.argmax(1) == expected.argmax(1)).mean() > 0.95


@pytest.mark.parametrize(
    "changed",
    [
        PTQ(calibration="entropy"),
        PTQ(calibration="percentile", percentile=90.0),
        PTQ(reduce_range=False),
    ],
)
def test_each_parameter_changes_the_file(
    changed: PTQ, made: Deployable, twin: Twin, context: Context
) -> None:
    assert changed.apply(twin, context).digest != made.digest


def test_the_percentile_cuts_ranges(made: Deployable, twin: Twin, context: Context) -> None:
    def ranges(model: onnx.ModelProto) -> np.ndarray:
        stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        nodes = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
        return np.array([float(stored[n.input[1]]) for n in nodes])

    cut, less = (
        ranges(PTQ(calibration="percentile", percentile=p).apply(twin, context).model)
        for p in (60.0, 95.0)
    )
    whole = ranges(made.model)
    assert cut.shape == less.shape == whole.shape
    assert (cut <= less + 1e-9).all()
    assert (less <= whole * 1.01).all()
    assert cut.sum() < less.sum() < whole.sum()


def test_ranges_come_from_the_calibration_split(
    made: Deployable, twin: Twin, context: Context
) -> None:
    assert made.manifest["calibration_digest"] == context.calibration.digest
    dark = context.calibration.take(np.arange(8))
    other = PTQ().apply(twin, replace(context, calibration=dark))
    assert other.manifest["calibration_digest"] == dark.digest != context.calibration.digest
    assert other.digest != made.digest


def test_the_manifest_names_layers_and_widths(made: Deployable) -> None:
    layers = {layer["name"]: layer for layer in made.manifest["layers"]}
    assert list(layers) == ["conv1", "conv2", "linear"]
    for layer in layers.values():
        assert (layer["weight_bits"], layer["activation_bits"]) == (8, 8)


@pytest.mark.slow
def test_a_resnet20_is_all_int8_and_a_quarter_of_the_size(
    optimised: Callable[[onnx.ModelProto], list[str]],
) -> None:
    draw = np.random.default_rng(0)
    task = Classification.of(
        {
            "x_train": draw.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8),
            "y_train": np.arange(100) % 10,
            "x_test": draw.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8),
            "y_test": np.arange(20) % 10,
        },
        calibration=40,
    )
    architecture = Architecture("name", "resnet20_cifar", task.arguments)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture.build(task.shape, task.outputs)
    spec = InputSpec(task.shape, (0.48, 0.48, 0.45), (0.25, 0.24, 0.26))
    twin = Twin(model, spec, task.outputs, architecture, task.facts)
    context = Context.of(task, twin, device="cpu", threads=1)
    made, full = PTQ().apply(twin, context), deploy(twin, context)
    assert sum(layer["parameters"] for layer in full.manifest["layers"]) >= 250_000
    ratio = len(full.model.SerializeToString()) / len(made.model.SerializeToString())
    assert ratio >= 3.7
    kinds = optimised(made.model)
    assert kinds.count("QLinearConv") == 19
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"} & set(kinds)


# --- fewer bits ------------------------------------------------------------------------------

BITS = {8: 8.0, 4: 4.0, 3: 8 / 3, 2: 2.0, "ternary": 1.6}
narrow = pytest.mark.parametrize("bits", [4, 3, 2, "ternary"])


def _mean_bits(made: Deployable) -> float:
    """Stored bits of a weight, by what the manifest says that each layer's codes take."""
    graph = Graph(made.model)
    counts = [
        graph.value(n.input[0]).size
        for n in graph.nodes
        if n.op_type == "DequantizeLinear" and graph.is_constant(n.input[0])
    ]
    total = sum(layer["weight_bytes"] for layer in made.manifest["layers"])
    return 8 * total / sum(counts)


def _highest(made: Deployable) -> list[int]:
    """The highest code of each layer, which tells its form."""
    return [int(np.abs(codes).max()) for codes, _ in _codes(made.model)]


@narrow
def test_the_edges_keep_their_own_width(bits: int | str, twin: Twin, context: Context) -> None:
    high = {4: 7, 3: 5, 2: 3, "ternary": 1}[bits]
    inner = _highest(PTQ(bits=bits).apply(twin, context))
    assert inner == [64, high, 64]
    edges = _highest(PTQ(bits=8, edges=bits).apply(twin, context))
    assert edges == [high, 64, high]


@narrow
def test_the_file_shrinks_by_the_bits(
    bits: int | str, made: Deployable, twin: Twin, context: Context
) -> None:
    small = PTQ(bits=bits, edges=bits).apply(twin, context)
    weights = sum(codes.size for codes, _ in _codes(made.model))
    assert _mean_bits(made) == pytest.approx(8.0)
    # the constants that take bytes apart are counted as the weights' own
    assert BITS[bits] <= _mean_bits(small) <= BITS[bits] + 8 * 200 / weights
    saved = made.model.ByteSize() - small.model.ByteSize()
    nodes = 600  # bytes: the nodes that unpack, names and shapes included
    assert saved == pytest.approx(weights * (8 - BITS[bits]) / 8, abs=nodes)


@narrow
def test_fewer_bits_are_executed_as_int8(
    bits: int | str,
    made: Deployable,
    twin: Twin,
    context: Context,
    optimised: Callable[[onnx.ModelProto], list[str]],
) -> None:
    small = PTQ(bits=bits, edges=bits).apply(twin, context)
    assert sorted(optimised(small.model)) == sorted(optimised(made.model))
    for layer in small.manifest["layers"]:
        assert (layer["weight_bits"], layer["activation_bits"]) == (8, 8)


@pytest.mark.parametrize(("bits", "least"), [(8, "1.21"), (4, "1.23"), ("ternary", "1.21")])
def test_the_manifest_names_the_least_runtime(
    bits: int | str, least: str, twin: Twin, context: Context
) -> None:
    assert PTQ(bits=bits).apply(twin, context).manifest["least_runtime"] == {"onnxruntime": least}


def test_four_bits_cost_little_here(twin: Twin, context: Context, task: Classification) -> None:
    images, labels = next(task.split("validation").batches(64))
    four = PTQ(bits=4, edges=4).apply(twin, context)
    right = (_scores(four, images).argmax(1) == labels).mean()
    assert right >= (_scores(deploy(twin, context), images).argmax(1) == labels).mean() - 0.05


def _scores(made: Deployable, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        made.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize("budget", [2.0, 3.0, 4.5, 7.9, 8.0])
def test_a_budget_is_kept(budget: float, twin: Twin, context: Context) -> None:
    made = PTQ(bits=2, edges=2, budget=budget).apply(twin, context)
    sizes = [codes.size for codes, _ in _codes(made.model)]
    widths = [{3: 2, 64: 8}[high] for high in _highest(made)]
    mean = sum(w * s for w, s in zip(widths, sizes, strict=True)) / sum(sizes)
    assert mean <= budget
    for width, size in zip(widths, sizes, strict=True):
        if width == 2:
            assert mean + 6 * size / sum(sizes) > budget, "there was room for this layer"


def test_a_budget_that_is_too_small_is_an_error_that_names_it(twin: Twin, context: Context) -> None:
    edges, inner = 216 + 64, 1152  # weights of conv1 and linear, and of conv2
    least = (8 * edges + 2 * inner) / (edges + inner)
    with pytest.raises(NetzipError, match=rf"ptq\.budget: 2 bits given.* {least:.3f}; allowed"):
        PTQ(bits=2, budget=2.0).apply(twin, context)
    assert PTQ(bits=2, budget=least + 1e-3).apply(twin, context).manifest["chain"]


@pytest.mark.parametrize("asked", [{"budget": 8.0}, {"max_drop": 0.0}])
def test_a_wide_that_is_narrower_is_an_error_that_names_it(
    asked: dict[str, float], twin: Twin, context: Context
) -> None:
    with pytest.raises(NetzipError, match=r"^ptq\.wide: 4 given.* in more than 8; allowed: more"):
        PTQ(bits=8, wide=4, **asked).apply(twin, context)  # type: ignore[arg-type]


@pytest.mark.parametrize("max_drop", [0.0, 3.0, 100.0])
def test_a_drop_is_within_what_is_allowed(
    max_drop: float, twin: Twin, context: Context, task: Classification, baseline: Deployable
) -> None:
    def right(made: Deployable) -> float:
        images, labels = next(task.split("validation").batches(64))
        return float((_scores(made, images).argmax(1) == labels).mean())

    plain = PTQ(bits="ternary", edges="ternary")
    made = replace(plain, max_drop=max_drop).apply(twin, context)
    narrow = plain.apply(twin, context)
    drops = {name: 100 * (right(baseline) - right(m)) for name, m in (("", made), ("1", narrow))}
    assert drops[""] <= max_drop + 1e-6
    if drops["1"] <= max_drop:
        assert made.digest == narrow.digest, "nothing had to be widened"
    else:
        assert made.model.ByteSize() > narrow.model.ByteSize()
    assert drops["1"] > 0, "or this test shows nothing"


def test_widening_never_narrows(twin: Twin, context: Context) -> None:
    # edges of 8 bits are wider than `wide`: however large the drop, they stay
    made = PTQ(bits="ternary", wide=4, max_drop=0.0).apply(twin, context)
    assert _highest(made)[0] == _highest(made)[2] == 64


def test_the_attempts_are_logged_and_the_best_is_returned(
    twin: Twin, context: Context, task: Classification
) -> None:
    logged: list[tuple[str, float, int]] = []
    watched = replace(context, log=lambda *entry: logged.append(entry))
    made = PTQ(bits="ternary", edges="ternary", max_drop=0.0).apply(twin, watched)
    assert {key for key, _, _ in logged} == {"ptq/validation"}
    wide = [count for _, _, count in logged]
    assert wide == sorted(set(wide)), "each attempt widens more"
    images, labels = next(task.split("validation").batches(64))
    right = float((_scores(made, images).argmax(1) == labels).mean())
    assert right == pytest.approx(max(right for _, right, _ in logged))


def test_a_network_without_biases_and_without_normalisation(
    context: Context, optimised: Callable[[onnx.ModelProto], list[str]]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, bias=False),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 8, 3, bias=False),
            torch.nn.Flatten(),
            torch.nn.Linear(512, 4, bias=False),
        )
    bare = Twin.of(model, shape=(3, 12, 12))
    made = PTQ(bits=4, edges=4).apply(bare, context)
    kinds = optimised(made.model)
    assert kinds.count("QLinearConv") == 2
    assert {"QGemm", "QLinearMatMul"} & set(kinds)
    images, _ = next(context.calibration.batches(64))
    exact = _scores(deploy(bare, context), images)
    difference = np.abs(_scores(made, images) - exact)
    assert np.square(difference).mean() < 0.1 * exact.var()


def test_a_percentile_that_the_calibration_does_not_read_is_refused() -> None:
    (problem,) = PTQ.problems({"percentile": 99.9}, "a[0].ptq")
    assert problem.where == "a[0].ptq.percentile"
    assert PTQ.problems({"percentile": 99.9, "calibration": "percentile"}, "a[0].ptq") == []


@pytest.mark.parametrize("form", [{"bits": 3}, {"bits": 2}, {"edges": 2}])
def test_pruned_weights_are_not_revived_by_a_form_without_zero(
    form: dict[str, int], twin: Twin, context: Context
) -> None:
    pruned = PruneL1(ratio=0.5, scope="layer").apply(twin, context)
    layer = "conv1" if "edges" in form else "conv2"
    with pytest.raises(
        NetzipError, match=rf"^ptq\.bits: layer {layer}: its pruned weights are zero"
    ):
        PTQ(**form).apply(pruned, context)  # type: ignore[arg-type]
    kept = PruneL1(ratio=0.5, keep=layer).apply(twin, context)
    if layer == "conv2":  # the layers that stay in 8 bits may be pruned
        assert PTQ(**form).apply(kept, context).manifest["chain"]  # type: ignore[arg-type]
