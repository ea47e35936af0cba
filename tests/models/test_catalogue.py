"""Networks by name and by factory, and the check of a recipe's `model`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from netzip_mlflow.errors import InputError
from netzip_mlflow.models import TABLE, build, build_factory, check, names
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.twin import Architecture

SHAPE, TEN = (3, 32, 32), {"num_classes": 10}
SIX = OutputSpec.of(scores=(6,))


def test_importing_listing_and_checking_load_nothing_heavy() -> None:
    code = (
        "import sys; from netzip_mlflow import models; models.names();"
        "models.check({'model': {'name': 'resnet18', 'weights': 'none.pt'}});"
        "heavy = {'torch', 'torchvision', 'sklearn', 'safetensors', 'mlflow'} & set(sys.modules);"
        "print(*heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_every_network_of_the_table_is_listed_first() -> None:
    assert list(names())[: len(TABLE)] == list(TABLE)
    assert "mobilenet_v2" in names()


@pytest.mark.parametrize("name", TABLE)
def test_a_network_is_random_by_torchs_generator_and_in_eval_mode(name: str) -> None:
    torch.manual_seed(3)
    one = build(name, SHAPE, TEN)
    torch.manual_seed(3)
    same = build(name, SHAPE, TEN)
    other = build(name, SHAPE, TEN)
    assert not one.training
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(one(x), same(x))
        assert not torch.equal(one(x), other(x))


@pytest.mark.parametrize(
    "name",
    [
        "lenet5",
        "resnet8",
        "resnet20_cifar",
        pytest.param("mobilenet_v3_small", marks=pytest.mark.slow),
        pytest.param("shufflenet_v2_x0_5", marks=pytest.mark.slow),
        pytest.param("resnet56_cifar", marks=pytest.mark.slow),
    ],
)
# the exporter and onnxscript use their own deprecated names
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_network_exports_with_a_dynamic_batch(name: str, tmp_path: Path) -> None:
    model = build(name, SHAPE, TEN)
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        model,
        (torch.rand(2, 3, 32, 32),),
        path,
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
    )
    session = onnxruntime.InferenceSession(path)
    for batch in (1, 5):
        x = torch.rand(batch, 3, 32, 32)
        with torch.no_grad():
            wanted = model(x).numpy()
        (scores,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        largest = float(np.abs(wanted).max())  # an untrained deep network's scores are large
        np.testing.assert_allclose(np.asarray(scores), wanted, rtol=0, atol=1e-4 * max(1, largest))


def test_an_unknown_name_and_unknown_arguments_are_refused() -> None:
    with pytest.raises(InputError, match=r"no network is called 'resnet9'.*did you mean"):
        build("resnet9", SHAPE, TEN)
    with pytest.raises(InputError, match=r"model.arguments: .* unexpected keyword .*'depth'"):
        build("resnet8", SHAPE, {**TEN, "depth": 2})


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, hidden=8):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, hidden, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(hidden, num_classes),
        )
    def forward(self, x):
        return self.body(x)

def ten(num_classes):
    return Net(10)

def pair(num_classes):
    net = Net(num_classes)
    net.forward = lambda x: (net.body(x), x)
    return net

def name(num_classes):
    return "resnet"
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_networks.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_networks", None)


@pytest.mark.usefixtures("own_module")
def test_a_users_own_network() -> None:
    model = build_factory("own_networks:Net", {"num_classes": 6, "hidden": 5})
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) == 5 * 28 + 6 * 6


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("path", "channels", "arguments", "message"),
    [
        ("own_networks.Net", 3, {}, "model.factory: 'own_networks.Net'; allowed: module:function"),
        ("own_networks:net", 3, {}, "has no function 'net'.*did you mean 'Net'"),
        ("own_networks:Net", 3, {"hiden": 5}, "unexpected keyword argument 'hiden'; allowed: Net"),
        ("own_networks:Net", 1, {}, "model: own_networks:Net: does not take samples of 1x9x9: "),
        ("own_networks:ten", 3, {}, r"answers 2 samples with \(2, 10\); allowed: .* scores \(6,\)"),
        ("own_networks:pair", 3, {}, r"answers 2 samples with \(2, 6\), \(2, 3, 9, 9\); allowed"),
        ("own_networks:name", 3, {}, "returned a str; allowed: a torch.nn.Module"),
    ],
)
def test_a_faulty_factory_is_refused(path, channels, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        Architecture("factory", path, {"num_classes": 6, **arguments}).build((channels, 9, 9), SIX)


@pytest.mark.parametrize(
    "model",
    [
        {"name": "resnet8"},
        {"name": "resnet18", "weights": "pretrained", "arguments": {"width_per_group": 32}},
        {"factory": "my.nets:build"},
        {"uri": "models:/digits/1"},
        # the schema's business
        {},
        {"name": 8},
        None,
    ],
)
def test_a_fine_section_has_no_problems(model) -> None:
    assert check({"model": model}) == []
    assert check({}) == []


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ({"name": "resnet20"}, "model.name: no network is called 'resnet20'; allowed: lenet5"),
        ({"name": "ResNet8"}, "did you mean 'resnet8'?"),
        ({"factory": "nets.build"}, "model.factory: 'nets.build'; allowed: module:function"),
        ({"name": "resnet8", "weights": "pretrained"}, "resnet8 has no pretrained weights"),
        ({"factory": "a:b", "weights": "pretrained"}, "this model has no pretrained weights"),
        ({"name": "resnet8", "weights": "w.pkl"}, "w.pkl is no weights file; allowed: .safetens"),
        ({"name": "resnet8", "weights": "none.pt"}, "model.weights: no such file: none.pt"),
    ],
)
def test_a_problem_says_where_and_what(model: dict, text: str) -> None:
    (problem,) = check({"model": model})
    assert text in str(problem)
