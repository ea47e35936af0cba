"""Teachers: asked once about each view, attention transfer by hand, no hook left behind."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from netzip_mlflow import distillation
from netzip_mlflow.distillation import Teacher, attention, matched
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.models import build
from netzip_mlflow.recipe import Augment, TrainSpec
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.factorise import Factorise
from netzip_mlflow.training import Fitted, fit
from netzip_mlflow.twin import Twin

PLAIN = TrainSpec(epochs=4, lr=0.05, batch=32, precision="float32")
MOVING = Augment(flip=True, crop=2)
STEPS = 256 // 32


def _fit(
    twin: Twin, task: Classification, teacher: Teacher | None, views: int = 0, **changes: Any
) -> Fitted:
    spec = PLAIN.model_copy(update=changes)
    return fit(
        twin,
        task.split("train"),
        task,
        spec=spec,
        teacher=teacher,
        views=views,
        threads=1,
    )


class _Counted(nn.Module):
    """A teacher that remembers what it was shown."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.shown: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown.append(images.clone())
        return self.network(images)


def _teacher(twin: Twin, task: Classification, **more: Any) -> tuple[Teacher, _Counted]:
    counted = _Counted(twin.copy().network())
    return Teacher(counted, task.imitate, 4.0, 0.9, **more), counted


def _weights(made: Fitted) -> list[torch.Tensor]:
    return list(made.twin.model.state_dict().values())


# --- memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("views", "augment", "epochs", "asked"),
    [
        (0, Augment(), 4, 1),
        (3, Augment(), 4, 1),
        (0, MOVING, 4, 4),
        (1, MOVING, 4, 1),
        (2, MOVING, 4, 2),
        (3, MOVING, 4, 3),
        (8, MOVING, 4, 4),
    ],
)
def test_a_teacher_is_asked_once_about_each_view(
    views: int,
    augment: Augment,
    epochs: int,
    asked: int,
    twin: Twin,
    fresh_twin: Twin,
    task: Classification,
) -> None:
    teacher, counted = _teacher(twin, task)
    _fit(fresh_twin, task, teacher, views, augment=augment, epochs=epochs)
    assert len(counted.shown) == asked * STEPS


@pytest.mark.parametrize("features", [0.0, 10.0])
@pytest.mark.parametrize(("views", "augment"), [(0, Augment()), (2, MOVING)])
def test_what_is_remembered_is_what_it_would_say(
    views: int,
    augment: Augment,
    features: float,
    twin: Twin,
    fresh_twin: Twin,
    task: Classification,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same training with a teacher that is asked at every step."""
    one, two = (Teacher(twin.copy().network(), task.imitate, 4.0, 0.9, features) for _ in range(2))
    remembered = _fit(fresh_twin, task, one, views, augment=augment)
    monkeypatch.setattr(distillation, "MEMORY", 0)
    asked = _fit(fresh_twin, task, two, views, augment=augment)
    for known, fresh in zip(_weights(remembered), _weights(asked), strict=True):
        torch.testing.assert_close(known, fresh, atol=1e-6, rtol=1e-5)


def test_each_image_gets_its_own_answer(twin: Twin, task: Classification) -> None:
    images, _ = next(task.split("train").batches(256))
    pixels = torch.from_numpy(images)
    with torch.no_grad():
        expected = twin.network()(pixels)
    teacher, counted = _teacher(twin, task)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(3))
    with teacher.lesson(twin.network(), task.shape, images=256, views=2) as lesson:
        for chosen in order.split(50):
            torch.testing.assert_close(
                lesson._answers(pixels[chosen], chosen, 1)[0], expected[chosen]
            )
        assert len(counted.shown) == 6
        again = torch.randperm(256)
        for chosen in again.split(64):
            known = lesson._answers(pixels[chosen], chosen, 1)[0]
            torch.testing.assert_close(known, expected[chosen])
        assert len(counted.shown) == 6
        lesson._answers(pixels[:8], torch.arange(8), 0)
        assert len(counted.shown) == 7, "another view is another question"


def test_a_memory_that_would_be_too_large_is_not_kept(
    twin: Twin, fresh_twin: Twin, task: Classification, monkeypatch: pytest.MonkeyPatch
) -> None:
    for memory, asked in ((256 * 4 * 4, 1), (256 * 4 * 4 - 1, 4)):
        monkeypatch.setattr(distillation, "MEMORY", memory)
        teacher, counted = _teacher(twin, task)
        _fit(fresh_twin, task, teacher)
        assert len(counted.shown) == asked * STEPS


# --- views ----------------------------------------------------------------------------------


def _shown(twin: Twin, task: Classification, views: int, epochs: int) -> list[np.ndarray]:
    """Per epoch, the images that the network was trained on, sorted: their order plays no part."""
    seen: list[torch.Tensor] = []
    student = twin.copy()

    def watch(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if module.training:
            seen.append(given[0].flatten(1))

    student.model.register_forward_pre_hook(watch)  # deep copies keep hooks
    spec = PLAIN.model_copy(update={"epochs": epochs, "augment": MOVING})
    fit(student, task.split("train"), task, spec=spec, views=views)
    whole = torch.cat(seen).view(epochs, 256, -1).numpy()
    return [epoch[np.lexsort(epoch.T[::-1])] for epoch in whole]


def test_views_come_again_and_differ(fresh_twin: Twin, task: Classification) -> None:
    one, two, three, four, five = _shown(fresh_twin, task, views=2, epochs=5)
    np.testing.assert_array_equal(one, three)
    np.testing.assert_array_equal(one, five)
    np.testing.assert_array_equal(two, four)
    assert (one != two).any()


def test_without_views_every_epoch_is_new(fresh_twin: Twin, task: Classification) -> None:
    epochs = _shown(fresh_twin, task, views=0, epochs=3)
    assert (epochs[0] != epochs[1]).any()
    assert (epochs[0] != epochs[2]).any()


def test_views_are_seeded(twin: Twin, fresh_twin: Twin, task: Classification) -> None:
    first, second = (
        _fit(
            fresh_twin,
            task,
            Teacher(twin.copy().network(), task.imitate, 4.0, 0.9),
            2,
            augment=MOVING,
        )
        for _ in range(2)
    )
    assert first.history == second.history
    assert all(torch.equal(a, b) for a, b in zip(_weights(first), _weights(second), strict=True))


# --- attention transfer ---------------------------------------------------------------------


def test_attention_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 0.0], [2.0, 0.0]], [[0.0, 2.0], [2.0, 0.0]]]])
    # squares summed over the two channels: 1, 4, 8, 0; their norm is 9
    torch.testing.assert_close(attention(maps), torch.tensor([[1.0, 4.0, 8.0, 0.0]]) / 9)
    torch.testing.assert_close(attention(-3 * maps), attention(maps))
    assert not attention(torch.zeros(1, 2, 2, 2)).any()


@pytest.mark.parametrize("name", ["resnet8", "resnet20_cifar"])
def test_the_last_layer_of_each_resolution_is_compared(name: str) -> None:
    network = nn.Sequential(nn.Identity(), build(name, (3, 32, 32), {"num_classes": 4}))
    assert matched(network, network, (3, 32, 32)) == ["1.layer1", "1.layer2", "1.layer3"]


def test_layers_are_matched_in_a_plain_sequence(twin: Twin, context: Context) -> None:
    """Neither the normalised image nor what is 1x1, nor a module that runs twice."""
    relu = nn.ReLU()
    network = nn.Sequential(
        *(nn.Hardtanh(), nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3, stride=2), nn.ReLU()),
        *(nn.Conv2d(4, 4, 1), relu, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)),
    )
    assert matched(network, network, (3, 12, 12)) == ["1", "5"]
    made = Factorise(ratio=0.5).apply(twin, context)
    names = matched(made.network(), twin.network(), twin.input.shape)
    assert names == ["1.bn1", "1.bn2"], "a split layer has its old name"


def test_networks_without_a_common_stage_are_an_error(twin: Twin) -> None:
    other = nn.Sequential(nn.Identity(), build("resnet8", (3, 12, 12), {"num_classes": 4}))
    smaller = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 4))
    assert matched(twin.network(), other, (3, 12, 12)) == ["1.bn1"]
    with pytest.raises(NetzipError, match="features: teacher and student have no module of one"):
        matched(twin.network(), smaller, (3, 12, 12))


def test_the_loss_adds_half_the_squared_distance_of_the_maps(
    twin: Twin, fresh_twin: Twin, task: Classification
) -> None:
    """Against maps taken by hand from the tiny network's two stages."""
    images, _ = next(task.split("train").batches(16))
    pixels, positions = torch.from_numpy(images), torch.arange(16)
    student, network = fresh_twin.copy().network(), twin.copy().network()
    hard, weight = torch.tensor(0.7), 6.0

    def maps(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        x = model[0](x)  # type: ignore[index]
        tiny = model[1]  # type: ignore[index]
        first = tiny.bn1(tiny.conv1(x))
        return [first, tiny.bn2(tiny.conv2(torch.relu(first)))]

    with torch.no_grad():
        distance = 0.0
        for mine, theirs in zip(maps(student, pixels), maps(network, pixels), strict=True):
            rows = [(m**2).sum(1).flatten(1).numpy() for m in (mine, theirs)]
            q, p = (r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows)
            distance += float(((q - p) ** 2).sum(1).mean())
        scores = student(pixels)
        plain = Teacher(network, task.imitate, 4.0, 0.9).soft((scores,), (network(pixels),), hard)
    teacher = Teacher(network, task.imitate, 4.0, 0.9, weight)
    with teacher.lesson(student, task.shape, images=16, views=0) as lesson:
        found = lesson.loss((student(pixels),), pixels, hard, positions, 0)
    assert float(found.detach()) == pytest.approx(float(plain) + weight / 2 * distance, rel=1e-5)
    assert distance > 0.01


def test_a_student_draws_closer_to_its_teachers_maps(
    twin: Twin, fresh_twin: Twin, task: Classification
) -> None:
    images = torch.from_numpy(next(task.split("validation").batches(64))[0])

    def distance(made: Twin) -> float:
        seen: list[torch.Tensor] = []
        for each in (made, twin):
            with each_hook(each.model.get_submodule("bn2"), seen), torch.no_grad():
                each.network()(images)
        return float((attention(seen[0]) - attention(seen[1])).pow(2).sum(1).mean())

    @contextlib.contextmanager
    def each_hook(module: nn.Module, seen: list[torch.Tensor]):
        hook = module.register_forward_hook(lambda _m, _g, out: seen.append(out))
        try:
            yield
        finally:
            hook.remove()

    without, with_ = (
        _fit(fresh_twin, task, Teacher(twin.copy().network(), task.imitate, 4.0, 0.9, f)).twin
        for f in (0.0, 100.0)
    )
    assert distance(with_) < distance(without) < distance(fresh_twin)


def test_no_hook_is_left_behind(twin: Twin, fresh_twin: Twin, task: Classification) -> None:
    network = twin.copy().network()
    teacher = Teacher(network, task.imitate, 4.0, 0.9, 10.0)
    made = _fit(fresh_twin, task, teacher, epochs=1)

    def hooks() -> int:
        both = [*network.modules(), *made.twin.model.modules()]
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in both)

    assert hooks() == 0
    ruinous = PLAIN.model_copy(update={"lr": 1e30})
    with pytest.raises(NetzipError, match="diverged"):
        fit(
            made.twin,
            task.split("train"),
            task,
            spec=ruinous,
            teacher=teacher,
        )
    assert hooks() == 0


# --- classes --------------------------------------------------------------------------------


def test_a_teacher_of_other_classes_is_an_error(fresh_twin: Twin, task: Classification) -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(432, 7))
    with pytest.raises(
        NetzipError, match=r"the teacher: answers 32 samples with \(32, 7\); allowed: .* \(4,\)"
    ):
        _fit(fresh_twin, task, Teacher(other, task.imitate, 4.0, 0.9))


def test_finetune_names_the_classes_that_differ(twin: Twin, context: Context) -> None:
    from netzip_mlflow.techniques.finetune import Finetune

    turned = twin.replace(facts={"classes": twin.facts["classes"][::-1]})
    with pytest.raises(
        NetzipError,
        match=r"finetune: teacher: baseline answers scores \(4,\) .*'3', '2', '1'.*, the network",
    ):
        Finetune(teacher="baseline").apply(twin, replace(context, teacher=turned))
