"""Stored codes: what comes out of the runtime, what the file holds, what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from netzip_mlflow.deployable.encodings import BOOK, FORMS, Storage, books, opset_of, store
from netzip_mlflow.errors import NetzipError

# written out, so that a slip in the table of forms is seen
CODES = {
    "int8": range(-127, 128),
    "int4": range(-7, 8),
    "int3": (-5, -3, -1, 1, 3, 5),
    "int2": (-3, -1, 1, 3),
    "ternary": (-1, 0, 1),
    "binary": (-1, 1),
}
A_BYTE = {"int8": 1, "int4": 2, "int3": 3, "int2": 4, "ternary": 5, "binary": 8}
every_form = pytest.mark.parametrize("form", CODES)


def _model(storage: Storage, names: list[str], opset: int) -> onnx.ModelProto:
    outputs = [helper.make_empty_tensor_value_info(f"{name}/out") for name in names]
    nodes = [helper.make_node("Identity", [name], [f"{name}/out"]) for name in names]
    graph = helper.make_graph(
        [*storage.nodes, *nodes], "g", [], outputs, initializer=list(storage.initializers)
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports)
    )


def _unpacked(codes: Mapping[str, tuple[str, np.ndarray]]) -> list[np.ndarray]:
    """What ONNX Runtime makes of stored codes."""
    forms = [form for form, _ in codes.values()]
    model = _model(store(codes), list(codes), opset_of(forms))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(found) for found in session.run(None, {})]


def _stored_bytes(storage: Storage, kinds: tuple[int, ...]) -> int:
    return sum(len(t.raw_data) for t in storage.initializers if t.data_type in kinds)


def _draw(form: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array(CODES[form], np.int8), shape)


SHAPES = st.one_of(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    hnp.array_shapes(min_dims=4, max_dims=4, max_side=5),
)


@every_form
def test_a_form_is_what_its_name_says(form: str) -> None:
    kind = FORMS[form]
    values = np.array(CODES[form])
    assert kind.base == len(values)
    assert kind.high == values.max() == -values.min()
    assert set(np.diff(values)) == {kind.step}
    assert kind.has_zero == (0 in values)
    assert kind.bits == 8 / A_BYTE[form]
    assert kind.base**kind.digits <= 256, "the digits fit a byte"
    assert kind.base ** (kind.digits + 1) > 256, "and no further one would"


@settings(max_examples=60)
@given(
    form=st.sampled_from(list(CODES)),
    shapes=st.lists(SHAPES, min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_form_comes_out_of_the_runtime_as_it_was(
    form: str, shapes: list[tuple[int, ...]], seed: int
) -> None:
    arrays = [_draw(form, shape, seed + i) for i, shape in enumerate(shapes)]
    found = _unpacked({f"w{i}": (form, array) for i, array in enumerate(arrays)})
    for array, again in zip(arrays, found, strict=True):
        assert again.dtype == np.int8
        np.testing.assert_array_equal(again, array)


@every_form
@pytest.mark.parametrize("over", [0, 1])
def test_a_last_byte_that_is_full_and_one_that_is_not(form: str, over: int) -> None:
    whole = _draw(form, (A_BYTE[form] * 2 + over, 1))
    (found,) = _unpacked({"w": (form, whole)})
    np.testing.assert_array_equal(found, whole)


@every_form
def test_every_single_code_is_stored(form: str) -> None:
    whole = np.array([CODES[form]], np.int8)
    (found,) = _unpacked({"w": (form, whole)})
    np.testing.assert_array_equal(found, whole)


def test_forms_live_together() -> None:
    codes = {form: (form, _draw(form, (3, 5, 3, 3))) for form in CODES}
    codes["kernels"] = ("kernels", np.tile(_draw("int8", (1, 1, 3, 3)), (4, 4, 1, 1)))
    for (_, array), found in zip(codes.values(), _unpacked(codes), strict=True):
        np.testing.assert_array_equal(found, array)


@every_form
@pytest.mark.parametrize("count", [1, 7, 8, 720])
def test_the_file_holds_the_bits_that_the_form_says(form: str, count: int) -> None:
    storage = store({"w": (form, _draw(form, (count, 1)))})
    kinds = (TensorProto.INT8, TensorProto.INT4, TensorProto.UINT8)
    assert _stored_bytes(storage, kinds) == math.ceil(count * FORMS[form].bits / 8)


def test_layers_of_a_form_share_their_last_byte() -> None:
    storage = store({f"w{i}": ("ternary", _draw("ternary", (1, 6))) for i in range(5)})
    assert _stored_bytes(storage, (TensorProto.UINT8,)) == 6


def test_int4_lies_in_the_file_as_onnx_lays_it() -> None:
    codes = np.arange(-7, 8, dtype=np.int8).reshape(3, 5)
    (tensor,) = store({"w": ("int4", codes)}).initializers
    assert tuple(tensor.dims) == (3, 5)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.int8), codes)
    other = helper.make_tensor("w", TensorProto.INT4, (3, 5), codes.ravel())
    assert tensor.raw_data == bytes(v & 255 for v in other.int32_data)


@every_form
def test_nothing_is_unpacked_at_a_call(
    form: str, optimised: Callable[[onnx.ModelProto], list[str]]
) -> None:
    storage = store({"a": (form, _draw(form, (3, 7))), "b": (form, _draw(form, (2, 3, 3, 3)))})
    assert set(optimised(_model(storage, ["a", "b"], opset_of([form])))) <= {"Identity"}


def test_no_kernel_is_looked_up_at_a_call(
    optimised: Callable[[onnx.ModelProto], list[str]],
) -> None:
    storage = store({"a": ("kernels", _draw("ternary", (5, 5, 3, 3)))})
    assert set(optimised(_model(storage, ["a"], 18))) <= {"Identity"}


def test_only_int4_needs_a_recent_opset() -> None:
    assert opset_of(["int8", "int4"]) == 21
    assert opset_of([form for form in FORMS if form != "int4"]) == 18
    model = _model(store({"w": ("int4", _draw("int4", (2, 2)))}), ["w"], 20)
    with pytest.raises(onnx.checker.ValidationError, match=r"int4|INT4|type"):
        onnx.checker.check_model(model, full_check=True)


@every_form
def test_what_the_checker_says_of_the_least_opset(form: str) -> None:
    storage = store({"w": (form, _draw(form, (2, 3)))})
    model = _model(storage, ["w"], opset_of([form]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("w/out", TensorProto.INT8, (2, 3)))
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        ("int8", -128),
        ("int4", 8),
        ("int4", -8),
        ("int3", 7),
        ("int3", 2),
        ("int3", 0),
        ("int2", 0),
        ("int2", -5),
        ("ternary", 2),
        ("binary", 0),
        ("kernels", -128),
    ],
)
def test_a_code_that_the_form_has_not_is_refused(form: str, wrong: int) -> None:
    values = np.ones((2, 2, 1, 1), np.int8)
    values[1, 0] = wrong
    with pytest.raises(NetzipError, match=rf"conv7: code {wrong} is none of form {form}"):
        store({"good": (form, np.ones((1, 1), np.int8)), "conv7": (form, values)})


# --- code books ------------------------------------------------------------------------------


def _read(kernels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """A layer out of its book, by the words of the docstring."""
    out = np.empty((*numbers.shape, *kernels.shape[1:]), np.int8)
    for place in np.ndindex(*numbers.shape):
        n = int(numbers[place])
        out[place] = kernels[n] if n < len(kernels) else -kernels[n - len(kernels)]
    return out


def _layer(pool: np.ndarray, seed: int, shape: tuple[int, int] = (8, 8)) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return pool[draw.integers(len(pool), size=shape)]


@settings(max_examples=25)
@given(
    kernels=st.integers(1, BOOK),
    layers=st.integers(1, 3),
    side=st.sampled_from([(), (1, 1), (3, 3), (2, 5)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_books_hold_what_was_put_in(
    kernels: int, layers: int, side: tuple[int, ...], seed: int
) -> None:
    draw = np.random.default_rng(seed)
    pool = draw.integers(-127, 128, (kernels, *side)).astype(np.int8)
    pool = np.concatenate([pool, -pool])
    arrays = {f"w{i}": _layer(pool, seed + i, (3, 7)) for i in range(layers)}
    found = {n: (k, m) for k, layers_ in books(arrays) for n, m in layers_.items()}
    assert list(found) == list(arrays)
    for name, (book, numbers) in found.items():
        assert numbers.dtype == np.uint8
        assert len(book) <= BOOK
        np.testing.assert_array_equal(_read(book, numbers), arrays[name])
    for array, again in zip(
        arrays.values(),
        _unpacked({n: ("kernels", a) for n, a in arrays.items()}),
        strict=True,
    ):
        np.testing.assert_array_equal(again, array)


def test_a_kernel_and_its_negative_are_one() -> None:
    kernel = np.array([[0, -2], [3, 1]], np.int8)
    array = np.array([[kernel, -kernel], [-kernel, kernel], [0 * kernel, kernel]])
    ((book, numbers),) = [(k, m["w"]) for k, m in books({"w": array})]
    assert len(book) == 2, "it and the zeros"
    np.testing.assert_array_equal(_read(book, numbers), array)


def test_neighbours_share_a_book_while_it_has_room() -> None:
    pool = np.arange(1, 127, dtype=np.int8)[:, None, None] * np.ones((1, 2, 2), np.int8)
    half, other = _layer(pool[:60], 0, (30, 30)), _layer(pool[50:110], 1, (30, 30))
    rest = _layer(pool[100:], 2, (30, 30))
    shared = books({"a": half, "b": other, "c": rest})
    assert [list(layers) for _, layers in shared] == [["a", "b", "c"]]
    assert len(shared[0][0]) == 126
    larger = np.arange(1, 5, dtype=np.int8)[:, None, None] * np.eye(2, dtype=np.int8)
    full = books({"a": half, "b": other, "c": rest, "d": _layer(larger, 3)})
    assert [list(layers) for _, layers in full] == [["a", "b", "c"], ["d"]]


def test_kernels_of_another_shape_have_a_book_of_their_own() -> None:
    arrays = {"a": np.ones((2, 2, 3, 3), np.int8), "b": np.ones((2, 2, 1, 1), np.int8)}
    assert [list(layers) for _, layers in books(arrays)] == [["a"], ["b"]]


def test_too_many_kernels_are_refused_by_name() -> None:
    draw = np.random.default_rng(0)
    many = draw.integers(1, 127, (BOOK + 1, 1, 3, 3)).astype(np.int8)
    with pytest.raises(NetzipError, match=rf"conv3: {BOOK + 1} kernels differ; .* has {BOOK}"):
        store({"conv3": ("kernels", many)})
    (found,) = _unpacked({"conv3": ("kernels", many[:BOOK])})
    np.testing.assert_array_equal(found, many[:BOOK])


def test_a_layer_of_kernels_takes_a_byte_for_each_and_one_book() -> None:
    array = _layer(_draw("ternary", (20, 3, 3)), 0, (16, 16))
    storage = store({"a": ("kernels", array), "b": ("kernels", array)})
    ((book, _),) = books({"a": array})
    assert _stored_bytes(storage, (TensorProto.UINT8,)) == 2 * 256
    assert _stored_bytes(storage, (TensorProto.INT8,)) == book.size
