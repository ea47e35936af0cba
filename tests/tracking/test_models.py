"""Deployables as logged models, and the way back from a URI to a file and its run."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from netzip_mlflow.errors import InputError
from netzip_mlflow.tracking import models

SHAPE = (1, 2, 2)


def digest(folder: Path) -> str:
    """Of the model there."""
    return hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()[:16]


@pytest.fixture
def logged(tracker, folder):
    """A finished baseline and a candidate with a logged model and a twin."""
    (folder / "twin").mkdir()
    (folder / "twin" / "twin.json").write_text("{}")
    with tracker.parent("compress", "digits") as parent:
        baseline = parent.child("baseline", "baseline", {"netzip.training_digest": "d1"})
        run = parent.child("candidate", "small", {"netzip.baseline": baseline.id})
        run.log({"before": 1.0})
        run.model(folder, "small")
        run.artifact(folder / "twin", "twin")
        run.log({"accuracy/top1": 0.5}, tags={"netzip.twin_digest": "t1"})
    return run


@pytest.fixture
def model_id(tracker, logged) -> str:
    return tracker.sender.models[logged._key]


def test_the_logged_model_is_a_pinned_onnx_model_that_answers(tracker, logged, model_id, folder):
    import mlflow.artifacts
    import mlflow.pyfunc

    place = Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}"))
    description = yaml.safe_load((place / "MLmodel").read_text())
    assert set(description["flavors"]) == {"onnx", "python_function"}
    assert description["metadata"]["netzip"] == {
        "task": "classification",
        "chain": ["prune_l1(0.3)", "ptq(int8)"],
        "model_digest": digest(folder),
    }
    pinned = set((place / "requirements.txt").read_text().split())
    wanted = {f"{name}=={version(name)}" for name in ("mlflow", "onnx", "onnxruntime")}
    assert pinned == wanted
    found = mlflow.pyfunc.load_model(f"models:/{model_id}")
    with np.load(folder / "golden.npz") as golden:
        assert np.array_equal(found.predict(golden["images"])["scores"], golden["scores"])
    signature = found.metadata.signature
    assert [(i.name, i.shape) for i in signature.inputs] == [("images", (-1, *SHAPE))]
    assert [(o.name, o.shape) for o in signature.outputs] == [("scores", (-1, 3))]


def test_nothing_is_pickled_and_no_weights_lie_outside(logged, model_id):
    import mlflow.artifacts

    place = Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}"))
    files = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()}
    assert {"model.onnx", "extra_files/netzip.json", "extra_files/golden.npz"} <= files
    assert not [f for f in files if Path(f).suffix in {".pkl", ".pickle", ".pt", ".data"}]
    weights = onnx.load(place / "model.onnx").graph.initializer[0]
    assert weights.data_location == onnx.TensorProto.DEFAULT
    assert len(onnx.numpy_helper.to_array(weights)) == 4


def test_the_model_belongs_to_its_run_and_carries_its_metrics(tracker, logged, model_id, folder):
    found = tracker.client.get_logged_model(model_id)
    assert found.name == "small"
    assert found.source_run_id == logged.id
    assert found.tags["netzip.model_digest"] == digest(folder)
    assert found.tags["netzip.chain"] == "prune_l1(0.3)+ptq(int8)"
    assert {m.key: m.value for m in found.metrics} == {"accuracy/top1": 0.5}
    assert tracker.client.get_run(logged.id).data.metrics == {"before": 1.0, "accuracy/top1": 0.5}
    outputs = tracker.client.get_run(logged.id).outputs.model_outputs
    assert [o.model_id for o in outputs] == [model_id]


def test_every_kind_of_uri_leads_to_the_file_and_its_run(
    tracker, logged, model_id, folder, tmp_path
):
    import mlflow

    shipped = (folder / "model.onnx").read_bytes()
    registered = mlflow.register_model(f"models:/{model_id}", "shipping")
    uris = [
        f"runs:/{logged.id}",
        f"runs:/{logged.id}/small",
        f"models:/{model_id}",
        f"models:/shipping/{registered.version}",
    ]
    for number, uri in enumerate(uris):
        place = tmp_path / str(number)
        place.mkdir()
        file, run_id = models.model_file(uri, place)
        assert (onnx.load(file), run_id) == (onnx.load(folder / "model.onnx"), logged.id), uri
    for path in (folder, folder / "model.onnx"):
        file, run_id = models.model_file(str(path), tmp_path)
        assert (file.read_bytes(), run_id) == (shipped, None)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("no/such/file.onnx", "no such ONNX file"),
        ("runs:/" + "0" * 32, "no such run"),
        ("models:/m-" + "0" * 32, "cannot be fetched"),
        ("models:/nobody/1", "cannot be fetched"),
        ("models:/nobody@best", "cannot be fetched"),
    ],
)
def test_a_uri_that_leads_nowhere(tracker, tmp_path, uri, says):
    with pytest.raises(InputError) as caught:
        models.model_file(uri, tmp_path)
    assert uri.removeprefix("runs:/") in str(caught.value)
    assert says in str(caught.value)


def test_a_model_file_that_is_not_what_was_stored(tracker, logged, model_id, tmp_path):
    stored = next(Path("mlruns").rglob("model.onnx"))
    stored.write_bytes(stored.read_bytes() + b" ")
    for number, uri in enumerate((f"runs:/{logged.id}", f"models:/{model_id}")):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(InputError, match=r"model\.onnx is damaged"):
            models.model_file(uri, tmp_path / str(number))


def test_artifacts_that_are_gone(tracker, logged, model_id, tmp_path):
    shutil.rmtree("mlruns")
    place = tmp_path / "fetched"
    place.mkdir()
    with pytest.raises(InputError, match=f"models:/{model_id}: is gone"):
        models.model_file(f"runs:/{logged.id}", place)
    with pytest.raises(InputError, match=f"runs:/{logged.id}: its twin is gone"):
        models.stored_twin(tracker.client, logged.id, place)


def test_a_run_without_a_model_has_none(tracker, tmp_path):
    with tracker.parent("compress", "digits") as parent:
        pass
    with pytest.raises(InputError, match="the run has no logged model"):
        models.model_file(f"runs:/{parent.id}", tmp_path)


def test_the_twin_behind_a_model(tracker, logged, folder, tmp_path):
    place, digest = models.twin_folder(f"runs:/{logged.id}", tmp_path)
    assert ((place / "twin.json").read_text(), digest) == ("{}", "t1")
    with pytest.raises(InputError, match="has no twin: only a deployable was logged there"):
        models.twin_folder(str(folder), tmp_path)


class TestRegister:
    def test_the_model_under_its_alias_however_often(self, tracker, logged):
        for number in (1, 2):
            assert logged.register("shipping", "best-ocs", {"netzip.ocs": "3"}) == ""
            found = tracker.client.get_model_version_by_alias("shipping", "best-ocs")
            assert (int(found.version), found.run_id, found.tags) == (
                number,
                logged.id,
                {"netzip.ocs": "3"},
            )

    @pytest.mark.parametrize(
        "call",
        [
            "get_registered_model",
            "create_registered_model",
            "create_model_version",
            "set_registered_model_alias",
        ],
    )
    @pytest.mark.parametrize(
        "error", [PermissionError("not yours"), Exception("not yours\nat all")]
    )
    def test_a_registry_that_refuses_is_said_and_nothing_else(
        self, tracker, logged, monkeypatch, call, error
    ):
        def refuse(*_given, **_named):
            raise error

        monkeypatch.setattr(tracker.sender.client, call, refuse)
        assert logged.register("shipping", "best-ocs", {}) == "not yours"
        assert len(tracker.outbox) == 0

    def test_versions_may_be_added_where_no_model_may_be_made(self, tracker, logged, monkeypatch):
        tracker.client.create_registered_model("shipping")
        monkeypatch.delattr(type(tracker.sender.client), "create_registered_model")
        assert logged.register("shipping", "best-ocs", {}) == ""

    def test_a_later_model_keeps_the_alias(self, tracker, logged, monkeypatch):
        """What was refused and is sent again stands behind what has been registered since."""
        client = tracker.sender.client

        def refuse(*_given, **_named):
            raise PermissionError("not yours")

        with monkeypatch.context() as patch:
            patch.setattr(client, "get_registered_model", refuse)
            assert logged.register("shipping", "best-ocs", {}) == "not yours"
        (refused,) = tracker.outbox.refused
        assert logged.register("shipping", "best-ocs", {}) == ""
        later = tracker.client.get_model_version_by_alias("shipping", "best-ocs")
        with tracker.parent("compress", "earlier") as earlier:
            tracker.sender.models[earlier._key] = tracker.sender.models[logged._key]
            write = dataclasses.replace(refused.write, run=earlier._key)
            tracker.sender(write, True)
        assert len(tracker.client.search_model_versions("name = 'shipping'")) == 2
        holder = tracker.client.get_model_version_by_alias("shipping", "best-ocs")
        assert holder.version == later.version
        tracker.sender(dataclasses.replace(write, at=later.creation_timestamp + 1), True)
        holder = tracker.client.get_model_version_by_alias("shipping", "best-ocs")
        assert holder.run_id == earlier.id, "of two, the one that was to be registered last"

    def test_a_model_that_was_not_stored(self, tracker):
        with tracker.parent("compress", "digits") as parent:
            run = parent.child("candidate", "small")
            assert "could not be logged" in run.register("shipping", "best-ocs", {})
        assert tracker.client.search_registered_models() == []


def test_which_baseline_a_run_was_measured_against(tracker, logged):
    tags = tracker.client.get_run(logged.id).data.tags
    assert models.baseline_of(tracker.client, logged.id) == tags["netzip.baseline"]
    assert models.baseline_of(tracker.client, tags["netzip.baseline"]) == tags["netzip.baseline"]


class TestStoredBaselines:
    @pytest.fixture
    def made(self, tracker) -> dict[str, str]:
        """Baselines by what is special about them; the later ones are newer."""
        found = {}
        for name, kind, digest, status, twin in (
            ("older", "baseline", "d1", "FINISHED", "t"),
            ("killed", "baseline", "d1", "KILLED", "t"),
            ("running", "baseline", "d1", None, "t"),
            ("half-written", "baseline", "d1", "KILLED", None),
            ("other digest", "baseline", "d2", "FINISHED", "t"),
            ("candidate", "candidate", "d1", "FINISHED", "t"),
        ):
            tags = {"netzip.kind": kind, "netzip.training_digest": digest}
            run = tracker.client.create_run(
                tracker.experiment_id,
                start_time=len(found) + 1,
                tags=tags | ({"netzip.twin_digest": twin} if twin else {}),
            )
            if status:
                tracker.client.set_terminated(run.info.run_id, status)
            found[name] = run.info.run_id
        return found

    def test_those_of_the_same_digest_that_are_whole_the_finished_first(self, tracker, made):
        client, home = tracker.client, tracker.experiment_id
        wanted = [made[name] for name in ("older", "running", "killed")]
        assert models.stored_baselines(client, home, "d1") == wanted
        assert models.stored_baselines(client, home, "d2") == [made["other digest"]]
        assert models.stored_baselines(client, home, "d3") == []

    def test_only_of_this_experiment_and_none_that_was_deleted(self, tracker, made):
        other = tracker.client.create_experiment("other")
        assert models.stored_baselines(tracker.client, other, "d1") == []
        tracker.client.delete_run(made["older"])
        found = models.stored_baselines(tracker.client, tracker.experiment_id, "d1")
        assert found == [made["running"], made["killed"]]
