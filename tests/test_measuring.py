"""The steps of a measurement on hand-built files: what fits, and what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from netzip_mlflow import measuring
from netzip_mlflow.errors import InputError, NetzipError, SplitSealed
from netzip_mlflow.metrics.family import Conditions
from netzip_mlflow.recipe import MeasureSpec
from netzip_mlflow.scoring import Basis, Constraints
from netzip_mlflow.tasks.classification import Classification

CLASSES, SIDE = 3, 6
SPEC = MeasureSpec.model_validate(
    {"latency": {"max_seconds": 0.2, "min_rounds": 5}, "throughput": [4], "evaluation_batch": 16}
)
HERE = Conditions(SPEC, 0, lambda _what, _done: None)


def classifier(
    folder: Path,
    name: str = "model",
    *,
    batch: int | str = "n",
    side: int | str = SIDE,
    classes: int = CLASSES,
    gain: float = 1.0,
    permuted: bool = False,
) -> Path:
    """One output per colour channel: its mean, so the brightest channel is the answer."""
    weights = np.zeros((classes, 3, 1, 1), np.float32)
    for label in range(min(classes, 3)):
        weights[(label + permuted) % min(classes, 3), label] = gain
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "w"], ["seen"]),
            helper.make_node("GlobalAveragePool", ["seen"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["scores"]),
        ],
        name,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


@pytest.fixture(scope="module")
def colours() -> Classification:
    """Images in which the channel of the label is the brightest."""
    draw = np.random.default_rng(0)
    labels = np.arange(150) % CLASSES
    images = draw.integers(0, 100, (150, SIDE, SIDE, 3), dtype=np.uint8)
    images[np.arange(150), :, :, labels] += 100
    arrays = {"x_train": images[:90], "y_train": labels[:90]}
    return Classification.of(
        arrays | {"x_test": images[90:], "y_test": labels[90:]}, calibration=10
    )


def judged(file: Path, task, against=None):
    found = measuring.inspect(file.stem, file, HERE)
    measuring.judge(found, against, replace(HERE, task=task))
    return found


class TestInspect:
    def test_measuring_twice_gives_the_same_and_changes_nothing(self, tmp_path):
        file = classifier(tmp_path)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        first, second = (measuring.inspect("m", file, HERE) for _ in range(2))
        assert first.metrics == second.metrics
        assert first.metrics["speed/macs"] == 3 * CLASSES * SIDE * SIDE
        assert first.metrics["size/parameters"] == 3 * CLASSES
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest

    def test_a_corrupt_file(self, tmp_path):
        file = tmp_path / "corrupt.onnx"
        file.write_bytes(classifier(tmp_path).read_bytes()[:-40])
        with pytest.raises(InputError, match=r"corrupt\.onnx"):
            measuring.inspect("m", file, HERE)


class TestJudge:
    def test_the_brightest_channel_is_always_right(self, tmp_path, colours):
        found = judged(classifier(tmp_path), colours)
        for split in ("", "validation/"):
            assert found.metrics[f"{split}accuracy/top1"] == 1.0
            assert found.metrics[f"{split}accuracy/f1_macro"] == 1.0

    def test_the_wrong_one_is_never_right(self, tmp_path, colours):
        right = judged(classifier(tmp_path), colours)
        wrong = judged(classifier(tmp_path, "wrong", permuted=True), colours, right)
        assert wrong.metrics["accuracy/top1"] == 0.0
        assert wrong.metrics["accuracy/drop_points"] == 100.0
        assert wrong.metrics["fidelity/agreement"] == 0.0
        assert wrong.metrics["fidelity/negative_flips"] == 1.0

    def test_a_fixed_batch_is_fed_piece_by_piece(self, tmp_path, colours):
        found = judged(classifier(tmp_path, batch=7), colours)
        assert found.metrics["accuracy/top1"] == 1.0

    def test_an_open_image_size_cannot_be_counted(self, tmp_path, colours):
        with pytest.raises(InputError, match="no fixed size; allowed: an open first axis only"):
            judged(classifier(tmp_path, side="side"), colours)

    def test_another_size_is_refused_by_both_shapes(self, tmp_path, colours):
        with pytest.raises(InputError) as caught:
            judged(classifier(tmp_path, side=9), colours)
        assert "(3, 9, 9)" in str(caught.value)
        assert "(3, 6, 6)" in str(caught.value)

    @pytest.mark.parametrize("classes", [2, 5])
    def test_another_number_of_classes_is_refused(self, tmp_path, colours, classes):
        says = rf"answers \d+ samples with \(\d+, {classes}\); allowed: .* scores \({CLASSES},\)"
        with pytest.raises(NetzipError, match=says):
            judged(classifier(tmp_path, classes=classes), colours)

    def test_a_sealed_task_gives_no_test_figure(self, tmp_path, colours):
        found = measuring.inspect("m", classifier(tmp_path), HERE)
        with colours.sealed(), pytest.raises(SplitSealed):
            measuring.judge(found, None, replace(HERE, task=colours), ("test",))
        assert not [key for key in found.metrics if key.startswith("accuracy/")]


class TestTogether:
    def test_what_cannot_be_measured_is_absent_with_a_reason(self, tmp_path):
        free, fixed = (
            measuring.inspect(name, classifier(tmp_path, name, batch=batch), HERE)
            for name, batch in (("free", "n"), ("fixed", 1))
        )
        measuring.time_together([free, fixed], HERE)
        assert free.metrics["speed/throughput_b4"] > 0
        assert "speed/throughput_b4" not in fixed.metrics
        assert "a batch of 1" in fixed.absent["speed/throughput_b4"]
        for each in (free, fixed):
            low, value, high = (
                each.metrics[f"speed/latency_ms{end}"] for end in ("_low", "", "_high")
            )
            assert 0 < low <= value <= high
            assert each.metrics["size/ram_bytes"] > 0

    def test_the_check_of_the_baseline_against_itself_is_kept(self, tmp_path):
        one = measuring.inspect("one", classifier(tmp_path), HERE)
        measuring.time_together([one], HERE)
        value, low, high = (one.metrics[f"speed/aa_ratio{end}"] for end in ("", "_low", "_high"))
        within = low <= 1 <= high and high - low <= 2 * 0.05 * value
        assert ("noisy" in one.flags) == (not within) == bool(one.facts["noisy"])
        assert one.metrics["speed/rounds"] >= SPEC.latency.min_rounds
        assert one.facts["stopped"] in ("target", "rounds", "seconds")


def grade(measured, baseline, points=1):
    measuring.grade(measured, baseline, Basis(), Constraints(points))


class TestGrade:
    def both(self, tmp_path, task, **changes):
        right = judged(classifier(tmp_path), task)
        other = judged(classifier(tmp_path, "other", **changes), task, right)
        for each in (right, other):  # as if timed: this is arithmetic
            each.metrics |= {"speed/latency_ms": 1.0, "ratio/its": 1.0}
            each.metrics |= {"ratio/its_low": 0.99, "ratio/its_high": 1.01}
        return right, other

    def test_a_copy_scores_nothing(self, tmp_path, colours):
        right, same = self.both(tmp_path, colours, gain=2.0)
        grade(same, right)
        assert same.metrics["score/ocs"] == 0.0
        assert same.metrics["ratio/P"] == same.metrics["ratio/S"] == 1.0
        assert same.verdict is not None
        assert same.verdict.grade == "poor", "nothing improved"

    def test_the_constraint_decides_what_is_feasible(self, tmp_path, colours):
        right, wrong = self.both(tmp_path, colours, permuted=True)
        grade(wrong, right, 99)
        assert wrong.metrics["score/feasible"] == 0.0
        grade(wrong, right, 100)
        assert wrong.metrics["score/feasible"] == 1.0
        assert wrong.metrics["ratio/P"] == 0.0

    def test_a_baseline_that_is_never_right_has_no_ratio(self, tmp_path, colours):
        wrong = judged(classifier(tmp_path, permuted=True), colours)
        right = judged(classifier(tmp_path, "right"), colours, wrong)
        with pytest.raises(NetzipError, match="accuracy/top1") as caught:
            grade(right, wrong)
        assert "model" in str(caught.value), "the row is named"
