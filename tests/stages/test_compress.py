"""The main job on real digits, as its store shows it afterwards."""

from __future__ import annotations

import csv
import hashlib
import json
import math

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import yaml
from sklearn.metrics import accuracy_score, f1_score

from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.metrics.catalogue import describe
from netzip_mlflow.stages.compress import compress
from netzip_mlflow.tasks import open_task
from netzip_mlflow.twin import Twin

INTERVALS = ("", "_low", "_high")
ACCURACY = {
    f"{split}accuracy/{key}"
    for split in ("", "validation/")
    for key in ("top1", "top5", "precision_macro", "recall_macro", "f1_macro", "ece")
}
BOTH = ACCURACY | {
    *(f"speed/latency_ms{end}" for end in (*INTERVALS, "_p95")),
    *("speed/macs", "speed/macs_thop", "speed/ops", "speed/chats", "speed/mean_bits"),
    *("speed/layers", "speed/int8_layers", "speed/rounds", "speed/throughput_b8"),
    *("size/disk_bytes", "size/zip_bytes", "size/parameters", "size/nonzero", "size/sparsity"),
    *("size/load_ms", "size/first_inference_ms", "size/ram_bytes", "size/cpu_percent"),
    *(f"ratio/its{end}" for end in INTERVALS),
    *("ratio/P", "ratio/S", "ratio/C", "ratio/pcr", "ratio/al", "ratio/zip"),
    *("score/ocs", "score/feasible", "fidelity/export_max_abs_diff"),
    *("validation/ratio/P", "validation/score/ocs", "validation/score/feasible"),
}
AGAINST_BASELINE = {
    f"{split}{key}"
    for split in ("", "validation/")
    for key in (
        *(f"accuracy/drop_points{end}" for end in INTERVALS),
        *("accuracy/mcnemar_p", "fidelity/agreement", "fidelity/worst_class_drop_points"),
        *("fidelity/positive_flips", "fidelity/negative_flips", "fidelity/js_divergence"),
        "fidelity/confidence_change",
    )
}
GRADED = ("baseline", "int8", "chain")


class TestStates:
    def test_one_parent_one_baseline_and_the_candidates_in_order(self, compressed):
        assert [c.name for c in compressed.outcome.candidates] == [
            "baseline",
            "int8",
            "broken",
            "chain",
        ]
        kinds = {name: run.data.tags["netzip.kind"] for name, run in compressed.runs.items()}
        assert kinds == {"baseline": "baseline"} | dict.fromkeys(
            ("int8", "broken", "chain"), "candidate"
        )
        assert compressed.parent.data.tags["netzip.kind"] == "compress"
        for run in compressed.runs.values():
            assert run.data.tags["mlflow.parentRunId"] == compressed.outcome.run_id

    def test_one_candidates_failure_does_not_stop_the_others(self, compressed):
        status = {name: run.info.status for name, run in compressed.runs.items()}
        assert status == dict.fromkeys(GRADED, "FINISHED") | {"broken": "FAILED"}
        assert compressed.parent.info.status == "FINISHED"
        broken = compressed.runs["broken"]
        assert broken.data.tags["netzip.reason"] == "RuntimeError: the lamp is out"
        assert broken.data.metrics == {}
        assert "broken failed: RuntimeError: the lamp is out" in compressed.said

    def test_the_work_folder_is_gone(self, compressed):
        left = [p.name for p in (compressed.folder / "scratch").iterdir()]
        assert [name for name in left if not name.startswith("torchinductor_")] == []

    def test_a_fault_that_all_share_is_the_runs_own(self, compressed, run_compress):
        with pytest.raises(NetzipError, match="every candidate failed") as caught:
            run_compress(compressed.folder, only=("broken",), pictures=False)
        assert "the lamp is out" in str(caught.value)
        assert caught.value.exit_status == 1
        newest, *_ = compressed.client.search_runs(
            [compressed.outcome.experiment_id],
            "tags.`netzip.kind` = 'compress'",
            order_by=["start_time DESC"],
        )
        assert newest.info.status == "FAILED"
        assert "the lamp is out" in newest.data.tags["netzip.reason"]
        running = compressed.client.search_runs(
            [compressed.outcome.experiment_id], "attributes.status = 'RUNNING'"
        )
        assert running == []

    def test_a_name_that_the_recipe_has_not(self, workplace, compressed):
        with pytest.raises(InputError, match=r"--only: 'int9' is no candidate .* mean 'int8'\?"):
            compress(compressed.recipe, workplace, only=("int9",))
        assert not compressed.client.search_runs(
            [compressed.outcome.experiment_id], "tags.`netzip.kind` = 'search'"
        )


class TestMetrics:
    @pytest.mark.parametrize("name", GRADED)
    def test_every_key_that_applies_is_there(self, compressed, name):
        wanted = BOTH | (AGAINST_BASELINE if name != "baseline" else set())
        assert wanted - set(compressed.runs[name].data.metrics) == set()

    @pytest.mark.parametrize("name", GRADED)
    def test_no_key_that_nobody_explains_and_none_that_does_not_apply(self, compressed, name):
        metrics = compressed.runs[name].data.metrics
        assert [k for k in metrics if describe(k) is None and not k.startswith("training/")] == []
        assert not {k for k in metrics if k.startswith("energy/")}
        assert "ratio/E" not in metrics
        assert "ratio/esr" not in metrics
        if name == "baseline":
            assert not AGAINST_BASELINE & set(metrics)

    @pytest.mark.parametrize("name", GRADED)
    def test_every_value_is_finite(self, compressed, name):
        assert all(abs(v) < 1e300 for v in compressed.runs[name].data.metrics.values())

    @pytest.mark.parametrize("name", ["int8", "chain"])
    @pytest.mark.parametrize("split", ["", "validation/"])
    def test_ocs_follows_from_the_logged_ratios_and_they_from_what_was_measured(
        self, compressed, name, split
    ):
        base, found = (compressed.runs[n].data.metrics for n in ("baseline", name))
        P = found[f"{split}ratio/P"]
        S, C = found["ratio/S"], found["ratio/C"]
        ocs = P * ((P - 1) + (S - 1) + (C - 1))
        assert found[f"{split}score/ocs"] == pytest.approx(ocs, abs=1e-9)
        key = f"{split}accuracy/top1"
        assert pytest.approx(found[key] / base[key], abs=1e-12) == P
        assert pytest.approx(base["speed/chats"] / found["speed/chats"], abs=1e-12) == S
        assert pytest.approx(base["size/disk_bytes"] / found["size/disk_bytes"], abs=1e-12) == C
        assert found[f"{split}ratio/al"] == pytest.approx(1 - P, abs=1e-12)
        drop = 100 * (base[key] - found[key])
        assert found[f"{split}accuracy/drop_points"] == pytest.approx(drop, abs=1e-9)

    def test_the_baseline_has_ratios_of_one_and_no_score(self, compressed):
        found = compressed.runs["baseline"].data.metrics
        for key in ("P", "S", "C", "pcr", "its", "its_low", "its_high", "zip"):
            assert found[f"ratio/{key}"] == 1.0
        assert found["score/ocs"] == found["validation/score/ocs"] == found["ratio/al"] == 0.0

    def test_int8_is_int8_to_the_last_layer(self, compressed):
        base, found = (compressed.runs[n].data.metrics for n in ("baseline", "int8"))
        assert found["speed/int8_layers"] == found["speed/layers"] == base["speed/layers"] == 5
        assert base["speed/int8_layers"] == 0
        assert found["ratio/S"] == 4.0
        assert (base["speed/mean_bits"], found["speed/mean_bits"]) == (32, 8)

    def test_operations_agree_with_thop(self, compressed):
        # lenet5 has neither BatchNorm nor counted pooling: the totals are equal, not only near
        for name in GRADED:
            found = compressed.runs[name].data.metrics
            assert found["speed/macs"] == found["speed/macs_thop"]
            assert found["speed/ops"] == 2 * found["speed/macs"]

    def test_pruned_zeros_are_counted_as_zeros_and_nothing_else(self, compressed):
        int8, chain = (compressed.runs[n].data.metrics for n in ("int8", "chain"))
        assert chain["size/sparsity"] == pytest.approx(0.3, abs=0.01)
        assert chain["size/nonzero"] < 0.75 * int8["size/nonzero"]
        for key in ("speed/ops", "speed/chats", "size/parameters"):
            assert chain[key] == int8[key]
        assert chain["size/disk_bytes"] < 0.9 * int8["size/disk_bytes"], "a bit for each zero"
        assert chain["size/zip_bytes"] < int8["size/zip_bytes"]

    def test_epochs_are_steps(self, compressed):
        for name, epochs in (("baseline", 2), ("chain", 1)):
            run_id = compressed.runs[name].info.run_id
            losses = compressed.client.get_metric_history(run_id, "training/loss")
            assert len(losses) == epochs
            assert len({m.step for m in losses}) == epochs
            assert all(math.isfinite(m.value) for m in losses)

    def test_the_parent_names_the_best_of_validation(self, compressed):
        parent = compressed.parent.data
        scores = {
            n: compressed.runs[n].data.metrics["validation/score/ocs"] for n in ("int8", "chain")
        }
        best = max(scores, key=lambda n: scores[n])
        assert compressed.outcome.choice.best == parent.tags["netzip.best"] == best
        assert parent.metrics["best/score/ocs"] == compressed.runs[best].data.metrics["score/ocs"]


class TestModels:
    @pytest.fixture
    def test_split(self, compressed):
        task = open_task("classification", compressed.recipe.data, compressed.recipe.seed)
        return task.split("test", final=True)

    @pytest.mark.parametrize("name", GRADED)
    def test_the_logged_file_is_the_measured_file(self, compressed, name):
        place, run = compressed.model(name), compressed.runs[name]
        content = (place / "model.onnx").read_bytes()
        assert len(content) == run.data.metrics["size/disk_bytes"]
        digest = hashlib.sha256(content).hexdigest()[:16]
        manifest = json.loads((place / "extra_files" / "netzip.json").read_text())
        assert digest == run.data.tags["netzip.model_digest"] == manifest["model_digest"]

    @pytest.mark.parametrize("name", GRADED)
    def test_its_accuracy_is_what_scikit_learn_finds(self, compressed, name, test_split):
        session = onnxruntime.InferenceSession(compressed.model(name) / "model.onnx")
        scores = [
            np.asarray(session.run(None, {"images": x})[0]) for x, _ in test_split.batches(64)
        ]
        answers = np.concatenate(scores).argmax(1)
        metrics = compressed.runs[name].data.metrics
        labels = test_split.targets
        assert metrics["accuracy/top1"] == pytest.approx(accuracy_score(labels, answers), abs=1e-12)
        macro = f1_score(labels, answers, average="macro")
        assert metrics["accuracy/f1_macro"] == pytest.approx(macro, abs=1e-9)

    @pytest.mark.parametrize("name", GRADED)
    def test_its_golden_answers_are_its_own(self, compressed, name):
        place = compressed.model(name)
        session = onnxruntime.InferenceSession(place / "model.onnx")
        with np.load(place / "extra_files" / "golden.npz") as golden:
            scores = np.asarray(session.run(None, {"images": golden["images"]})[0])
            assert golden["images"].shape == (16, 1, 32, 32)
            np.testing.assert_allclose(scores, golden["scores"], atol=1e-5)
            assert len(golden["labels"]) == 16

    @pytest.mark.parametrize("name", GRADED)
    def test_the_twin_rebuilds_exactly(self, compressed, name):
        place = compressed.model(name)
        manifest = json.loads((place / "extra_files" / "netzip.json").read_text())
        twin = Twin.load(compressed.fetch(compressed.runs[name].info.run_id, "twin"))
        assert twin.digest() == manifest["twin_digest"]
        assert twin.facts == {"classes": manifest["classes"]}

    @pytest.mark.parametrize("name", GRADED)
    def test_layers_add_up_to_the_totals(self, compressed, name):
        run = compressed.runs[name]
        file = compressed.fetch(run.info.run_id, "layers.csv")
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        assert sum(int(r["macs"]) for r in rows) == run.data.metrics["speed/macs"]
        chats = sum(2 * int(r["macs"]) * int(r["bits"]) for r in rows)
        assert chats == run.data.metrics["speed/chats"]
        assert len(rows) == run.data.metrics["speed/layers"]

    @pytest.mark.parametrize("name", GRADED)
    def test_every_class_has_a_row(self, compressed, name):
        run = compressed.runs[name]
        frame = pd.read_csv(compressed.fetch(run.info.run_id, "per_class.csv"))
        assert len(frame) == 10
        assert frame["recall"].mean() == pytest.approx(run.data.metrics["accuracy/recall_macro"])
        if name != "baseline":
            worst = -frame["recall_change_points"].min()
            dropped = run.data.metrics["fidelity/worst_class_drop_points"]
            assert max(worst, 0.0) == pytest.approx(dropped)

    def test_a_log_tells_what_was_done(self, compressed):
        run = compressed.runs["chain"]
        lines = compressed.fetch(run.info.run_id, "netzip.log").read_text().splitlines()
        said = "\n".join(lines)
        order = [said.index(step) for step in ("prune_l1(0.3)", "finetune", "ptq(int8)", "stored")]
        assert order == sorted(order)
        assert run.data.tags["netzip.model_digest"] in said
        assert f"test: top1 {run.data.metrics['accuracy/top1']:.4f}" in said

    @pytest.mark.parametrize("name", GRADED)
    def test_metrics_are_linked_to_the_model(self, compressed, name):
        run = compressed.runs[name]
        (output,) = run.outputs.model_outputs
        linked = {
            m.key: m.value for m in compressed.client.get_logged_model(output.model_id).metrics
        }
        for key in ("accuracy/top1", "size/disk_bytes", "ratio/C", "score/ocs"):
            assert linked[key] == run.data.metrics[key]

    def test_nothing_is_pickled(self, compressed):
        files = [p for p in compressed.folder.rglob("*") if p.is_file()]
        assert [p for p in files if p.suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin"}] == []


class TestRecord:
    def test_params_are_the_recipe_and_the_techniques(self, compressed):
        parent = compressed.parent.data.params
        assert {key.split("/")[0] for key in parent} == {"recipe"}
        assert parent["recipe/train/epochs"] == "2"
        assert parent["recipe/model/name"] == "lenet5"
        chain = compressed.runs["chain"].data.params
        assert {key.split("/")[0] for key in chain} == {"technique"}
        assert chain["technique/0.prune_l1/ratio"] == "0.3"
        assert chain["technique/1.finetune/epochs"] == "1"
        assert chain["technique/2.ptq/calibration"] == "minmax"

    @pytest.mark.parametrize("name", GRADED)
    def test_tags_of_the_contract(self, compressed, name):
        tags = compressed.runs[name].data.tags
        assert tags["netzip.baseline"] == compressed.runs["baseline"].info.run_id
        assert tags["netzip.parent"] == compressed.outcome.run_id
        basis = "accuracy=top1 speed=chats size=disk zeta=1 lambdas=1,1,1,1"
        assert tags["netzip.basis"] == basis
        assert tags["netzip.terms"] == "P,S,C"
        assert tags["netzip.fingerprint"] == compressed.parent.data.tags["netzip.fingerprint"]
        assert set(tags["netzip.flags"].split(",")) <= {"", "noisy"}
        if name != "baseline":
            assert tags["netzip.verdict"] in {"good", "mixed", "poor"}
            assert "points" in tags["netzip.reason"]

    def test_chains_are_short_labels(self, compressed):
        chains = {name: run.data.tags["netzip.chain"] for name, run in compressed.runs.items()}
        assert chains == {
            "baseline": "fp32",
            "int8": "ptq(int8)",
            "chain": "prune_l1(0.3)+finetune(teacher)+ptq(int8)",
            "broken": "broken",
        }

    def test_the_data_set_is_an_input_of_the_run(self, compressed):
        (given,) = compressed.parent.inputs.dataset_inputs
        assert given.dataset.name == "digits"
        assert given.dataset.digest == compressed.parent.data.tags["netzip.data_digest"]

    def test_the_resolved_recipe_runs_the_same_again(self, compressed):
        text = compressed.fetch(compressed.outcome.run_id, "recipe.yaml").read_text()
        assert yaml.safe_load(text) == compressed.recipe.model_dump(mode="json")

    def test_the_environment_is_kept(self, compressed):
        file = compressed.fetch(compressed.outcome.run_id, "environment.json")
        kept = json.loads(file.read_text())
        assert kept["runtime"]["threads"] == 1
        assert kept["packages"]["onnxruntime"] == onnxruntime.__version__


class TestComparison:
    def test_the_table_has_the_baseline_first_and_the_failed_one_with_its_reason(self, compressed):
        frame = pd.read_csv(compressed.fetch(compressed.outcome.run_id, "comparison.csv"))
        assert frame["name"][0] == "baseline"
        assert set(frame["name"]) == {"baseline", "int8", "chain", "broken"}
        by_name = frame.set_index("name")
        assert by_name.loc["broken", "status"] == "FAILED"
        assert by_name.loc["broken", "error"] == "RuntimeError: the lamp is out"
        for name in GRADED:
            logged = compressed.runs[name].data.metrics["score/ocs"]
            assert by_name.loc[name, "score/ocs"] == pytest.approx(logged, abs=1e-12)

    def test_the_report_is_small_and_needs_nothing_else(self, compressed):
        page = compressed.fetch(compressed.outcome.run_id, "report.html").read_text()
        assert len(page.encode()) < 500_000
        assert "<svg" in page
        assert 'src="http' not in page
        assert "netzip compress recipe.yaml" in page
        assert "the lamp is out" in page

    def test_pictures_lie_beside_it_in_both_forms(self, compressed):
        files = compressed.files(compressed.outcome.run_id, "plots")
        for name in ("radar", "accuracy_latency", "accuracy_size", "bars_score_ocs"):
            assert {f"plots/{name}.svg", f"plots/{name}.png"} <= files


class TestAgain:
    def test_the_same_inputs_are_not_trained_twice(self, compressed, again):
        first, second = compressed.runs["baseline"], again.runs["baseline"]
        assert second.data.tags["netzip.reused_from"] == first.info.run_id
        assert "netzip.reused_from" not in first.data.tags
        assert second.data.tags["netzip.model_digest"] == first.data.tags["netzip.model_digest"]
        assert "training/loss" not in second.data.metrics
        assert not any("training" in line for line in again.said)

    def test_it_is_timed_again_beside_its_candidates(self, compressed, again):
        first, second = (c.runs["baseline"].data.metrics for c in (compressed, again))
        assert second["speed/latency_ms"] != first["speed/latency_ms"]
        assert second["accuracy/top1"] == first["accuracy/top1"]

    def test_one_recipe_and_one_seed_make_one_model(self, compressed, again):
        first, second = (c.runs["int8"].data.tags for c in (compressed, again))
        assert second["netzip.model_digest"] == first["netzip.model_digest"]

    def test_only_what_was_asked_for(self, again):
        assert set(again.runs) == {"baseline", "int8"}
        baseline = again.runs["baseline"].info.run_id
        assert again.runs["int8"].data.tags["netzip.baseline"] == baseline

    def test_a_latency_basis_scores_the_interleaved_ratio(self, again):
        found = again.runs["int8"].data
        assert found.tags["netzip.basis"].split()[1] == "speed=latency"
        assert found.metrics["ratio/S"] == found.metrics["ratio/its"]
        P, S, C = (found.metrics[f"ratio/{term}"] for term in "PSC")
        ocs = P * ((P - 1) + (S - 1) + (C - 1))
        assert found.metrics["score/ocs"] == pytest.approx(ocs, abs=1e-9)


def test_no_candidates_name_is_a_place_of_the_parents(run_compress, no_fresh_process):
    names = ("comparison", "plots", "earlier", "untrained", "group-1", "candidates")
    wanted = ", ".join(f"{name}: [half]" for name in names)
    made = run_compress(None, f"candidates={{{wanted}}}", pictures=False)
    assert {r.info.run_name for r in made.runs.values()} == {"baseline", *names}
    assert {r.info.status for r in made.runs.values()} == {"FINISHED"}
    assert made.files(made.outcome.run_id) == {
        "comparison.csv",
        "environment.json",
        "plots/blank.png",
        "plots/blank.svg",
        "recipe.yaml",
        "report.html",
    }
    for name in names:
        assert "layers.csv" in made.files(made.runs[name].info.run_id)
