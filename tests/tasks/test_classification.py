"""Classification: a sealed test split, and metrics that agree with scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics
from torch import nn
from torch.nn import functional

from netzip_mlflow import runtimes
from netzip_mlflow.data import Part, Source
from netzip_mlflow.deployable import Deployable
from netzip_mlflow.errors import InputError, NetzipError, SplitSealed
from netzip_mlflow.recipe import DataSpec, SplitRule
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.tasks import Evaluation, OutOfReach
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.twin import Twin


class _Recorded:
    """A session that answers from a table, and notes what it was asked."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.sizes, self.outputs = scores, [], ("scores",)

    def run(self, images: np.ndarray) -> tuple[np.ndarray]:
        start = sum(self.sizes)
        self.sizes.append(len(images))
        return (self.scores[start : start + len(images)],)


def _scores(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Logits that are right for about `share` of the labels."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(0, 1, (len(labels), 4)).astype(np.float32)
    right = draw.random(len(labels)) < share
    scores[np.flatnonzero(right), labels[right]] += 4
    return scores


@pytest.fixture
def labels(task: Classification) -> np.ndarray:
    return task.split("test", final=True).targets


def _evaluated(task: Classification, scores: np.ndarray, batch: int = 50) -> Evaluation:
    return task.evaluate(_Recorded(scores), "test", batch=batch, final=True)  # type: ignore[arg-type]


# --- the splits -----------------------------------------------------------------------------


def test_the_splits_are_there(task: Classification) -> None:
    assert task.sizes == {"train": 256, "calibration": 64, "validation": 64, "test": 120}
    for name in ("train", "calibration", "validation"):
        assert len(task.split(name)) == task.sizes[name]
        assert task.split(name, final=True) is task.split(name)
    assert (task.classes, task.shape) == (("0", "1", "2", "3"), (3, 12, 12))
    assert (task.name, task.primary) == ("classification", "top1")
    assert task.outputs == OutputSpec.of(scores=(4,))
    assert (task.arguments, task.facts) == ({"num_classes": 4}, {"classes": ["0", "1", "2", "3"]})


def test_only_the_final_evaluation_opens_the_test_split(task: Classification) -> None:
    with pytest.raises(SplitSealed, match="the test split is for the final evaluation only"):
        task.split("test")
    assert len(task.split("test", final=True)) == 120
    with task.sealed():
        for final in (False, True):
            with pytest.raises(SplitSealed):
                task.split("test", final=final)
        assert len(task.split("train")) == 256
        with task.sealed():
            pass
        with pytest.raises(SplitSealed):
            task.split("test", final=True)
    assert len(task.split("test", final=True)) == 120


def test_a_seal_is_lifted_when_the_work_inside_fails(task: Classification) -> None:
    with pytest.raises(RuntimeError, match="inside"), task.sealed():
        raise RuntimeError("inside")
    assert task.split("test", final=True)


def test_evaluating_on_test_is_final_or_refused(task: Classification, labels: np.ndarray) -> None:
    session = _Recorded(_scores(labels, 0.5, 0))
    with pytest.raises(SplitSealed):
        task.evaluate(session, "test", batch=50)  # type: ignore[arg-type]
    with task.sealed(), pytest.raises(SplitSealed):
        task.evaluate(session, "test", batch=50, final=True)  # type: ignore[arg-type]
    assert session.sizes == [], "nothing was run"


def test_a_context_holds_no_test_data(task: Classification, twin: Twin) -> None:
    context = Context.of(task, twin)
    test = task.split("test", final=True)
    held = [v for v in vars(context).values() if hasattr(v, "digest") and hasattr(v, "targets")]
    assert test.digest not in {split.digest for split in held}
    assert len(held) == 2


# --- judging --------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_the_figures_are_scikit_learns(
    task: Classification, labels: np.ndarray, share: float
) -> None:
    scores = _scores(labels, share, 1)
    found = _evaluated(task, scores).metrics
    answers = scores.argmax(1)
    macro = {"average": "macro", "zero_division": 0}
    expected = {
        "accuracy/top1": metrics.accuracy_score(labels, answers),
        "accuracy/precision_macro": metrics.precision_score(labels, answers, **macro),
        "accuracy/recall_macro": metrics.recall_score(labels, answers, **macro),
        "accuracy/f1_macro": metrics.f1_score(labels, answers, **macro),
    }
    assert {k: found[k] for k in expected} == pytest.approx(expected)
    assert found.keys() == expected.keys() | {"accuracy/ece"}, "no top-5 of four classes"


def test_the_table_per_class_is_scikit_learns(task: Classification, labels: np.ndarray) -> None:
    scores = _scores(labels, 0.7, 2)
    found = _evaluated(task, scores).per_class
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, scores.argmax(1), zero_division=0
    )
    assert [row["class"] for row in found] == list(task.classes)
    for key, column in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert [row[key] for row in found] == pytest.approx(column.tolist())
    assert [row["support"] for row in found] == support.tolist()


@pytest.mark.parametrize("batch", [1, 7, 120, 1000])
def test_batches_do_not_matter(task: Classification, labels: np.ndarray, batch: int) -> None:
    scores = _scores(labels, 0.7, 3)
    session, shown = _Recorded(scores), []
    found = task.evaluate(
        session,  # type: ignore[arg-type]
        "test",
        batch=batch,
        progress=lambda what, done: shown.append((what, done)),
        final=True,
    )
    np.testing.assert_array_equal(found.outputs[0], scores)
    assert max(session.sizes) <= batch
    assert found.metrics == _evaluated(task, scores).metrics
    assert shown[-1] == ("evaluating on test", 1.0)
    assert [s[1] for s in shown] == sorted(s[1] for s in shown)


def test_a_real_file_is_judged_like_the_network(
    task: Classification, twin: Twin, baseline: Deployable, tmp_path
) -> None:
    session = runtimes.find().load(baseline.save(tmp_path))
    found = task.evaluate(session, "validation", batch=64)
    assert found.split == "validation"
    assert found.metrics["accuracy/top1"] == task.validate(twin.network())


def test_validation_is_accuracy_of_a_torch_network(task: Classification, twin: Twin) -> None:
    images, labels = next(task.split("validation").batches(64))
    with torch.no_grad():
        answers = twin.network()(torch.from_numpy(images)).argmax(1).numpy()
    assert task.validate(twin.network()) == metrics.accuracy_score(labels, answers)


def test_validation_takes_a_network_without_parameters(task: Classification) -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    assert 0 <= task.validate(Mean()) <= 1


# --- comparing ------------------------------------------------------------------------------


def test_a_comparison_with_itself_is_the_identity(task: Classification, labels: np.ndarray) -> None:
    one = _evaluated(task, _scores(labels, 0.8, 4))
    found = task.compare(one, one, seed=0)
    ones = {"accuracy/mcnemar_p", "fidelity/agreement"}
    assert {k: v for k, v in found.metrics.items() if v != float(k in ones)} == {}
    assert all(row["recall_change_points"] == 0 for row in found.per_class)


def test_a_comparison_is_paired(task: Classification, labels: np.ndarray) -> None:
    before, after = _scores(labels, 0.9, 5), _scores(labels, 0.6, 6)
    one, two = _evaluated(task, before), _evaluated(task, after)
    found: Mapping[str, float] = task.compare(one, two, seed=0).metrics
    right, still = before.argmax(1) == labels, after.argmax(1) == labels
    assert found["accuracy/drop_points"] == pytest.approx(100 * (right.mean() - still.mean()))
    assert (
        found["accuracy/drop_points_low"]
        < found["accuracy/drop_points"]
        < found["accuracy/drop_points_high"]
    )
    lost, won = int((right & ~still).sum()), int((~right & still).sum())
    p = binomtest(won, lost + won).pvalue
    assert found["accuracy/mcnemar_p"] == pytest.approx(p)
    same = (before.argmax(1) == after.argmax(1)).mean()
    assert found["fidelity/agreement"] == pytest.approx(same)
    assert found["fidelity/negative_flips"] == pytest.approx(lost / len(labels))
    assert found["fidelity/positive_flips"] == pytest.approx(won / len(labels))
    recall = [
        100 * (metrics.recall_score(labels, s.argmax(1), average=None)) for s in (before, after)
    ]
    changes = [row["recall_change_points"] for row in task.compare(one, two, seed=0).per_class]
    assert changes == pytest.approx((recall[1] - recall[0]).tolist())
    assert found["fidelity/worst_class_drop_points"] == pytest.approx((recall[0] - recall[1]).max())


def test_pruning_too_much_shows(
    task: Classification, twin: Twin, context: Context, baseline: Deployable, tmp_path
) -> None:
    from netzip_mlflow.techniques.fp32 import deploy

    broken = deploy(PruneL1(0.95).apply(twin, context), context)
    runtime = runtimes.find()
    first, second = (
        task.evaluate(runtime.load(d.save(tmp_path / n)), "validation", batch=64)
        for n, d in (("baseline", baseline), ("broken", broken))
    )
    found = task.compare(first, second, seed=0).metrics
    assert found["accuracy/drop_points_low"] > 5
    assert found["fidelity/agreement"] < 0.9


# --- training -------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_cross_entropy(task: Classification, smoothing: float) -> None:
    scores = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 3, 0])
    soft = functional.one_hot(targets, 4) * (1 - smoothing) + smoothing / 4
    expected = -(soft * scores.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task.loss((scores,), targets, smoothing), expected)


@pytest.mark.parametrize("count", [3, 5])
def test_scores_of_other_classes_are_no_loss(task: Classification, count: int) -> None:
    with pytest.raises(
        NetzipError, match=rf"answers 2 samples with \(2, {count}\); allowed: .* scores \(4,\)"
    ):
        task.loss((torch.zeros(2, count),), torch.tensor([0, 1]), 0.0)


# --- making a task --------------------------------------------------------------------------


def test_of_arrays_cuts_by_seed(arrays: dict[str, np.ndarray]) -> None:
    one, same, other = (Classification.of(arrays, seed=s) for s in (0, 0, 1))
    assert one.digest == same.digest != other.digest
    counted = Classification.of(arrays, validation=40, calibration=0.5)
    assert counted.sizes == {"train": 280, "calibration": 140, "validation": 40, "test": 120}


def test_of_arrays_without_a_test_part(arrays: dict[str, np.ndarray]) -> None:
    some = {k: v for k, v in arrays.items() if k.endswith("train")}
    assert Classification.of(some, test=0.25, calibration=64).sizes["test"] == 80
    with pytest.raises(InputError, match="ships no test part"):
        Classification.of(some, calibration=64)


def test_of_arrays_that_do_not_fit(arrays: dict[str, np.ndarray]) -> None:
    floats = arrays | {"x_train": arrays["x_train"].astype(np.float32)}
    with pytest.raises(InputError, match="x_train: has dtype float32; allowed: uint8"):
        Classification.of(floats)


IMAGES, LABELS = np.zeros((4, 6, 5, 3), np.uint8), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("classes", "labels", "message"),
    [
        (("a",), LABELS * 0, "has 1 classes"),
        (("a", "b"), LABELS.astype(float), "labels are float64"),
        (("a", "b"), LABELS + 1, "2 labels outside the classes, the first is 2 at 1"),
        (("a", "b"), LABELS - 1, "the first is -1 at 0"),
    ],
)
def test_labels_that_are_none_of_the_classes(
    classes: tuple[str, ...], labels: np.ndarray, message: str
) -> None:
    source = Source("mine", classes, {"train": Part(IMAGES, labels)})
    with pytest.raises(InputError, match=message):
        Classification.cut(source, DataSpec(factory="a:b", test=1), 0)


def test_a_missing_class_is_named_with_its_split() -> None:
    draw, classes = np.random.default_rng(0), ("cat", "dog", "owl")
    parts = {
        name: Part(draw.integers(0, 256, (len(y), 4, 4, 3), np.uint8), np.array(y))
        for name, y in (("train", [0, 1, 2] * 3), ("test", [0, 2]), ("validation", [1]))
    }
    rules = {"validation": SplitRule(first=1, of="validation"), "calibration": 3}
    with pytest.raises(InputError) as caught:
        Classification.cut(Source("mine", classes, parts), DataSpec(factory="a:b", **rules), 0)
    text = str(caught.value)
    assert "test has no sample of class 'dog' (1)" in text
    assert "validation has no sample of class 'cat' (0), 'owl' (2)" in text
    assert "train" not in text


def test_opened_from_a_recipe() -> None:
    spec = DataSpec(name="digits", validation=0.2, test=0.2, calibration=32)
    made = Classification.open(spec, 0)
    assert made.shape == (1, 32, 32)
    assert len(made.classes) == 10
    assert made.sizes["calibration"] == 32


# --- an evaluation that need not end ----------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("at_least", [0.25, 0.8, 0.95])
def test_it_ends_early_exactly_when_the_accuracy_will_be_too_low(task, labels, share, at_least):
    scores = _scores(labels, share, seed=3)
    wrong = scores.argmax(1) != labels
    recorded = _Recorded(scores)

    def run() -> Evaluation:
        return task.evaluate(recorded, "test", batch=7, final=True, at_least=at_least)

    if 1 - wrong.mean() >= at_least:
        assert run().metrics["accuracy/top1"] == pytest.approx(1 - wrong.mean())
        return
    with pytest.raises(OutOfReach) as caught:
        run()
    known = caught.value
    assert known.seen == sum(recorded.sizes)
    assert known.accuracy == pytest.approx(1 - wrong[: known.seen].mean())
    assert known.at_best == pytest.approx(1 - wrong[: known.seen].sum() / len(labels))
    before = wrong[: known.seen - recorded.sizes[-1]].sum() / len(labels)
    assert known.at_best < at_least <= 1 - before, "not a batch too early, not one too late"
