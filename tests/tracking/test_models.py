"""Deployables as logged models, and the way back from a URI to a file and its run."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from netzip_mlflow.errors import InputError
from netzip_mlflow.tracking import models

SHAPE = (1, 2, 2)


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
        run.log({"accuracy/top1": 0.5})
    return run


def test_the_logged_model_is_a_pinned_onnx_model_that_answers(tracker, logged, folder):
    import mlflow.artifacts
    import mlflow.pyfunc

    place = Path(mlflow.artifacts.download_artifacts(f"models:/{logged.model_id}"))
    description = yaml.safe_load((place / "MLmodel").read_text())
    assert set(description["flavors"]) == {"onnx", "python_function"}
    assert description["metadata"]["netzip"] == {
        "task": "classification",
        "chain": ["prune_l1(0.3)", "ptq(int8)"],
        "model_digest": "0123456789abcdef",
    }
    pinned = set((place / "requirements.txt").read_text().split())
    wanted = {f"{name}=={version(name)}" for name in ("mlflow", "onnx", "onnxruntime")}
    assert pinned == wanted
    found = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
    with np.load(folder / "golden.npz") as golden:
        assert np.array_equal(found.predict(golden["images"])["scores"], golden["scores"])
    signature = found.metadata.signature
    assert [(i.name, i.shape) for i in signature.inputs] == [("images", (-1, *SHAPE))]
    assert [(o.name, o.shape) for o in signature.outputs] == [("scores", (-1, 3))]


def test_nothing_is_pickled_and_no_weights_lie_outside(logged):
    import mlflow.artifacts

    place = Path(mlflow.artifacts.download_artifacts(f"models:/{logged.model_id}"))
    files = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()}
    assert {"model.onnx", "extra_files/netzip.json", "extra_files/golden.npz"} <= files
    assert not [f for f in files if Path(f).suffix in {".pkl", ".pickle", ".pt", ".data"}]
    weights = onnx.load(place / "model.onnx").graph.initializer[0]
    assert weights.data_location == onnx.TensorProto.DEFAULT
    assert len(onnx.numpy_helper.to_array(weights)) == 4


def test_the_model_belongs_to_its_run_and_carries_its_metrics(tracker, logged):
    found = tracker.client.get_logged_model(logged.model_id)
    assert found.name == "small"
    assert found.source_run_id == logged.id
    assert found.tags["netzip.model_digest"] == "0123456789abcdef"
    assert found.tags["netzip.chain"] == "prune_l1(0.3)+ptq(int8)"
    assert {m.key: m.value for m in found.metrics} == {"accuracy/top1": 0.5}
    assert tracker.client.get_run(logged.id).data.metrics == {"before": 1.0, "accuracy/top1": 0.5}
    outputs = tracker.client.get_run(logged.id).outputs.model_outputs
    assert [o.model_id for o in outputs] == [logged.model_id]


def test_every_kind_of_uri_leads_to_the_file_and_its_run(tracker, logged, folder, tmp_path):
    import mlflow

    shipped = (folder / "model.onnx").read_bytes()
    registered = mlflow.register_model(f"models:/{logged.model_id}", "shipping")
    uris = [
        f"runs:/{logged.id}",
        f"runs:/{logged.id}/small",
        f"models:/{logged.model_id}",
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


def test_a_run_without_a_model_has_none(tracker, tmp_path):
    with tracker.parent("compress", "digits") as parent:
        pass
    with pytest.raises(InputError, match="the run has no logged model"):
        models.model_file(f"runs:/{parent.id}", tmp_path)


def test_the_twin_behind_a_model(tracker, logged, folder, tmp_path):
    place = models.twin_folder(f"runs:/{logged.id}", tmp_path)
    assert (place / "twin.json").read_text() == "{}"
    with pytest.raises(InputError, match="has no twin: only a deployable was logged there"):
        models.twin_folder(str(folder), tmp_path)


def test_which_baseline_a_run_was_measured_against(tracker, logged):
    tags = tracker.client.get_run(logged.id).data.tags
    assert models.baseline_of(tracker.client, logged.id) == tags["netzip.baseline"]
    assert models.baseline_of(tracker.client, tags["netzip.baseline"]) == tags["netzip.baseline"]


class TestFindBaseline:
    @pytest.fixture
    def made(self, tracker) -> dict[str, str]:
        """Baselines by what is special about them; the later ones are newer."""
        found = {}
        for name, kind, digest, status in (
            ("older", "baseline", "d1", "FINISHED"),
            ("newest", "baseline", "d1", "FINISHED"),
            ("failed", "baseline", "d1", "FAILED"),
            ("running", "baseline", "d1", None),
            ("other digest", "baseline", "d2", "FINISHED"),
            ("candidate", "candidate", "d1", "FINISHED"),
        ):
            run = tracker.client.create_run(
                tracker.experiment_id,
                start_time=len(found) + 1,
                tags={"netzip.kind": kind, "netzip.training_digest": digest},
            )
            if status:
                tracker.client.set_terminated(run.info.run_id, status)
            found[name] = run.info.run_id
        return found

    def test_the_newest_finished_one_of_the_same_digest(self, tracker, made):
        client, home = tracker.client, tracker.experiment_id
        assert models.find_baseline(client, home, "d1") == made["newest"]
        assert models.find_baseline(client, home, "d2") == made["other digest"]
        assert models.find_baseline(client, home, "d3") is None

    def test_only_of_this_experiment_and_none_that_was_deleted(self, tracker, made):
        other = tracker.client.create_experiment("other")
        assert models.find_baseline(tracker.client, other, "d1") is None
        tracker.client.delete_run(made["newest"])
        found = models.find_baseline(tracker.client, tracker.experiment_id, "d1")
        assert found == made["older"]
