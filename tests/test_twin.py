"""The twin: what is saved is what is rebuilt, without pickle; what does not fit is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from netzip_mlflow import edits
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.signature import InputSpec, OutputSpec
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.twin import Architecture, Edit, Twin

CODE = ["tiny_networks:tiny"]


@pytest.fixture
def saved(twin: Twin, context: Context, tmp_path: Path) -> Path:
    """A folder with a pruned twin in it."""
    PruneL1(0.5).apply(twin, context).save(tmp_path)
    return tmp_path


def _images(task: Classification, count: int = 16) -> torch.Tensor:
    return torch.from_numpy(next(task.split("validation").batches(count))[0])


def _scores(twin: Twin, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return twin.network()(images)


# --- round trip -----------------------------------------------------------------------------


def test_what_is_saved_is_rebuilt(twin: Twin, task: Classification, tmp_path: Path) -> None:
    twin.save(tmp_path / "new" / "folder")
    again = Twin.load(tmp_path / "new" / "folder", CODE)
    assert again.digest() == twin.digest()
    assert torch.equal(_scores(again, _images(task)), _scores(twin, _images(task)))
    assert (again.input, again.outputs, again.facts) == (twin.input, twin.outputs, twin.facts)
    assert (again.architecture, again.edits, again.chain) == (twin.architecture, (), ())
    assert not any(m.training for m in again.model.modules())


def test_masks_and_chain_are_rebuilt(saved: Path, twin: Twin, context: Context) -> None:
    again, pruned = Twin.load(saved, CODE), PruneL1(0.5).apply(twin, context)
    assert again.chain == ("prune_l1(0.5)",)
    assert again.masks.keys() == pruned.masks.keys()
    assert all(torch.equal(again.masks[k], pruned.masks[k]) for k in pruned.masks)
    assert again.digest() == pruned.digest()


def test_saving_twice_gives_the_same_bytes(twin: Twin, tmp_path: Path) -> None:
    twin.save(tmp_path / "a")
    Twin.load(tmp_path / "a", CODE).save(tmp_path / "b")
    for name in ("twin.safetensors", "twin.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_fresh_process_rebuilds_it(saved: Path, user_code: Path) -> None:
    code = (
        "import sys; sys.path.append(sys.argv[2])\n"
        "from pathlib import Path\n"
        "from netzip_mlflow import Twin\n"
        "print(Twin.load(Path(sys.argv[1]), ['tiny_networks:tiny']).digest())"
    )
    command = [sys.executable, "-c", code, str(saved), str(user_code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == Twin.load(saved, CODE).digest()


def test_nothing_is_pickled(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorted(p.name for p in saved.iterdir()) == ["twin.json", "twin.safetensors"]
    description = json.loads((saved / "twin.json").read_text())
    assert description["format"] == 2
    assert description["architecture"] == {
        "kind": "factory",
        "name": "tiny_networks:tiny",
        "arguments": {"num_classes": 4, "width": 8},
    }
    header = (saved / "twin.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert set(json.loads(header[8 : 8 + length])) == set(load_file(saved / "twin.safetensors"))

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", forbidden)
    monkeypatch.setattr("torch.load", forbidden)
    Twin.load(saved, CODE)


def test_an_architecture_of_the_table(tmp_path: Path) -> None:
    architecture = Architecture("name", "lenet5", {"num_classes": 3})
    spec, outputs = InputSpec((1, 20, 24), (0.5,), (0.25,)), OutputSpec.of(scores=(3,))
    made = Twin(architecture.build(spec.shape, outputs), spec, outputs, architecture)
    made.save(tmp_path)
    assert Twin.load(tmp_path, CODE).digest() == made.digest()


# --- the digest -----------------------------------------------------------------------------


def test_the_digest_follows_everything_that_counts(twin: Twin) -> None:
    def nudged(name: str) -> Twin:
        made = twin.copy()
        with torch.no_grad():
            made.model.state_dict()[name].view(-1)[0] += 1
        return made

    mask = torch.ones_like(twin.model.get_parameter("linear.weight"), dtype=torch.bool)
    others = [
        nudged("linear.weight"),
        nudged("bn1.running_mean"),
        nudged("bn1.num_batches_tracked"),
        twin.replace(masks={"linear.weight": mask}),
        twin.replace(masks={"linear.weight": ~mask}),
        twin.replace(chain=("something",)),
        twin.replace(facts={"classes": ["a", "b", "c", "d"]}),
        twin.replace(outputs=OutputSpec.of(answers=(4,))),
        twin.replace(input=InputSpec(twin.input.shape, (0.1,) * 3, twin.input.std)),
        twin.replace(edits=(Edit("a", {"b": 1}),)),
        twin.replace(edits=(Edit("a", {"b": 2}),)),
        twin.replace(architecture=Architecture("factory", "tiny_networks:tiny", {})),
    ]
    digests = {made.digest() for made in (twin, *others)}
    assert len(digests) == 1 + len(others)
    assert all(re.fullmatch("[0-9a-f]{16}", d) for d in digests)


def test_the_digest_sees_values_not_memory(twin: Twin) -> None:
    other = twin.copy()
    other.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    other.model.train()
    assert other.digest() == twin.copy().digest() == twin.digest()


def test_a_copy_has_weights_of_its_own(twin: Twin) -> None:
    before = twin.digest()
    made = twin.copy()
    with torch.no_grad():
        made.model.get_parameter("linear.weight").zero_()
    assert twin.digest() == before != made.digest()


# --- input ----------------------------------------------------------------------------------


def test_normalisation_is_inside_the_network(twin: Twin, task: Classification) -> None:
    images = _images(task)
    mean = np.array(twin.input.mean, np.float32)[None, :, None, None]
    std = np.array(twin.input.std, np.float32)[None, :, None, None]
    with torch.no_grad():
        expected = twin.model(torch.from_numpy((images.numpy() - mean) / std))
    torch.testing.assert_close(_scores(twin, images), expected)


def test_the_network_shares_the_twins_weights(twin: Twin) -> None:
    ours = {p.data_ptr() for p in twin.model.parameters()}
    assert {p.data_ptr() for p in twin.network().parameters()} == ours


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("mean", "std"), [((0.0,), (1.0, 2.0)), ((), (1.0,) * 4)])
def test_mean_and_std_are_one_per_channel(channels: int, mean: tuple, std: tuple) -> None:
    with pytest.raises(InputError, match=r"model.(mean|std): \d values given for samples of \d ch"):
        InputSpec((channels, 8, 8), mean or (0.0,) * channels, std)


# --- a plain module -------------------------------------------------------------------------


def test_a_plain_module_is_wrapped_and_copied() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).train()
    made = Twin.of(module, shape=(3, 2, 2))
    assert made.outputs == OutputSpec.of(output=(3,))
    assert made.architecture is None
    assert module.training, "the user's own module is left alone"
    with torch.no_grad():
        module[1].weight.zero_()  # type: ignore[union-attr, operator]
    assert made.model.get_parameter("1.weight").abs().sum() > 0
    images = torch.rand(2, 3, 2, 2)
    assert torch.equal(_scores(made, images), made.model(images).detach()), "no normalisation"


def test_a_plain_module_has_no_twin_to_save_and_says_so(tmp_path: Path) -> None:
    made = Twin.of(nn.Flatten(), shape=(1, 2, 2))
    with pytest.raises(NetzipError, match=r"a plain module has no twin to save: name an architect"):
        made.save(tmp_path / "twin")
    assert not (tmp_path / "twin").exists(), "nothing half-written"


# --- whose code is called -------------------------------------------------------------------

MARK = """
from pathlib import Path
Path({mark!r}).touch()
def make(num_classes, **_):
    Path({mark!r}).touch()
replay = make
"""
FACTORY = {"architecture": {"kind": "factory", "name": "left_behind:make", "arguments": {}}}
EDIT = {"edits": [{"technique": "left_behind:Replayed", "data": {}}]}


@pytest.mark.parametrize("change", [FACTORY, EDIT, FACTORY | EDIT], ids=["factory", "edit", "both"])
def test_code_that_only_the_twin_names_is_refused_before_it_is_imported(
    change: dict[str, Any], saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "executed"
    (tmp_path / "left_behind.py").write_text(MARK.format(mark=str(mark)))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    _change(saved, **change)
    names = [change[k]["name"] for k in change if k == "architecture"]
    names += [edit["technique"] for edit in change.get("edits", [])]
    with pytest.raises(InputError) as caught:
        Twin.load(saved, CODE)
    assert not mark.exists()
    assert "left_behind" not in sys.modules
    assert f"import and call {', '.join(sorted(names))}, which" in str(caught.value)
    assert f"model.allow: [{', '.join(sorted(names))}]" in str(caught.value)


def test_an_installed_technique_is_called(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _change(saved, edits=[{"technique": "own_techniques:Factorise", "data": {"rank": 2}}])
    _fails(saved, "would import and call own_techniques:Factorise")
    point = EntryPoint("thin", "own_techniques:Factorise", edits.ENTRY_POINTS)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    _fails(saved, "the weights do not fit the rebuilt network")  # so far it has come


# --- what does not fit ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, 3, ["tiny_networks:tiny"], {"a": 1}])
def test_a_name_that_is_no_text(saved: Path, name: Any) -> None:
    _change(saved, architecture={"kind": "factory", "name": name, "arguments": {}})
    _fails(saved, "no twin can be read")
    _change(
        saved,
        architecture={
            "kind": "factory",
            "name": CODE[0],
            "arguments": {"num_classes": 4, "width": 8},
        },
    )
    _change(saved, edits=[{"technique": name, "data": {}}])
    _fails(saved, "no twin can be read")


def _change(folder: Path, **changes: Any) -> None:
    file = folder / "twin.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _fails(folder: Path, message: str, *allow: str) -> None:
    with pytest.raises(InputError, match=message):
        Twin.load(folder, [*CODE, *allow])


def test_an_empty_folder(tmp_path: Path) -> None:
    _fails(tmp_path, "no twin can be read")
    _fails(tmp_path / "nowhere", "no twin can be read")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"twin"', "{}", '{"format": 1}', '{"format": 1, "input": 3}']
)
def test_a_description_that_is_none(saved: Path, text: str) -> None:
    (saved / "twin.json").write_text(text)
    _fails(saved, "no twin can be read|a twin of format")


def test_another_format(saved: Path) -> None:
    _change(saved, format=3)
    _fails(saved, "a twin of format 3; allowed: 2, 1")


def test_a_twin_of_format_1_is_read(saved: Path) -> None:
    """As it was written before: names of classes, and none of the task's arguments."""
    now = Twin.load(saved, CODE)
    file = saved / "twin.json"
    older = json.loads(file.read_text()) | {"format": 1, "classes": ["a", "b", "c", "d"]}
    older["architecture"]["arguments"] = {"width": 8}
    del older["outputs"], older["facts"]
    file.write_text(json.dumps(older))
    known = hashlib.sha256(json.dumps(older, sort_keys=True).encode())
    for name, tensor in sorted(load_file(saved / "twin.safetensors").items()):
        known.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        known.update(tensor.numpy().tobytes())
    read = Twin.load(saved, CODE, known.hexdigest()[:16])
    assert read.replace(facts=now.facts).digest() == now.digest()
    assert read.facts == {"classes": ["a", "b", "c", "d"]}
    with pytest.raises(InputError, match=r"the twin is damaged: its digest is [0-9a-f]{16}, not 0"):
        Twin.load(saved, CODE, "0" * 16)


def test_several_outputs_come_in_the_specs_order() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"sum": x.sum((1, 2, 3))[:, None], "mean": x.mean((2, 3))}

    asked = Twin.of(Two(), shape=(3, 4, 4))
    assert asked.outputs == OutputSpec.of(sum=(1,), mean=(3,))
    turned = asked.replace(outputs=OutputSpec.of(mean=(3,), sum=(1,)))
    images = torch.rand(2, 3, 4, 4)
    mean, total = turned.network()(images)
    assert torch.equal(mean, images.mean((2, 3)))
    assert torch.equal(total[:, 0], images.sum((1, 2, 3)))


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\x00" * 64])
def test_weights_that_are_no_safetensors(saved: Path, content: bytes) -> None:
    (saved / "twin.safetensors").write_bytes(content)
    _fails(saved, "no twin can be read")


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_of_another_network(saved: Path, change: str) -> None:
    tensors = load_file(saved / "twin.safetensors")
    if change == "missing":
        del tensors["model.conv1.weight"]
    elif change == "extra":
        tensors["model.conv9.weight"] = torch.zeros(1)
    else:
        tensors["model.conv1.weight"] = torch.zeros(8, 3, 5, 5)
    save_file(tensors, saved / "twin.safetensors")
    _fails(saved, "the weights do not fit the rebuilt network")


def test_an_architecture_that_is_gone(saved: Path) -> None:
    _change(saved, architecture={"kind": "factory", "name": "not_here:tiny", "arguments": {}})
    _fails(saved, "model.factory: not_here cannot be imported", "not_here:tiny")
    _change(saved, architecture={"kind": "name", "name": "lenet", "arguments": {}})
    _fails(saved, "no network is called 'lenet'.*did you mean 'lenet5'")


def test_an_edit_of_an_unknown_technique(saved: Path) -> None:
    _change(saved, edits=[{"technique": "prune_chanels", "data": {}}])
    _fails(saved, "unknown technique 'prune_chanels'")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written(twin: Twin, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(NetzipError, match=r"twin: cannot be written"):
        twin.save(tmp_path / "locked" / "twin")


def test_a_file_where_the_folder_should_be(twin: Twin, tmp_path: Path) -> None:
    (tmp_path / "twin").write_text("not a folder")
    with pytest.raises(NetzipError, match=r"twin: cannot be written"):
        twin.save(tmp_path / "twin")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(cut=st.integers(0, 400), garbage=st.binary(max_size=8))
def test_a_truncated_description_never_surprises(saved: Path, cut: int, garbage: bytes) -> None:
    file = saved / "twin.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:cut] + garbage)
    try:
        _fails(saved, "no twin can be read|a twin of format")
    finally:
        file.write_bytes(whole)
