"""Tasks of a user's own go through every command, with nothing of the package changed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from netzip_mlflow.runs.job import Options
from netzip_mlflow.stages.compress import compress
from netzip_mlflow.stages.measure import measure
from netzip_mlflow.stages.search.command import Request, search_recipe
from netzip_mlflow.tasks import open_task
from netzip_mlflow.twin import Twin

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from netzip_mlflow.recipe import Recipe

MEASURE = """
measure: {threads: 1, latency: {target: 0.5, max_seconds: 1, min_rounds: 5}, throughput: [8]}
score: {max_drop_points: 100}
"""
SCENES = f"""
name: scenes
task: "digit_and_centre:DigitAndCentre"
data: {{factory: "digit_and_centre:scenes", validation: 0.2, test: 0.2, calibration: 64}}
model: {{factory: "digit_and_centre:network"}}
train: {{epochs: 5, optimizer: adamw, lr: 0.01, batch: 16, precision: float32, threads: 1}}
candidates:
  int8: [ptq]
  narrow: [{{ptq: {{bits: 2, edges: 2, wide: 8, max_drop: 3.0}}}}]
  qat: [{{qat: {{bits: 4, epochs: 1}}}}]
  pruned:
    - {{prune_channels: {{ratio: 0.25, importance: taylor, reconstruct: 64}}}}
    - {{finetune: {{epochs: 1, lr: 0.02, teacher: baseline, crop: 1}}}}
    - ptq
  small: [{{distil: {{student: "digit_and_centre:student", epochs: 1, lr: 0.1}}}}, half]
search:
  trials: 2
  sampler: random
  keep: 1
  space:
    - {{prune_channels: {{ratio: [0.25, 0.5]}}}}
    - {{qat: {{bits: 4, epochs: 1}}}}
{MEASURE}
"""
WAVES = f"""
name: waves
task: "waves:Periods"
data: {{factory: "waves:signals", validation: 0.2, test: 0.2, calibration: 64}}
model: {{factory: "waves:network"}}
train: {{epochs: 5, optimizer: adamw, lr: 0.004, batch: 32, precision: float32, threads: 1}}
candidates:
  int8: [ptq]
  qat: [{{qat: {{bits: 4, epochs: 1}}}}]
  pruned: [{{prune_channels: {{ratio: 0.25, reconstruct: 64}}}}, ptq]
{MEASURE}
"""
OURS = ("top1", "top5", "f1", "precision", "recall", "ece", "agreement", "worst_class")


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a compress run left behind."""

    recipe: Recipe
    options: Options
    client: MlflowClient
    experiment: str
    parent: str
    runs: dict[str, str]
    said: list[str]

    def metrics(self, name: str) -> dict[str, float]:
        return self.client.get_run(self.runs[name]).data.metrics

    def model(self, name: str) -> Path:
        """The folder of a logged model."""
        import mlflow.artifacts

        (output,) = self.client.get_run(self.runs[name]).outputs.model_outputs
        return Path(mlflow.artifacts.download_artifacts(f"models:/{output.model_id}"))

    def fetch(self, run: str, path: str) -> Path:
        return Path(self.client.download_artifacts(run, path))


@pytest.fixture
def finished(
    workplace: Options, client: MlflowClient, loads: Callable[..., Recipe], no_fresh_process: None
) -> Callable[[str], Finished]:
    """`finished(text)` compresses by a recipe; no candidate failed, and every piece was made."""

    def run(text: str) -> Finished:
        said: list[str] = []
        options = dataclasses.replace(workplace, say=said.append)
        recipe = loads(text)
        outcome = compress(recipe, options)
        assert not [line for line in said if "failed" in line or "cannot be" in line], said
        runs = {each.name: each.run.id for each in outcome.candidates}
        assert [*runs] == ["baseline", *recipe.candidates]
        return Finished(recipe, options, client, outcome.experiment_id, outcome.run_id, runs, said)

    return run


def _judged_by_its_own(done: Finished, primary: str, *others: str) -> None:
    """Every figure of the task is there, and none of ours."""
    for name in done.runs:
        metrics = done.metrics(name)
        for key in (primary, *others):
            assert f"accuracy/{key}" in metrics
            assert f"validation/accuracy/{key}" in metrics
        assert not [key for key in metrics for ours in OURS if ours in key.rpartition("/")[2]]
        if name != "baseline":
            low, drop, high = (
                metrics[f"accuracy/drop_points{end}"] for end in ("_low", "", "_high")
            )
            assert low <= drop <= high
            lost = done.metrics("baseline")[f"accuracy/{primary}"] - metrics[f"accuracy/{primary}"]
            assert drop == pytest.approx(100 * lost, abs=1e-4)
            assert metrics["ratio/C"] > 1.5
            assert {"ratio/P", "score/ocs", "score/feasible"} <= metrics.keys()
    frame = pd.read_csv(done.fetch(done.parent, "comparison.csv"))
    assert f"accuracy/{primary}" in frame
    assert len(frame) == len(done.runs)
    assert done.fetch(done.parent, "report.html").stat().st_size > 10_000
    assert {p.suffix for p in done.fetch(done.parent, "plots").iterdir()} == {".svg", ".png"}
    tags = done.client.get_experiment(done.experiment).tags
    assert sum(key.startswith("mlflow.sharedViewState.") for key in tags) >= 2


@pytest.mark.slow
def test_two_outputs_go_through_everything(
    finished: Callable[[str], Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = finished(SCENES)
    task: Any = open_task(done.recipe.task, done.recipe.data, done.recipe.seed)
    _judged_by_its_own(done, "located", "digit", "centre_px")
    baseline, narrow = done.metrics("baseline"), done.metrics("narrow")
    assert baseline["accuracy/located"] > 0.5
    assert baseline["accuracy/centre_px"] < 1.5
    assert done.metrics("int8")["speed/int8_layers"] == 5
    fallen = baseline["validation/accuracy/located"] - narrow["validation/accuracy/located"]
    assert fallen <= 0.03 + 1e-9, "layers got wide until the drop was within max_drop"
    assert done.metrics("pruned")["speed/macs"] < baseline["speed/macs"] * 0.8

    for name in done.runs:
        folder = done.model(name)
        manifest = json.loads(next(folder.rglob("netzip.json")).read_text())
        assert manifest["task"] == "digit-and-centre"
        wanted = [{"name": "digit", "shape": [10]}, {"name": "centre", "shape": [2]}]
        assert manifest["outputs"] == wanted
        assert manifest["centre"] == {"axes": ["row", "column"], "unit": "pixels"}
        assert "classes" not in manifest
        golden = np.load(next(folder.rglob("golden.npz")))
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        answers = session.run(["digit", "centre"], {"images": golden["images"]})
        for key, values in zip(("digit", "centre"), answers, strict=True):
            np.testing.assert_allclose(golden[key], np.asarray(values), atol=1e-4)
        np.testing.assert_array_equal(golden["targets"], task.split("validation").targets[:16])

    allowed = ["digit_and_centre:network", "digit_and_centre:student"]
    images = torch.from_numpy(next(task.split("validation").batches(8))[0])
    for name in done.runs:
        digest = done.client.get_run(done.runs[name]).data.tags["netzip.twin_digest"]
        again = Twin.load(done.fetch(done.runs[name], "twin"), allowed, digest)
        assert (again.outputs, again.facts) == (task.outputs, task.facts)
        task.outputs.require(again.network()(images), 8, name)

    pairs = measure([f"runs:/{done.runs['pruned']}"], done.options, recipe=done.recipe)
    (_, measured) = pairs[1]
    expected = done.metrics("pruned")["accuracy/located"]
    assert measured.metrics["accuracy/located"] == pytest.approx(expected)

    found = search_recipe(done.recipe, done.options, Request(None))
    assert found is not None
    assert found.trials == 2
    winner = found.outcome.candidates[-1]
    assert winner.measured is not None
    assert winner.measured.metrics["validation/score/feasible"] == 1.0
    assert "accuracy/centre_px" in winner.measured.metrics


@pytest.mark.slow
def test_signals_go_through_compress(finished: Callable[[str], Finished]) -> None:
    done = finished(WAVES)
    _judged_by_its_own(done, "nearness", "rmse_periods")
    baseline = done.metrics("baseline")
    assert baseline["accuracy/nearness"] > 0.7
    for name in ("int8", "qat", "pruned"):
        assert done.metrics(name)["speed/int8_layers"] == 4
        assert done.metrics(name)["accuracy/drop_points"] < 10
    assert done.metrics("pruned")["speed/macs"] < 0.85 * baseline["speed/macs"]
    manifest = json.loads(next(done.model("pruned").rglob("netzip.json")).read_text())
    assert manifest["input"]["shape"] == [2, 48]
    assert manifest["input"]["layout"] == "NCL"
    again = Twin.load(done.fetch(done.runs["pruned"], "twin"), ["waves:network"])
    assert again.network()(torch.rand(3, 2, 48)).shape == (3, 1)
