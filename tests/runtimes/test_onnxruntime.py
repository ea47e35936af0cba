from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.runtimes.adapter import Adapter
from netzip_mlflow.runtimes.onnxruntime import OnnxRuntime

node = helper.make_node
RUNTIME = OnnxRuntime()
load, executed = RUNTIME.load, RUNTIME.executed


def some(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32) / 3


def images(n, seed=1):
    return np.random.default_rng(seed).random((n, 3, 8, 8), np.float32)


def save(path, nodes, stored, *, shape=("batch", 3, 8, 8), kind=TensorProto.FLOAT, out=2):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * out)],
        [numpy_helper.from_array(a, n) for n, a in stored.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


NODES = (
    node("Conv", ["x", "w1"], ["c"], name="conv"),
    node("GlobalAveragePool", ["c"], ["g"]),
    node("Flatten", ["g"], ["f"]),
    node("Gemm", ["f", "w2"], ["y"], name="linear"),
)
STORED = {"w1": some(4, 3, 3, 3), "w2": some(4, 10)}


@pytest.fixture
def network(tmp_path):
    return save(tmp_path / "network.onnx", NODES, STORED)


def expected(path, x):
    return ReferenceEvaluator(onnx.load(path)).run(None, {"x": x})[0]


def test_scores_agree_with_onnxs_reference(network):
    x = images(5)
    (scores,) = load(network).run(x)
    assert (scores.dtype, scores.shape) == (np.float32, (5, 10))
    np.testing.assert_allclose(scores, expected(network, x), atol=1e-5)


def test_non_contiguous_images_are_taken_as_they_read(network):
    x = np.ascontiguousarray(images(4).transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(load(network).run(x)[0], expected(network, x), atol=1e-5)


@pytest.mark.parametrize("n", [3, 4, 8, 9])
def test_a_file_of_fixed_batch_is_fed_piece_by_piece(network, tmp_path, n):
    fixed = save(tmp_path / "fixed.onnx", NODES, STORED, shape=(4, 3, 8, 8))
    (scores,) = load(fixed).run(images(n))
    assert scores.shape == (n, 10)
    np.testing.assert_allclose(scores, expected(network, images(n)), atol=1e-5)


def test_a_bound_call_runs_the_model_once_on_its_images(tmp_path):
    # The output lies where the first call put it: it must follow the input, call after call.
    path = save(tmp_path / "n.onnx", NODES, STORED)
    session = load(path)
    signature = session._signature
    x = images(2)
    held = []

    class Kept:
        input = signature.input

        def one_feed(self, given):
            held.append(signature.one_feed(given))
            return held[-1]

    session._signature = Kept()
    call = session.bind(x)
    counted = []
    inner = session._session.run_with_iobinding
    session._session.run_with_iobinding = lambda binding: counted.append(binding) or inner(binding)
    assert call() is None
    np.testing.assert_allclose(counted[0].copy_outputs_to_cpu()[0], expected(path, x), atol=1e-5)
    held[0][:] = images(2, seed=7)
    call()
    np.testing.assert_allclose(
        counted[1].copy_outputs_to_cpu()[0], expected(path, images(2, seed=7)), atol=1e-5
    )


def test_description(network):
    described = load(network, threads=2).describe()
    assert described == {
        "runtime": "onnxruntime",
        "version": ort.__version__,
        "providers": ["CPUExecutionProvider"],
        "threads": 2,
    }


def test_session_options(network, monkeypatch):
    seen = []
    real = ort.InferenceSession

    def session(path, options, **kwargs):
        seen.append(options)
        return real(path, options, **kwargs)

    monkeypatch.setattr(ort, "InferenceSession", session)
    load(network)
    load(network, threads=2)
    for options, threads in zip(seen, (1, 2), strict=True):
        assert options.intra_op_num_threads == threads
        assert options.inter_op_num_threads == 1
        assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
        assert options.log_severity_level == 3
    assert seen[1].get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("x", "given"),
    [
        (images(2).astype(np.float64), r"is given float64 \(2, 3, 8, 8\)"),
        (images(2)[0], r"\(3, 8, 8\); allowed: a float32 array \(n, 3, 8, 8\)"),
        (images(0), "n >= 1"),
        (images(2)[:, :1], r"float32 \(2, 1, 8, 8\); allowed: \(n, 3, 8, 8\)"),
        (images(2).transpose(0, 2, 3, 1), r"allowed: \(n, 3, 8, 8\)"),
        ([1, 2], "is given list None"),
    ],
)
def test_what_does_not_fit_is_refused(network, x, given):
    session = load(network)
    for method in (session.run, session.bind):
        with pytest.raises(InputError, match=given):
            method(x)


def test_a_bound_call_fits_a_fixed_batch_exactly(tmp_path):
    fixed = save(tmp_path / "fixed.onnx", NODES, STORED, shape=(4, 3, 8, 8))
    load(fixed).bind(images(4))()
    with pytest.raises(InputError, match="allowed: a batch of 4"):
        load(fixed).bind(images(1))


def test_files_that_do_not_load(tmp_path, network):
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        load(tmp_path / "none.onnx")
    for content in (b"", b"text", network.read_bytes()[:300]):
        path = tmp_path / "corrupt.onnx"
        path.write_bytes(content)
        for open_file in (load, executed):
            with pytest.raises(InputError, match=r"corrupt\.onnx: ONNX Runtime \S+ cannot load it"):
                open_file(path)


NORMS = (
    node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0),
    node("ReduceMax", ["x", "axes"], ["most"], keepdims=0),
)


def two_outputs(path, shape, axes):
    """A file that answers a sample with the sum and the greatest of each channel."""
    model = onnx.load(save(path, NORMS, {"axes": np.array(axes)}, shape=shape))
    del model.graph.output[:]
    names = ("sum", "most")
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in names
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", ["batch", 2])
def test_every_output_is_answered_in_the_files_order(tmp_path, batch):
    session = load(two_outputs(tmp_path / "two.onnx", (batch, 3, 8, 8), [2, 3]))
    x = images(3)
    assert session.outputs == ("sum", "most")
    sums, most = session.run(x)
    np.testing.assert_allclose(sums, x.sum((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(most, x.max((2, 3)))
    session.bind(x[:2])()


def test_signals_are_samples_too(tmp_path):
    path = two_outputs(tmp_path / "signals.onnx", ("batch", 3, 50), [2])
    x = np.random.default_rng(0).random((4, 3, 50), np.float32)
    for session in (load(path), load(path, adapter=Adapter(mean=(0, 0.5, 0), scale=2))):
        assert session.shape == (3, 50)
        sums, _ = session.run(x)
        session.bind(x)()
        with pytest.raises(InputError, match=r"\(n, 3, 50\) with n >= 1"):
            session.run(images(1))
    np.testing.assert_allclose(sums, 2 * (x.sum(2) - np.array([0, 25, 0])), rtol=1e-4, atol=1e-3)
    with pytest.raises(InputError, match="3 axes; allowed: 4 axes with --layout nhwc"):
        load(path, adapter=Adapter(layout="nhwc"))


def test_files_whose_input_is_not_a_batch_of_samples(tmp_path):
    flat = save(tmp_path / "flat.onnx", [node("Relu", ["x"], ["y"])], {}, shape=("n", 64))
    with pytest.raises(
        InputError, match=r"x float32 \(any, 64\); allowed: one input of 3 axes or more"
    ):
        load(flat)
    cast = [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    text = save(tmp_path / "i.onnx", cast, {}, kind=TensorProto.INT32, out=4)
    with pytest.raises(InputError, match=r"the input is tensor\(int32\)"):
        load(text)
    half = save(tmp_path / "h.onnx", cast, {}, kind=TensorProto.FLOAT16, out=4)
    with pytest.raises(InputError, match=r"float16.*--layout"):
        load(half)


def test_bad_options(network):
    with pytest.raises(InputError, match="threads: is 0"):
        load(network, threads=0)
    with pytest.raises(InputError, match=r"NoSuchProvider not in this build.*CPUExecutionProvider"):
        OnnxRuntime(providers=("NoSuchProvider",)).load(network)


def test_a_failure_while_running_is_named(tmp_path):
    stored = {"shape": np.array([5, 7])}
    path = save(tmp_path / "broken.onnx", [node("Reshape", ["x", "shape"], ["y"])], stored)
    session = load(path)
    for method in (session.run, session.bind):
        with pytest.raises(NetzipError, match=r"broken\.onnx: ONNX Runtime failed") as caught:
            method(images(2))
        assert not isinstance(caught.value, InputError)


def test_trailing_axes_of_one_are_dropped_and_halves_widened(tmp_path):
    nodes = [
        node("GlobalAveragePool", ["x"], ["g"]),
        node("Cast", ["g"], ["y"], to=TensorProto.FLOAT16),
    ]
    path = save(tmp_path / "p.onnx", nodes, {}, out=4)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path)
    (scores,) = load(path).run(images(2))
    assert (scores.dtype, scores.shape) == (np.float32, (2, 3))
    np.testing.assert_allclose(scores, images(2).mean((2, 3)), atol=1e-3)


def test_layout_range_and_dtype_of_another_tools_file(tmp_path):
    """A file for uint8 NHWC pixels: mean over pixels per channel."""
    nodes = [
        node("Cast", ["x"], ["c"], to=TensorProto.FLOAT),
        node("ReduceMean", ["c", "axes"], ["y"], keepdims=0),
    ]
    path = save(
        tmp_path / "nhwc.onnx",
        nodes,
        {"axes": np.array([1, 2])},
        shape=("n", 8, 8, 3),
        kind=TensorProto.UINT8,
    )
    session = load(path, adapter=Adapter(layout="nhwc", scale=255))
    assert session.shape == (3, 8, 8)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8))
    x = (pixels / 255).astype(np.float32)
    np.testing.assert_allclose(session.run(x)[0], pixels.mean((2, 3)), rtol=1e-6)
    session.bind(x)()


QUANTISE = (
    node("QuantizeLinear", ["x", "s", "z"], ["q"]),
    node("DequantizeLinear", ["q", "s", "z"], ["xq"]),
    node("DequantizeLinear", ["w", "ws", "wz"], ["wq"]),
    node("Conv", ["xq", "wq"], ["c"], name="conv"),
    node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
    node("DequantizeLinear", ["cq", "s", "z"], ["d"]),
)
QUANTISED = {
    "s": np.float32(0.01).reshape(()),
    "z": np.uint8(128).reshape(()),
    "w": np.ones((4, 3, 3, 3), np.int8),
    "ws": np.float32(0.02).reshape(()),
    "wz": np.int8(0).reshape(()),
}


class TestExecuted:
    def test_a_float_network(self, network):
        facts = executed(network)
        assert (facts.layers, facts.int8_layers) == (2, 0)
        assert len(facts.float_layers) == 2
        assert "linear" in facts.float_layers
        assert (facts.casts, facts.conversions, facts.dynamic_nodes) == (0, 0, 0)

    def test_a_fused_layer_runs_in_int8_and_one_without_quantisation_does_not(self, tmp_path):
        nodes = [
            *QUANTISE,
            node("GlobalAveragePool", ["d"], ["g"]),
            node("Flatten", ["g"], ["f"]),
            node("MatMul", ["f", "w2"], ["y"], name="head"),
        ]
        path = save(tmp_path / "q.onnx", nodes, {**QUANTISED, "w2": some(4, 10)})
        facts = executed(path)
        assert (facts.layers, facts.int8_layers) == (2, 1)
        assert facts.float_layers == ("head",)
        assert facts.conversions == 2  # in front and behind

    def test_four_bit_weights_without_a_cast_run_in_float(self, tmp_path):
        path = save(tmp_path / "q4.onnx", [*QUANTISE, node("Relu", ["d"], ["y"])], QUANTISED, out=4)
        model = onnx.load(path)
        for i, tensor in enumerate(model.graph.initializer):
            if tensor.name in ("w", "wz"):
                numbers = numpy_helper.to_array(tensor).ravel().tolist()
                model.graph.initializer[i].CopyFrom(
                    helper.make_tensor(tensor.name, TensorProto.INT4, tensor.dims, numbers)
                )
        onnx.save(model, path)
        facts = executed(path)
        assert (facts.layers, facts.int8_layers) == (1, 0)
        assert facts.conversions > 2

    def test_dynamic_quantisation_is_counted(self, tmp_path):
        nodes = [
            node("Flatten", ["x"], ["f"]),
            node("DynamicQuantizeLinear", ["f"], ["q", "s", "z"]),
            node("MatMulInteger", ["q", "w", "z"], ["i"]),
            node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
        ]
        path = save(tmp_path / "d.onnx", nodes, {"w": np.ones((192, 10), np.int8)})
        facts = executed(path)
        assert (facts.layers, facts.int8_layers, facts.dynamic_nodes) == (1, 1, 1)
        assert facts.casts == 1

    def test_the_file_is_left_as_it_is_and_nothing_beside_it(self, network):
        before = network.read_bytes()
        executed(network)
        assert network.read_bytes() == before
        assert [p.name for p in network.parent.iterdir()] == [network.name]
