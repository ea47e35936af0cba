"""Export: what ONNX Runtime computes is what torch computes, for any batch, from raw images."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from netzip_mlflow.deployable import Deployable, Exports, export
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.twin import Architecture, InputSpec, Twin

SCORES = OutputSpec.of(scores=(10,))


@pytest.fixture(scope="module")
def session(baseline: Deployable) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        baseline.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 40), seed=st.integers(0, 2**31), scale=st.floats(0, 1, width=32))
def test_it_agrees_with_torch_for_any_batch(
    batch: int, seed: int, scale: float, session: onnxruntime.InferenceSession, twin: Twin
) -> None:
    draw = np.random.default_rng(seed)
    images = np.float32(scale) * draw.random((batch, *twin.input.shape), dtype=np.float32)
    with torch.no_grad():
        expected = twin.network()(torch.from_numpy(images)).numpy()
    found = session.run(["scores"], {"images": images})[0]
    assert found.shape == (batch, 4)
    assert np.abs(found - expected).max() <= 1e-4


def test_the_logged_deviation_is_that_agreement(twin: Twin, context: Context) -> None:
    made = context.exports(twin)
    assert 0 <= made.deviation <= 1e-4
    assert deploy(twin, context).manifest["float_deviation"] == made.deviation


def test_normalisation_is_inside_the_graph(
    session: onnxruntime.InferenceSession, twin: Twin, task: Classification
) -> None:
    images, _ = next(task.split("validation").batches(8))
    mean, std = (
        np.array(v, np.float32)[None, :, None, None] for v in (twin.input.mean, twin.input.std)
    )
    with torch.no_grad():
        expected = twin.model(torch.from_numpy((images - mean) / std)).numpy()
    found = session.run(None, {"images": images})[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_interface_of_the_file(baseline: Deployable) -> None:
    (images,), (scores,) = baseline.model.graph.input, baseline.model.graph.output
    assert (images.name, scores.name) == ("images", "scores")
    assert images.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    shape = images.type.tensor_type.shape.dim
    assert [d.dim_value for d in shape] == [0, 3, 12, 12]
    assert shape[0].dim_param, "a dynamic batch has a name"
    assert scores.type.tensor_type.shape.dim[0].dim_param == shape[0].dim_param
    assert not any(t.external_data for t in baseline.model.graph.initializer)
    onnx.checker.check_model(baseline.model, full_check=True)


def test_layers_are_named_as_in_the_network(twin: Twin, context: Context) -> None:
    assert context.exports(twin).layers == ("conv1", "conv2", "linear")


def test_layers_on_tokens_are_named_too() -> None:
    """They are exported as products with a turned weight that has no name."""
    made = nn.Sequential(
        OrderedDict(
            tokens=nn.Flatten(2),
            mixed=nn.Linear(16, 24),
            twice=nn.Linear(24, 24),
            same=nn.Linear(24, 24),
            flat=nn.Flatten(1),
            head=nn.Linear(72, 5),
        )
    )
    made.same.load_state_dict(made.twice.state_dict())
    exported = export(Twin.of(made, shape=(3, 4, 4)))
    assert exported.layers == ("mixed", "twice", "same", "head")


def test_batchnorm_is_folded(baseline: Deployable) -> None:
    assert "BatchNormalization" not in {n.op_type for n in baseline.model.graph.node}


def test_exporting_leaves_the_twin(fresh_twin: Twin) -> None:
    moved = fresh_twin.copy()
    moved.model.train()
    before = moved.digest()
    made = export(moved)
    assert moved.digest() == before
    with torch.no_grad():
        expected = moved.network()(torch.ones(2, 3, 12, 12)).numpy()
    session = onnxruntime.InferenceSession(
        made.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {"images": np.ones((2, 3, 12, 12), np.float32)})[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_module_that_normalises_itself_gets_no_second_time() -> None:
    plain = Twin.of(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), shape=(3, 2, 2))
    kinds = {n.op_type for n in export(plain).model.graph.node}
    assert not {"Sub", "Div"} & kinds


# --- what cannot be exported ----------------------------------------------------------------


class _Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return self.linear(x.flatten(1))
        return -self.linear(x.flatten(1))


class _Bessel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


class _Untranslated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 2)
        self.odd = nn.Sequential(_Bessel())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.odd(self.linear(x.flatten(1)))


class _FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.reshape(2, 12))


class _Tuple(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.linear(x.flatten(1))
        return scores, scores.softmax(1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            _Branching,
            r"torch cannot export the network to ONNX: .{20}.* \(test_export\.py, line \d+\)",
        ),
        (_Untranslated, r"torch cannot export the network to ONNX: .*bessel_j0.* \(layer odd\.0\)"),
        (_FixedBatch, r"torch cannot export the network to ONNX: it takes batches of one size"),
        (
            _Tuple,
            r"the network: answers 2 samples with \(2, 2\), \(2, 2\); allowed: .*scores \(2,\)",
        ),
        (
            nn.Identity,
            r"the network: answers 2 samples with \(2, 3, 2, 2\); allowed: .*scores \(2,\)",
        ),
    ],
)
def test_a_network_that_cannot_be_exported_says_why(module: type[nn.Module], message: str) -> None:
    twin = Twin.of(module(), shape=(3, 2, 2), outputs=OutputSpec.of(scores=(2,)))
    with pytest.raises(NetzipError, match=f"^{message}") as caught:
        export(twin)
    assert "\n" not in str(caught.value)


def test_what_torch_prints_of_its_graphs_is_kept_from_the_user(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(NetzipError):
        export(Twin.of(_Branching(), shape=(3, 2, 2)))
    assert capsys.readouterr() == ("", "")


def test_images_that_do_not_fit_say_so() -> None:
    twin = Twin.of(
        nn.Sequential(nn.Flatten(), nn.Linear(5, 2)),
        shape=(3, 2, 2),
        outputs=OutputSpec.of(scores=(2,)),
    )
    with pytest.raises(
        NetzipError, match=r"export the network to ONNX: mat1 and mat2 shapes .* \(layer 1\)$"
    ):
        export(twin)


# --- the memory of exports ------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which twins were really exported, by digest; the exports themselves are stand-ins."""
    calls: list[str] = []

    def fake(twin: Twin) -> SimpleNamespace:
        calls.append(twin.digest())
        return SimpleNamespace(digest=twin.digest())

    # by module: the package shows the function under the module's name
    module = importlib.import_module("netzip_mlflow.deployable.export")
    monkeypatch.setattr(module, "export", fake)
    return calls


def _twins(count: int) -> list[Twin]:
    base = Twin.of(nn.Flatten(), shape=(1, 2, 2))
    return [base.replace(chain=(str(i),)) for i in range(count)]


def test_a_twin_is_exported_once(counted: list[str]) -> None:
    exports = Exports()
    (twin,) = _twins(1)
    first = exports(twin)
    assert exports(twin.copy()) is first
    assert counted == [twin.digest()]


def test_the_memory_is_bounded_and_keeps_what_was_used_last(counted: list[str]) -> None:
    exports = Exports(size=2)
    a, b, c = _twins(3)
    for twin in (a, b, a, c):  # b is the one not used for longest
        exports(twin)
    assert len(counted) == 3
    exports(a)
    assert len(counted) == 3
    exports(b)
    assert counted[-1] == b.digest()
    assert len(counted) == 4


def test_two_structures_with_equal_weights_are_two(counted: list[str]) -> None:
    exports = Exports()
    for module in (nn.ReLU(), nn.Tanh(), nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)):
        exports(Twin.of(module, shape=(1, 2, 2)))
    assert len(counted) == 4


# --- the networks of the table --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet5", (1, 32, 32)),
        ("resnet8", (3, 32, 32)),
        ("resnet20_cifar", (3, 32, 32)),
        ("resnet110_cifar", (3, 32, 32)),
        ("resnet18", (3, 64, 64)),
        ("mobilenet_v3_small", (3, 64, 64)),
        ("efficientnet_b0", (3, 64, 64)),
    ],
)
def test_known_networks_export(name: str, shape: tuple[int, int, int]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        architecture = Architecture("name", name, {"num_classes": 10})
        model = architecture.build(shape, SCORES)
    spec = InputSpec(shape, (0.5,) * shape[0], (0.25,) * shape[0])
    twin = Twin(model, spec, SCORES, architecture)
    made = export(twin)
    with torch.no_grad():  # of random weights, a deep network's scores are huge
        scores = twin.network()(torch.rand(3, *shape, generator=torch.Generator().manual_seed(1)))
    assert made.deviation <= 1e-4 * max(1.0, float(scores.abs().max()))
    onnx.checker.check_model(made.model, full_check=True)
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sorted(made.layers) == sorted(layers), "each layer under its own name"
