"""Packed zeros: what comes out of the runtime, when they are kept, what is executed and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from netzip_mlflow.deployable import compact, pack_zeros
from netzip_mlflow.metrics import operations, size
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.techniques.half import Half
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.techniques.ptq import PTQ
from netzip_mlflow.twin import Twin

# by name: the numbers of the file, the type that their reader gets, bits of a number
TYPES = {
    "float32": (np.float32, None, 32),
    "float16": (np.float16, None, 16),
    "bfloat16": (ml_dtypes.bfloat16, TensorProto.FLOAT, 16),
    "int8": (np.int8, None, 8),
    "int4": (ml_dtypes.int4, TensorProto.INT8, 4),
}
CHAINS = {
    "float": deploy,
    "int8": PTQ().apply,
    "int4": PTQ(bits=4).apply,
    "fp16": Half().apply,
    "bf16": Half("bf16").apply,
}
every_type = pytest.mark.parametrize("kind", TYPES)
every_chain = pytest.mark.parametrize("chain", CHAINS)
Optimised = Callable[[onnx.ModelProto], list[str]]


def _sparse(kind: str, shape: tuple[int, ...], share: float, seed: int = 0) -> np.ndarray:
    """Numbers other than zero, of which round(share x size) are then set to it."""
    draw = np.random.default_rng(seed)
    count = int(np.prod(shape))
    numbers = draw.integers(1, 8, count) * draw.choice([-1, 1], count)
    numbers[draw.permutation(count)[: round(share * count)]] = 0
    return numbers.reshape(shape).astype(TYPES[kind][0])


def _graph(kind: str, arrays: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A compact graph of constants, each with a reader: outputs `<name>/out`."""
    to = TYPES[kind][1]
    nodes, outputs = [], []
    for name in arrays:
        if to is not None:
            nodes.append(helper.make_node("Cast", [name], [f"{name}/wide"], to=to))
        source = name if to is None else f"{name}/wide"
        nodes.append(helper.make_node("Identity", [source], [f"{name}/out"]))
        outputs.append(helper.make_empty_tensor_value_info(f"{name}/out"))
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [], outputs, initializer=tensors)
    imports = [helper.make_opsetid("", 21 if kind == "int4" else 18)]
    return compact(helper.make_model(graph, opset_imports=imports, ir_version=10))


def _run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray] | None = None) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(found) for found in session.run(None, dict(feeds or {}))]


def _is_packed(model: onnx.ModelProto) -> bool:
    return any(node.op_type == "CumSum" for node in model.graph.node)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(list(TYPES)),
    layers=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 300), st.floats(0, 1)), min_size=1, max_size=4
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_comes_out_is_what_was_put_in(
    kind: str, layers: list[tuple[int, int, float]], seed: int
) -> None:
    arrays = {
        f"w{i}": _sparse(kind, (rows, columns), share, seed + i)
        for i, (rows, columns, share) in enumerate(layers)
    }
    plain = _graph(kind, arrays)
    packed = pack_zeros(plain)
    assert packed is plain or packed.ByteSize() < plain.ByteSize()
    assert _is_packed(packed) == (packed is not plain)
    for array, found in zip(arrays.values(), _run(packed), strict=True):
        assert found.shape == array.shape
        np.testing.assert_array_equal(found.astype(np.float32), array.astype(np.float32))


@every_type
@pytest.mark.parametrize("columns", [1024, 1025, 1027, 1031], ids=lambda n: f"{n % 8} over")
@pytest.mark.parametrize("kept", [0, 1])
def test_all_zero_or_all_but_one(kind: str, columns: int, kept: int) -> None:
    """Down to no number at all in the row, with and without bits to spare in the last byte."""
    for place in (0, columns - 1):
        array = np.zeros((4, columns), TYPES[kind][0])
        array[3, place] = 5 * kept
        plain = _graph(kind, {"w": array})
        packed = pack_zeros(plain)
        assert _is_packed(packed)
        (found,) = _run(packed)
        np.testing.assert_array_equal(found.astype(np.float32), array.astype(np.float32))


@every_type
@pytest.mark.parametrize(
    "array",
    [
        np.ones((50, 100)),
        np.zeros((1, 1)),
        np.zeros(5000),  # a row of scales or biases
        np.zeros((0, 4)),
    ],
    ids=["none zero", "one number", "one axis", "empty"],
)
def test_nothing_to_gain(kind: str, array: np.ndarray) -> None:
    plain = _graph(kind, {"w": array.astype(TYPES[kind][0])})
    before = plain.SerializeToString()
    assert pack_zeros(plain) is plain
    assert plain.SerializeToString() == before


@every_type
def test_the_file_has_a_bit_a_number_and_the_numbers(kind: str) -> None:
    array = _sparse(kind, (100, 800), 0.75)
    packed = pack_zeros(_graph(kind, {"w": array}))
    bits = TYPES[kind][2]
    expected = 80_000 / 8 + (20_000 + 1) * bits / 8
    assert expected <= packed.ByteSize() < expected + 500


@every_type
def test_it_is_kept_from_the_break_even_on(kind: str) -> None:
    """Zeros of b bits against a bit for every number: shares above 1 / b gain by it."""
    even = 1 / TYPES[kind][2]
    below, above = (
        _graph(kind, {"w": _sparse(kind, (500, 800), even + add)}) for add in (-0.005, 0.02)
    )
    assert pack_zeros(below) is below
    assert pack_zeros(above).ByteSize() < above.ByteSize()


def test_a_layer_without_zeros_stays_out_of_the_row() -> None:
    arrays = {"a": _sparse("int8", (40, 100), 0.8), "b": _sparse("int8", (41, 100), 0.0)}
    packed = pack_zeros(_graph("int8", arrays))
    assert [tuple(t.dims) for t in packed.graph.initializer].count((41, 100)) == 1
    assert sum(t.data_type == TensorProto.UINT8 for t in packed.graph.initializer) == 2
    assert max(t.dims[0] for t in packed.graph.initializer if len(t.dims) == 2) == 500, "a's bits"


def test_types_have_rows_of_their_own() -> None:
    arrays = [_sparse(kind, (40, 100), 0.8) for kind in ("float32", "float16", "int8")]
    nodes = [helper.make_node("Identity", [f"w{i}"], [f"out{i}"]) for i in range(3)]
    outputs = [helper.make_empty_tensor_value_info(f"out{i}") for i in range(3)]
    tensors = [numpy_helper.from_array(a, f"w{i}") for i, a in enumerate(arrays)]
    graph = helper.make_graph(nodes, "g", [], outputs, initializer=tensors)
    imports = [helper.make_opsetid("", 18)]
    packed = pack_zeros(compact(helper.make_model(graph, opset_imports=imports, ir_version=8)))
    assert Counter(node.op_type for node in packed.graph.node)["CumSum"] == 3
    for array, found in zip(arrays, _run(packed), strict=True):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_codes_that_two_casts_read_are_left_alone() -> None:
    codes = _sparse("int4", (60, 100), 0.9)
    plain = _graph("int4", {"a": codes, "b": codes})  # `compact` stores equal constants once
    assert pack_zeros(plain) is plain


@every_type
def test_nothing_is_unpacked_at_a_call(kind: str, optimised: Optimised) -> None:
    arrays = {"a": _sparse(kind, (30, 90), 0.9), "b": _sparse(kind, (8, 9, 5, 5), 0.9)}
    packed = pack_zeros(_graph(kind, arrays))
    assert _is_packed(packed)
    assert set(optimised(packed)) <= {"Identity"}


@every_type
def test_the_checker_accepts_it_and_packing_again_changes_nothing(kind: str) -> None:
    array = _sparse(kind, (30, 90), 0.9)
    packed = pack_zeros(_graph(kind, {"w": array}))
    read = TYPES[kind][1] or helper.np_dtype_to_tensor_dtype(array.dtype)
    again = onnx.ModelProto()
    again.CopyFrom(packed)
    again.graph.output[0].CopyFrom(helper.make_tensor_value_info("w/out", read, array.shape))
    onnx.checker.check_model(again, full_check=True)
    assert pack_zeros(packed) is packed
    assert compact(packed) == packed


# --- files of networks -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(fresh_twin: Twin) -> Twin:
    """The tiny network with random weights, wide enough for rows in every form."""
    assert fresh_twin.architecture is not None
    architecture = replace(fresh_twin.architecture, arguments={"num_classes": 4, "width": 24})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture.build(fresh_twin.input.shape, fresh_twin.outputs)
    return Twin(model.eval(), fresh_twin.input, fresh_twin.outputs, architecture)


@pytest.fixture(scope="module")
def pair(wide: Twin, context: Context) -> Callable[[str], tuple[onnx.ModelProto, onnx.ModelProto]]:
    """`pair(chain)`: the file of a pruned network as it ships, and the same with its zeros."""
    pruned = PruneL1(0.8).apply(wide, context)
    known = {}

    def build(chain: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        if chain not in known:
            with pytest.MonkeyPatch.context() as patch:
                packed = CHAINS[chain](pruned, context).model
                for home in ("techniques.fp32", "techniques.ptq", "techniques.half"):
                    patch.setattr(f"netzip_mlflow.{home}.pack_zeros", lambda model: model)
                known[chain] = packed, CHAINS[chain](pruned, context).model
        return known[chain]

    return build


@every_chain
def test_every_pruned_file_is_smaller_and_computes_the_same(
    chain: str, pair: Callable[..., tuple[onnx.ModelProto, onnx.ModelProto]], optimised: Optimised
) -> None:
    packed, plain = pair(chain)
    assert _is_packed(packed)
    assert not _is_packed(plain)
    assert packed.ByteSize() < plain.ByteSize()
    images = np.random.default_rng(1).random((16, 3, 12, 12), np.float32)
    (found,), (expected,) = (_run(model, {"images": images}) for model in (packed, plain))
    assert found.tobytes() == expected.tobytes()
    assert Counter(optimised(packed)) == Counter(optimised(plain))


@every_chain
def test_metrics_see_through_it(
    chain: str,
    pair: Callable[..., tuple[onnx.ModelProto, onnx.ModelProto]],
    tmp_path: Path,
) -> None:
    files = {}
    for name, model in zip(("packed", "plain"), pair(chain), strict=True):
        files[name] = tmp_path / f"{name}.onnx"
        onnx.save(model, files[name])
    packed, plain = (size.sizes(files[name]) for name in ("packed", "plain"))
    for key in ("parameters", "nonzero", "sparsity"):
        assert packed[key] == plain[key]
    sides = [operations.layers(model) for model in pair(chain)]
    assert operations.totals(sides[0]) == operations.totals(sides[1])
    for one, other in zip(*sides, strict=True):
        for key in ("op", "macs", "weight_bits", "activation_bits", "output_shape", "parameters"):
            assert getattr(one, key) == getattr(other, key)
    saved = plain["disk_bytes"] - packed["disk_bytes"]
    fewer = sum(layer.weight_bytes for layer in sides[1]) - sum(
        layer.weight_bytes for layer in sides[0]
    )
    assert saved < fewer < saved + 900, "the bytes of the layers tell what the file has saved"


@every_chain
def test_a_network_that_is_not_pruned_keeps_its_file(
    chain: str, wide: Twin, context: Context
) -> None:
    assert not _is_packed(CHAINS[chain](wide, context).model)


def test_the_file_of_a_pruned_network_needs_no_newer_runtime(wide: Twin, context: Context) -> None:
    pruned = PruneL1(0.8).apply(wide, context)
    for technique in (PTQ(), PTQ(bits=4)):
        made, before = (technique.apply(network, context) for network in (pruned, wide))
        for key in ("opset", "ir_version", "least_runtime"):
            assert made.manifest[key] == before.manifest[key]
