"""The training loop: reproducible, every option counts, the best epoch is kept, teachers teach."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from netzip_mlflow import training
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.recipe import Augment, TrainSpec
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.training import Fitted, Teacher, fit
from netzip_mlflow.twin import Twin

PLAIN = TrainSpec(epochs=2, lr=0.05, batch=32, precision="float32")
Fits = Callable[..., Fitted]


@pytest.fixture
def fits(task: Classification, changed: Callable[..., Any], fresh_twin: Twin) -> Fits:
    """`fits(lr=0.1)`: two epochs of the fresh tiny network, with some of the recipe changed, or
    the task's `loss` or `validate`."""

    def run(
        twin: Twin = fresh_twin, seed: int = 0, threads: int = 1, more: Any = None, **changes: Any
    ) -> Fitted:
        methods = {k: changes.pop(k) for k in ("loss", "validate") if k in changes}
        spec, split = PLAIN.model_copy(update=changes), task.split("train")
        of = changed(task, **methods)
        return fit(twin, split, of, spec=spec, seed=seed, threads=threads, **(more or {}))

    return run


def _same(one: Fitted, two: Fitted) -> bool:
    a, b = one.twin.model.state_dict(), two.twin.model.state_dict()
    return one.history == two.history and all(torch.equal(a[k], b[k]) for k in a)


# --- reproducibility ------------------------------------------------------------------------


def test_seed_and_threads_decide_everything(fits: Fits) -> None:
    first = fits()
    torch.manual_seed(99)
    torch.set_num_threads(1)
    assert _same(first, fits())
    assert not _same(first, fits(seed=1))


def test_two_threads_are_reproducible_too(fits: Fits) -> None:
    assert _same(fits(threads=2), fits(threads=2))


def test_the_world_outside_is_put_back() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state(), torch.get_num_threads()
    with training.seeded(3, threads=2):
        assert torch.get_num_threads() == 2
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    with pytest.raises(RuntimeError, match="inside"), training.seeded(3, threads=2):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before[1]
    with training.seeded(3):
        assert torch.equal(torch.rand(4), first)
        assert torch.get_num_threads() == training.cores()


def test_the_given_twin_stays(fits: Fits, fresh_twin: Twin) -> None:
    before = fresh_twin.digest()
    made = fits()
    assert fresh_twin.digest() == before != made.twin.digest()
    assert not any(m.training for m in made.twin.model.modules())
    assert all(p.is_contiguous() for p in made.twin.model.parameters())
    assert all(p.grad is None for p in made.twin.model.parameters())


# --- options --------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "epochs": 3,
    "optimizer": "adamw",
    "lr": 0.06,
    "batch": 16,
    "momentum": 0.5,
    "weight_decay": 0.01,
    "schedule": "onecycle",
    "label_smoothing": 0.1,
    "augment": Augment(flip=True),
    "precision": "bfloat16",
}
ELSEWHERE = {"device", "threads"}  # read by the stage, which passes them to fit


def test_every_option_is_under_test() -> None:
    assert CHANGES.keys() | ELSEWHERE == TrainSpec.model_fields.keys()


@pytest.mark.parametrize("option", CHANGES)
def test_every_option_changes_the_result(fits: Fits, option: str) -> None:
    assert not _same(fits(), fits(**{option: CHANGES[option]}))


@pytest.mark.parametrize(
    "options",
    [{"schedule": "constant"}, {"augment": Augment(crop=1)}, {"momentum": 0.0}],
    ids=str,
)
def test_further_choices_change_the_result(fits: Fits, options: dict[str, Any]) -> None:
    assert not _same(fits(), fits(**options))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # cosine annealing to zero over all steps (Loshchilov & Hutter 2017, eq. 5)
        ("cosine", lambda e, n, lr: 0.5 * lr * (1 + math.cos(math.pi * e / n))),
        ("constant", lambda _e, _n, lr: lr),
    ],
)
def test_the_rate_follows_its_schedule(fits: Fits, schedule: str, expected) -> None:
    made = fits(schedule=schedule, epochs=4, lr=0.04)
    for epoch in made.history:
        assert epoch.lr == pytest.approx(expected(epoch.number, 4, 0.04), abs=1e-12)


def test_onecycle_peaks_at_lr_and_never_above(fits: Fits) -> None:
    seen: list[float] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "SGD", Spy)
        fits(schedule="onecycle", epochs=5, lr=0.04)
    assert len(seen) == 5 * 256 // 32
    assert max(seen) == pytest.approx(0.04, rel=0.02)
    assert max(seen) <= 0.04
    assert seen[0] == pytest.approx(0.04 / 25)
    assert seen[-1] < 0.001


def test_scales_and_biases_are_not_decayed(fits: Fits) -> None:
    """With a loss that is constant only the decay moves weights."""
    made = fits(
        loss=lambda outputs, _targets, _smooth: 0 * outputs[0].sum(),
        weight_decay=0.5,
        epochs=1,
        momentum=0.0,
        schedule="constant",
    )
    before = fits(loss=lambda o, _t, _m: 0 * o[0].sum(), weight_decay=0.0, epochs=1)
    plain, decayed = before.twin.model.state_dict(), made.twin.model.state_dict()
    steps = 256 // 32
    for name in ("conv1.weight", "conv2.weight", "linear.weight"):
        torch.testing.assert_close(decayed[name], plain[name] * (1 - 0.05 * 0.5) ** steps)
    for name in ("bn1.weight", "bn1.bias", "linear.bias"):
        assert torch.equal(decayed[name], plain[name])


def test_label_smoothing_reaches_the_loss(fits: Fits, task: Classification) -> None:
    seen: set[float] = set()

    def loss(outputs: Any, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
        seen.add(smoothing)
        return task.loss(outputs, targets, smoothing)

    fits(loss=loss, label_smoothing=0.2, epochs=1)
    assert seen == {0.2}


# --- epochs ---------------------------------------------------------------------------------


def _fake(values: list[float]) -> Callable[[nn.Module], float]:
    """A validation that says what it is told, in order."""
    told: Iterator[float] = iter(values)
    return lambda _network: next(told)


@pytest.mark.parametrize(
    ("values", "best"), [([0.1, 0.9, 0.5], 2), ([0.9, 0.9, 0.9], 1), ([0.0, 0.0, 0.1], 3)]
)
def test_the_best_epoch_is_kept(fits: Fits, values: list[float], best: int) -> None:
    made = fits(epochs=3, schedule="constant", validate=_fake(values))
    assert made.best == best
    assert [e.validation for e in made.history] == values
    assert [e.number for e in made.history] == [1, 2, 3]


def test_the_kept_epoch_has_that_epochs_weights(fits: Fits) -> None:
    """With a constant rate, the first epoch of three is a run of one epoch."""
    long = fits(epochs=3, schedule="constant", validate=_fake([0.9, 0.1, 0.1]))
    short = fits(epochs=1, schedule="constant", validate=_fake([0.9]))
    a, b = long.twin.model.state_dict(), short.twin.model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(("start", "best"), [(0.95, 0), (0.9, 0), (0.5, 1)])
def test_the_start_competes_when_asked(
    fits: Fits, fresh_twin: Twin, start: float, best: int
) -> None:
    validate = _fake([start, 0.9, 0.8])
    made = fits(validate=validate, more={"keep_start": True})
    assert made.best == best
    assert (made.twin.digest() == fresh_twin.digest()) == (best == 0)


def test_a_start_is_not_judged_unasked(fits: Fits) -> None:
    assert fits(validate=_fake([0.0, 0.0])).best == 1


def test_what_is_logged_is_the_history(fits: Fits) -> None:
    logged: list[tuple[str, float, int]] = []
    shown: list[tuple[str, float]] = []
    more = {
        "log": lambda k, v, s: logged.append((k, v, s)),
        "progress": lambda w, d: shown.append((w, d)),
    }
    made = fits(more=more)
    expected = [
        (key, value, e.number)
        for e in made.history
        for key, value in (("training/loss", e.loss), ("training/validation", e.validation))
    ]
    assert logged == expected
    assert [s[1] for s in shown] == pytest.approx([(i + 1) / 16 for i in range(16)])
    assert (shown[0][0], shown[-1][0]) == ("epoch 1/2", "epoch 2/2")


def test_the_logged_loss_is_the_mean_over_samples(fits: Fits, task: Classification) -> None:
    """A rate of almost nothing: the network stays, so its loss is that of one pass by hand."""
    made = fits(lr=1e-30, weight_decay=0.0, epochs=1, batch=100)
    # in training mode each batch is normalised by its own statistics
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    network = made.twin.network().train()
    total = 0.0
    images, labels = next(task.split("train").batches(256))
    with torch.no_grad():
        for chosen in order.split(100):
            scores = network(torch.from_numpy(images[chosen]))
            target = torch.from_numpy(labels[chosen])
            total += float(functional.cross_entropy(scores, target, reduction="sum"))
    assert made.history[0].loss == pytest.approx(total / 256, rel=1e-5)


def test_every_image_is_seen_once_an_epoch(fits: Fits, task: Classification) -> None:
    seen: list[torch.Tensor] = []

    def loss(outputs: Any, targets: torch.Tensor, _smooth: float) -> torch.Tensor:
        seen.append(targets)
        return functional.cross_entropy(outputs[0], targets)

    fits(loss=loss, epochs=2, batch=100)
    assert [len(t) for t in seen] == [100, 100, 56] * 2
    labels = np.sort(task.split("train").targets)
    one, two = torch.cat(seen[:3]).numpy(), torch.cat(seen[3:]).numpy()
    np.testing.assert_array_equal(np.sort(one), labels)
    assert (one != two).any(), "in another order each time"


@pytest.mark.parametrize(
    ("count", "sizes"), [(65, [65]), (64, [64]), (66, [64, 2]), (129, [64, 65]), (1, [1])]
)
def test_a_batch_of_one_is_never_left_over(
    count: int, sizes: list[int], task: Classification, changed: Callable[..., Any]
) -> None:
    """BatchNorm over features of 1x1 refuses a single image."""
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(432), nn.Linear(432, 4))
    flat = Twin.of(network if count > 1 else network[::2], shape=task.shape)
    seen: list[int] = []

    def loss(outputs: Any, targets: torch.Tensor, _smooth: float) -> torch.Tensor:
        seen.append(len(targets))
        return functional.cross_entropy(outputs[0], targets)

    few = task.split("train").take(np.arange(count))
    spec = PLAIN.model_copy(update={"batch": 64, "epochs": 1})
    shown: list[float] = []
    fit(
        flat,
        few,
        changed(task, loss=loss),
        spec=spec,
        threads=1,
        progress=lambda _what, done: shown.append(done),
    )
    assert seen == sizes
    assert shown[-1] == 1.0


def test_it_learns(fits: Fits) -> None:
    made = fits(epochs=6, lr=0.1)
    assert made.history[-1].loss < made.history[0].loss / 1.5
    assert max(e.validation for e in made.history) > 0.7


@pytest.mark.parametrize("lr", [1e7, 1e30])
def test_divergence_is_an_error_with_a_remedy(fits: Fits, lr: float) -> None:
    with pytest.raises(NetzipError, match=r"training diverged in epoch \d: .*; lower lr .it is 1e"):
        fits(lr=lr, epochs=4)


STEPPED = """
import numpy as np, torch
from netzip_mlflow.recipe import TrainSpec
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.training import fit
from netzip_mlflow.twin import Twin

rng = np.random.default_rng(0)
arrays = {f"x_{s}": rng.integers(0, 256, (64, 16, 16, 3), np.uint8) for s in ("train", "test")}
arrays |= {f"y_{s}": rng.integers(0, 4, 64) for s in ("train", "test")}
task = Classification.of(arrays, calibration=16)
torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 7, 3, padding=1), torch.nn.ReLU(),
    torch.nn.Conv2d(7, 16, 1, stride=2), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    torch.nn.Linear(16, 4),
)
twin = Twin.of(network, shape=(3, 16, 16))
spec = TrainSpec(epochs=1, lr=0.1, batch=16, precision="float32")

def trained():
    made = fit(twin, task.split("train"), task, spec=spec)
    return made.twin.model

torch.backends.mkldnn.set_flags(False)
wanted = trained().state_dict()
torch.backends.mkldnn.set_flags(True)
found = trained()
assert found[2].stride == (2, 2) and not found[2]._forward_pre_hooks
for name, values in found.state_dict().items():
    torch.testing.assert_close(values, wanted[name], rtol=1e-4, atol=1e-5)
"""


def test_strided_pointwise_convolutions_get_their_true_gradients() -> None:
    """With AVX2's kernels, which oneDNN has wrong: hence a process with a limit of its own."""
    limited = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", STEPPED]
    ended = subprocess.run(
        command, env=limited, capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 0, ended.stderr


# --- masks ----------------------------------------------------------------------------------


def test_masked_weights_stay_zero(fits: Fits, fresh_twin: Twin) -> None:
    weight = fresh_twin.model.get_parameter("conv2.weight")
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    pruned = fresh_twin.copy().replace(masks={"conv2.weight": mask})
    made = fits(twin=pruned, optimizer="adamw", weight_decay=0.1)
    found = made.twin.model.get_parameter("conv2.weight")
    assert not found[~mask].any()
    assert (found[mask] != 0).all()
    assert torch.equal(made.twin.masks["conv2.weight"], mask)


def test_no_gradient_reaches_the_teacher(fits: Fits, twin: Twin, task: Classification) -> None:
    teacher = Teacher(twin.copy().network(), task.imitate, 4.0, 0.9)
    before = {k: v.clone() for k, v in teacher.network.state_dict().items()}
    made = fits(more={"teacher": teacher})
    after = teacher.network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before), "not even BatchNorm's statistics"
    assert all(p.grad is None for p in teacher.network.parameters())
    assert not _same(made, fits())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_cuda_comes_back_to_the_cpu(fits: Fits) -> None:
    made = fits(more={"device": "cuda"}, epochs=6, lr=0.1)
    assert {p.device.type for p in made.twin.model.parameters()} == {"cpu"}
    assert max(e.validation for e in made.history) > 0.7
