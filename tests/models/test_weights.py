"""Weights from files: what fits is loaded whole, what does not is refused whole."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models as zoo

from netzip_mlflow.errors import InputError
from netzip_mlflow.models import build, load_pretrained, load_weights, missing
from netzip_mlflow.recipe import ModelSpec

State = dict[str, torch.Tensor]


def _model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("resnet8", (3, 32, 32), {"num_classes": 10})


def _equal(model: nn.Module, state: State) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[k], state[k]) for k in own)


def _same(state: State) -> Any:
    return state


def _parallel(state: State) -> Any:
    return {f"module.{key}": value for key, value in state.items()}


def _checkpoint(state: State) -> Any:
    return {"state_dict": _parallel(state), "epoch": 3, "best": 0.9}


@pytest.mark.parametrize("form", [_same, _parallel])
def test_safetensors(tmp_path: Path, form: Callable[[State], State]) -> None:
    saved = _model(1).state_dict()
    path = tmp_path / "weights.safetensors"
    save_file(form(saved), path)
    model = _model(2)
    load_weights(model, path)
    assert _equal(model, saved)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("form", [_same, _parallel, _checkpoint])
def test_torch_files(tmp_path: Path, form: Callable[[State], Any], suffix: str) -> None:
    saved = _model(1).state_dict()
    path = tmp_path / f"weights{suffix}"
    torch.save(form(saved), path)
    model = _model(2)
    load_weights(model, str(path))
    assert _equal(model, saved)


def test_old_files_without_batch_counters_load(tmp_path: Path) -> None:
    saved = {k: v for k, v in _model(1).state_dict().items() if not k.endswith("batches_tracked")}
    path = tmp_path / "weights.safetensors"
    save_file(saved, path)
    model = _model(2)
    load_weights(model, path)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in saved.items())


def _without_two(state: State) -> None:
    del state["conv1.weight"], state["linear.bias"]


def _with_strangers(state: State) -> None:
    state.update({f"fc{i}.weight": torch.zeros(1) for i in range(5)})


def _narrower(state: State) -> None:
    state["linear.weight"] = torch.zeros(9, 64)


def _integers(state: State) -> None:
    state["conv1.weight"] = torch.zeros(16, 3, 3, 3, dtype=torch.int8)


def _with_nan(state: State) -> None:
    state["layer1.conv1.bias"][3] = torch.nan


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_without_two, "conv1.weight; linear.bias: missing"),
        (_with_strangers, "fc0.weight; fc1.weight; fc2.weight and 2 more: not in the model"),
        (_narrower, "linear.weight (9, 64), the model's is (10, 64): of another shape"),
        (_integers, "conv1.weight torch.int8, the model's is torch.float32: of another kind"),
        (_with_nan, "layer1.conv1.bias: not finite"),
    ],
)
def test_weights_that_do_not_fit_leave_the_model_as_it_was(
    tmp_path: Path, harm: Callable[[State], None], message: str
) -> None:
    state = _model(1).state_dict()
    harm(state)
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    model = _model(2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(model, path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert _equal(model, before)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    state = _model(1).state_dict()
    for harm in (_without_two, _with_strangers, _narrower):
        harm(state)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(InputError) as caught:
        load_weights(_model(), tmp_path / "weights.safetensors")
    assert len(caught.value.problems) == 3


class Harmful:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_a_pickle_of_code_is_refused_and_not_run(tmp_path: Path, save: str) -> None:
    path, marker = tmp_path / "weights.pt", tmp_path / "ran"
    content = {"conv1.weight": Harmful(marker)}
    if save == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match="a pickle that holds more than tensors"):
        load_weights(_model(), path)
    assert not marker.exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(_model(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"save model.state_dict.. with safetensors"):
        load_weights(_model(), tmp_path / "weights.pt")


@pytest.mark.parametrize("held", [{}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(3)])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, held: Any) -> None:
    torch.save(held, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="holds no state dict"):
        load_weights(_model(), tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("damage", [b"", b"\x00" * 40, b"PK\x03\x04 and then nothing"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, damage: bytes) -> None:
    (tmp_path / name).write_bytes(damage)
    with pytest.raises(InputError, match=name):
        load_weights(_model(), tmp_path / name)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    state = _model().state_dict()
    if path.suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=name):
        load_weights(_model(), path)


@pytest.mark.parametrize(
    ("name", "message"), [("none.safetensors", "no such file"), ("w.bin", "is no weights file")]
)
def test_no_file_or_another_kind(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_weights(_model(), tmp_path / name)


NAME = "shufflenet_v2_x0_5"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """Weights for 1,000 classes where torchvision keeps its downloads."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    state = zoo.get_model(NAME, weights=None).state_dict()
    url = zoo.get_model_weights(NAME)["DEFAULT"].url
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / Path(url).name)
    return state


def test_pretrained_weights_for_the_same_classes_load_whole(cached: State) -> None:
    model = build(NAME, (3, 32, 32), {"num_classes": 1000})
    assert load_pretrained(model, NAME) == ()
    assert _equal(model, cached)


def test_pretrained_weights_for_other_classes_leave_the_head(cached: State) -> None:
    model = build(NAME, (3, 32, 32), {"num_classes": 10})
    head = model.state_dict()["fc.weight"].clone()
    assert load_pretrained(model, NAME) == ("fc.weight", "fc.bias")
    assert torch.equal(model.state_dict()["fc.weight"], head)
    assert torch.equal(model.state_dict()["conv1.0.weight"], cached["conv1.0.weight"])


@pytest.mark.usefixtures("cached")
def test_pretrained_weights_for_another_width_are_refused() -> None:
    model = build("shufflenet_v2_x1_0", (3, 32, 32), {"num_classes": 10})
    with pytest.raises(InputError, match="of another shape"):
        load_pretrained(model, NAME)


def test_pretrained_weights_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise URLError("the network is unreachable")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    model = build(NAME, (3, 32, 32), {"num_classes": 10})
    with pytest.raises(InputError) as caught:
        load_pretrained(model, NAME)
    text = str(caught.value)
    assert "network is unreachable" in text
    assert f"looked for {tmp_path / 'checkpoints'}" in text
    assert "then tried https://" in text


def test_networks_without_pretrained_weights() -> None:
    with pytest.raises(InputError, match="resnet8 has no pretrained weights of its own"):
        load_pretrained(_model(), "resnet8")


def test_weights_that_are_not_here_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    problem = missing(ModelSpec(name=NAME, weights="pretrained"))
    assert problem is not None
    assert f"{NAME}'s pretrained weights are not here yet: {tmp_path}" in str(problem)
    assert problem.hint == "compress would download them"
    problem = missing(ModelSpec(name="resnet8", weights=str(tmp_path / "none.pt")))
    assert problem is not None
    assert f"no such file: {tmp_path / 'none.pt'}" in str(problem)


@pytest.mark.usefixtures("cached")
def test_weights_that_are_here_are_not_missing(tmp_path: Path) -> None:
    (tmp_path / "some.pt").touch()
    assert missing(ModelSpec(name=NAME, weights="pretrained")) is None
    assert missing(ModelSpec(name="resnet8", weights=str(tmp_path / "some.pt"))) is None
    assert missing(ModelSpec(name="resnet8")) is None
    assert missing(ModelSpec(uri="models:/m-1")) is None
