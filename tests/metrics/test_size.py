from __future__ import annotations

import io
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from netzip_mlflow.errors import InputError
from netzip_mlflow.metrics.graph import read_model
from netzip_mlflow.metrics.operations import layers, totals
from netzip_mlflow.metrics.size import parameters, sizes

node = helper.make_node


def some(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def one(value, kind=np.float32):
    return np.asarray(value, kind)


def zipped(path):
    """What Python's own zip archive stores for the file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(path)
        return archive.infolist()[0].compress_size


@pytest.mark.parametrize("form", ["float", "half", "qdq", "qdq4", "qoperator", "dynamic"])
def test_every_form_of_a_network_has_the_same_parameters(forms, known, form):
    found = sizes(forms[form])
    assert found["parameters"] == known.parameters
    assert found["disk_bytes"] == len(forms[form].read_bytes())
    assert found["zip_bytes"] == zipped(forms[form])
    assert found["sparsity"] == pytest.approx(1 - found["nonzero"] / known.parameters)
    if form in ("float", "half"):
        assert found["nonzero"] == known.parameters


@pytest.mark.parametrize("form", ["qdq", "qoperator", "dynamic"])
def test_rounded_to_zero_is_zero(forms, known, form):
    """Weights below half a step of their channel are zeros of the int8 file."""
    model = onnx.load(forms["float"])
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nonzero = sizes(forms[form])["nonzero"]
    largest = {name: np.abs(w).max() for name, w in stored.items() if name != "mean"}
    surely_kept = sum(
        int((np.abs(stored[name]) > top / 127).sum()) for name, top in largest.items()
    )
    assert surely_kept <= nonzero < known.parameters


def test_zeros_count_as_parameters_but_not_as_nonzero(forms, known, tmp_path):
    model = onnx.load(forms["float"])
    tensor = next(t for t in model.graph.initializer if t.name == "w4")
    pruned = numpy_helper.to_array(tensor).copy()
    pruned[np.abs(pruned) < np.median(np.abs(pruned))] = 0
    tensor.CopyFrom(numpy_helper.from_array(pruned, "w4"))
    onnx.save(model, tmp_path / "pruned.onnx")
    before, after = sizes(forms["float"]), sizes(tmp_path / "pruned.onnx")
    assert after["parameters"] == before["parameters"] == known.parameters
    assert after["nonzero"] == known.parameters - 128
    assert after["sparsity"] == pytest.approx(128 / known.parameters)
    assert after["disk_bytes"] == before["disk_bytes"]
    assert after["zip_bytes"] < before["zip_bytes"]


def test_integer_codes_are_zero_at_their_zero_point(build):
    nodes = [
        node("DynamicQuantizeLinear", ["f"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z", "wz"], ["i"]),
        node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    nodes.insert(0, node("Flatten", ["x"], ["f"]))
    codes = np.full((192, 2), 5, np.int8)
    codes[0] = [3, 4]
    stored = {"w": codes, "wz": one([5, 4], np.int8)}
    model = build(nodes, stored, {"y": ["batch", 2]})
    # column 0: all but one code is 5, its zero; column 1: one code of 192 is 4, its zero
    assert parameters(model) == (384, 1 + 191)


def test_packed_weights_count_as_what_they_stand_for(build):
    stored = {
        "p": helper.make_tensor("p", TensorProto.INT4, [4, 3, 2, 2], [1, 0, -3, 0] * 12),
        "s": one([0.1, 0.2, 0.3, 0.4]),
        "blob": some(8),
        "sizes": np.array([4, 4]),
        "half": one(0.5),
    }
    nodes = [
        node("Cast", ["p"], ["c"], to=TensorProto.INT8),
        node("DequantizeLinear", ["c", "s"], ["w"], axis=0),
        node("Split", ["blob", "sizes"], ["b1", "b2"]),
        node("Mul", ["b1", "half"], ["b"]),
        node("Conv", ["x", "w", "b"], ["y"]),
    ]
    assert parameters(build(nodes, stored, {"y": ["batch", 4, 7, 7]})) == (48 + 4, 24 + 4)


def test_one_weight_used_twice_counts_once_and_equal_biases_each(build):
    stored = {"w": some(3, 3, 1, 1), "b": one([0, 0, 0])}
    nodes = [node("Conv", ["x", "w", "b"], ["c"]), node("Conv", ["c", "w", "b"], ["y"])]
    assert parameters(build(nodes, stored, {"y": ["batch", 3, 8, 8]})) == (9 + 3 + 3, 9)


def test_parameters_beside_the_layers(build):
    stored = {
        "mean": some(1, 3, 1, 1),
        "w": some(8, 3, 1, 1),
        "scale": some(8),
        "shift": some(8),
        "running": np.abs(some(8)),
        "slope": some(8, 1, 1),
        "place": some(1, 8, 8, 8),
        "two": one(2),
    }
    nodes = [
        node("Add", ["x", "mean"], ["n"]),  # of the input: no parameter
        node("Conv", ["n", "w"], ["c"]),
        node("BatchNormalization", ["c", "scale", "shift", "running", "running"], ["bn"]),
        node("PRelu", ["bn", "slope"], ["p"]),
        node("Add", ["p", "place"], ["a"]),
        node("Add", ["a", "two"], ["y"]),
    ]
    count, _ = parameters(build(nodes, stored, {"y": ["batch", 8, 8, 8]}))
    assert count == 8 * 3 + 8 + 8 + 8 + 8 * 8 * 8


def test_embeddings_and_tokens_are_parameters(build):
    stored = {
        "w": some(192, 4),
        "table": some(10, 4),
        "token": some(1, 4),
        "axis": np.array([1]),
        "zero": np.array([0]),
        "one": np.array([1]),
        "four": np.array([4]),
    }
    nodes = [
        node("Flatten", ["x"], ["f"]),
        node("MatMul", ["f", "w"], ["m"]),
        node("ArgMax", ["m"], ["k"], axis=1, keepdims=0),
        node("Gather", ["table", "k"], ["e"]),
        node("Shape", ["x"], ["n"], start=0, end=1),
        node("Concat", ["n", "four"], ["size"], axis=0),
        node("Expand", ["token", "size"], ["t"]),
        node("Concat", ["e", "t"], ["y"], axis=1),
    ]
    count, _ = parameters(build(nodes, stored, {"y": ["batch", 8]}))
    assert count == 192 * 4 + 10 * 4 + 4


def test_external_data_belongs_to_the_file(forms, tmp_path):
    model = onnx.load(forms["float"])
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = sizes(path)
    files = [path, tmp_path / "weights.bin"]
    assert found["disk_bytes"] == sum(f.stat().st_size for f in files)
    assert found["zip_bytes"] == sum(zipped(f) for f in files)
    assert found["parameters"] == sizes(forms["float"])["parameters"]


def test_sparse_initialisers_count_dense(build):
    dense = np.zeros((192, 2), np.float32)
    dense[3, 1], dense[7, 0] = 1.5, -2
    model = build(
        [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["y"])],
        {},
        {"y": ["batch", 2]},
    )
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(one([1.5, -2]), "w"),
            numpy_helper.from_array(np.array([3 * 2 + 1, 7 * 2]), ""),
            [192, 2],
        )
    )
    assert parameters(model) == (384, 2)


def test_problems_name_the_file(build, tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        sizes(tmp_path / "none.onnx")
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    with pytest.raises(InputError, match=r"text\.onnx: is no ONNX file"):
        sizes(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"text\.onnx: is no ONNX file: it holds no graph"):
        sizes(path)
    onnx.save(build([node("Relu", ["x"], ["y"])], {}, {"y": ["batch", 3, 8, 8]}), path)
    with pytest.raises(InputError, match=r"text\.onnx: the graph holds no convolution"):
        sizes(path)


@pytest.mark.parametrize("form", ["float", "qdq"])
def test_reading_a_model_changes_nothing(forms, form):
    model = read_model(forms[form])
    before = model.SerializeToString(deterministic=True)
    assert parameters(model) == parameters(model)
    assert model.SerializeToString(deterministic=True) == before


def folded(network):
    """What torch counts, less one number per channel of each BatchNorm: it folds into biases."""
    from torch import nn

    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    return sum(p.numel() for p in network.parameters()) - sum(m.num_features for m in norms)


@pytest.mark.slow
def test_resnet20_has_its_published_parameters_and_operations(exported):
    """MEASURING.md: 269,034 parameters of 269,722 in torch, 40.55 M MACs at 32 pixels."""
    from netzip_mlflow import models

    network = models.build("resnet20_cifar", (3, 32, 32), {"num_classes": 10})
    path = exported(network, 32)
    assert sizes(path)["parameters"] == folded(network) == 269_034
    assert totals(layers(read_model(path)))["macs"] == 40_551_040


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vision_transformer"])
def test_parameters_agree_with_torch(exported, name):
    from torchvision import models

    if name == "vision_transformer":  # tokens, positions, attention, layer normalisation
        network = models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)
    else:
        network = models.get_model(name, num_classes=10)
    assert sizes(exported(network, 32))["parameters"] == folded(network)
