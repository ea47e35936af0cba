"""`mlflow run . -e compress --env-manager local` in a copy of the checkout, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
CHANGES = (
    "train.epochs=2; candidates.channels-ptq.1.finetune.epochs=1; "
    "measure.latency={target: 0.5, max_seconds: 1, min_rounds: 5}; measure.throughput=[8]"
)
COMMAND = (
    *(sys.executable, "-m", "mlflow", "run", ".", "-e", "compress", "--env-manager", "local"),
    *("-P", f"set={CHANGES}"),
)
# Every candidate in one fresh process, through MLflow's own way of serving it
RELOAD = """
import json, sys
import mlflow, numpy as np
found = {}
for model_id in sys.argv[1:]:
    uri = f"models:/{model_id}"
    place = mlflow.artifacts.download_artifacts(uri)
    with np.load(f"{place}/extra_files/golden.npz") as golden:
        images, wanted, labels = golden["images"], golden["scores"], golden["labels"]
    model = mlflow.pyfunc.load_model(uri)
    (scores,) = model.predict(images).values()
    (named,) = model.predict({"images": images}).values()
    found[model_id] = {
        "largest difference": float(abs(scores - wanted).max()),
        "same classes": bool((scores.argmax(1) == wanted.argmax(1)).all()),
        "by name too": bool((named == scores).all()),
        "images": len(images),
    }
print(json.dumps({"models": found, "torch": "torch" in sys.modules}))
"""


def ended(process: subprocess.Popen[str], seconds: float = 400) -> str:
    """What a command said on stderr, when it has ended well."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, out + err
    return err


@pytest.fixture(scope="module")
def finished(checkout):
    """The store after one run of the default recipe, made small."""
    folder = checkout()
    ended(folder.start(*COMMAND))
    ours = [name for name in folder.scratch() if name.startswith("netzip-")]
    assert ours == [], "its work folder is gone (MLflow leaves one of its own)"
    assert list(folder.path.glob("netzip-*")) == []
    return folder


@pytest.fixture(scope="module")
def family(finished):
    """(parent, baseline, candidates by name)."""
    runs = finished.runs()
    kinds = {
        kind: [run for run in runs if run.data.tags.get("netzip.kind") == kind]
        for kind in ("compress", "baseline", "candidate")
    }
    (parent,), (baseline,) = kinds["compress"], kinds["baseline"]
    assert sum(map(len, kinds.values())) == len(runs), "nothing else was left"
    return parent, baseline, {r.info.run_name: r for r in kinds["candidate"]}


class TestFinished:
    def test_one_parent_one_baseline_and_at_least_six_candidates_all_ended(self, family):
        parent, baseline, candidates = family
        assert len(candidates) >= 6
        for run in (parent, baseline, *candidates.values()):
            assert run.info.status == "FINISHED"
        for run in (baseline, *candidates.values()):
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id

    def test_the_parent_is_the_run_that_mlflow_started(self, family):
        tags, params = family[0].data.tags, family[0].data.params
        assert tags["mlflow.source.type"] == "PROJECT"
        assert tags["mlflow.project.entryPoint"] == "compress"
        assert "recipe" in params
        assert params["recipe/train/epochs"] == "2", "the override arrived"

    def test_every_key_that_applies(self, family):
        _, baseline, candidates = family
        both = {
            *("accuracy/top1", "accuracy/f1_macro", "accuracy/ece", "validation/accuracy/top1"),
            *("speed/latency_ms", "speed/latency_ms_low", "speed/latency_ms_high"),
            *("speed/latency_ms_p95", "speed/throughput_b8", "speed/rounds"),
            *("speed/macs", "speed/macs_thop", "speed/ops", "speed/chats"),
            *("speed/layers", "speed/int8_layers"),
            *("size/disk_bytes", "size/zip_bytes", "size/parameters", "size/nonzero"),
            *("size/sparsity", "size/ram_bytes", "size/cpu_percent"),
            *("ratio/P", "ratio/S", "ratio/C", "ratio/pcr", "ratio/its", "ratio/its_low"),
            *("ratio/its_high", "ratio/al", "ratio/zip", "score/ocs", "score/feasible"),
            *("validation/score/ocs", "validation/score/feasible", "validation/ratio/P"),
        }
        against = {
            *("accuracy/drop_points", "accuracy/drop_points_low", "accuracy/drop_points_high"),
            *("accuracy/mcnemar_p", "fidelity/agreement", "fidelity/worst_class_drop_points"),
        }
        assert both - set(baseline.data.metrics) == set()
        for name, run in candidates.items():
            assert (both | against) - set(run.data.metrics) == set(), name

    def test_ocs_follows_from_the_logged_ratios(self, family):
        for run in family[2].values():
            found = run.data.metrics
            P, S, C = (found[f"ratio/{term}"] for term in "PSC")
            ocs = P * ((P - 1) + (S - 1) + (C - 1))
            assert found["score/ocs"] == pytest.approx(ocs, abs=1e-9)

    def test_every_candidate_reloads_in_a_fresh_process(self, finished, family):
        _, baseline, candidates = family
        ids = [run.outputs.model_outputs[0].model_id for run in (baseline, *candidates.values())]
        done = subprocess.run(
            [sys.executable, "-c", RELOAD, *ids],
            cwd=finished.path,
            env=finished.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(done.stdout)
        assert found["torch"] is False
        assert set(found["models"]) == set(ids)
        for row in found["models"].values():
            assert row["images"] == 16
            assert row["largest difference"] < 1e-4
            assert row["same classes"]
            assert row["by name too"]

    def test_the_comparison_lies_on_the_parent(self, finished, family):
        client, parent = finished.client, family[0].info.run_id
        files = {item.path for item in client.list_artifacts(parent)}
        assert {"comparison.csv", "report.html", "plots", "recipe.yaml"} <= files
        report = Path(client.download_artifacts(parent, "report.html"))
        assert report.stat().st_size < 500_000
        tags = client.get_experiment(family[0].info.experiment_id).tags
        views = {key for key in tags if key.startswith("mlflow.sharedViewState.")}
        assert len(views) == 2


def test_bad_input_is_said_on_the_run_that_mlflow_started(checkout):
    """`mlflow run` turns any status into 1, so the reason has to be in the store."""
    folder = checkout()
    command = [*COMMAND[:-1], "set=train.epoch=3"]
    process = folder.start(*command)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "train.epoch: unknown key" in err
    (run,) = folder.runs()
    assert run.info.status == "FAILED"
    assert "train.epoch: unknown key" in run.data.tags["netzip.reason"]
    assert "train.epoch: unknown key" in run.data.tags["mlflow.note.content"]


def test_after_kill_9_of_the_whole_group_the_same_command_ends_well(checkout, until, kill):
    folder = checkout()
    command = [*COMMAND, "-P", "only=half,ptq,prune-l1"]
    process = folder.start(*command)

    def in_the_middle() -> bool:
        assert process.poll() is None, process.communicate()
        return any(run.data.tags.get("netzip.kind") == "candidate" for run in folder.runs())

    try:
        until(in_the_middle, "a candidate is being made", 200)
    finally:
        kill(process)
        process.communicate()
    first = {run.info.run_id: run.info.status for run in folder.runs()}
    assert list(first.values()).count("RUNNING") >= 2, "nobody could end them"

    ended(folder.start(*command))
    runs = folder.runs()
    assert [run for run in runs if run.info.status == "RUNNING"] == []
    for run in runs:
        if first.get(run.info.run_id) == "RUNNING":
            assert run.info.status == "KILLED"
            assert "its process ended without a word" in run.data.tags["netzip.reason"]
    second = [run for run in runs if run.info.run_id not in first]
    assert {run.info.status for run in second} == {"FINISHED"}
    names = {run.info.run_name for run in second if "mlflow.parentRunId" in run.data.tags}
    assert names == {"baseline", "half", "ptq", "prune-l1"}
