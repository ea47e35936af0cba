"""One step of training: the loss with a teacher, augmentation, precision, device."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax
from torch import nn

from netzip_mlflow import training
from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import Augment, TrainSpec
from netzip_mlflow.training import Teacher

# --- the teacher ----------------------------------------------------------------------------

_scores = st.lists(
    st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3), min_size=1, max_size=5
)


@given(
    student=_scores,
    teacher_row=st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3),
    temperature=st.floats(0.5, 20),
    alpha=st.floats(0, 1),
)
def test_the_loss_is_hintons(
    student: list, teacher_row: list, temperature: float, alpha: float
) -> None:
    """alpha T^2 KL(softmax(t / T) || softmax(s / T)) + (1 - alpha) CE, by scipy in float64."""
    given_ = np.array(student, np.float32)
    wanted = np.tile(np.array(teacher_row, np.float32), (len(given_), 1))
    hard = -log_softmax(given_.astype(float), axis=1)[:, 0].mean()
    p, q = (softmax(s.astype(float) / temperature, axis=1) for s in (wanted, given_))
    soft = rel_entr(p, q).sum(1).mean()
    expected = alpha * temperature**2 * soft + (1 - alpha) * hard
    found = Teacher(nn.Identity(), temperature, alpha).soft(
        torch.from_numpy(given_), torch.from_numpy(wanted), torch.tensor(hard, dtype=torch.float32)
    )
    assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_a_student_like_its_teacher_has_only_the_hard_loss() -> None:
    scores = np.array([[1.0, 2.0, 3.0]], np.float32)
    given_ = torch.from_numpy(scores)
    found = Teacher(nn.Identity(), 4.0, 0.9).soft(given_, given_, torch.tensor(2.0))
    assert float(found) == pytest.approx(0.1 * 2.0)


# --- augmentation ---------------------------------------------------------------------------


def _augmented(images: np.ndarray, augment: Augment, seed: int = 0) -> np.ndarray:
    order = torch.Generator().manual_seed(seed)
    changes = training._draw(len(images), augment, order)
    return training._changed(torch.from_numpy(images), augment.crop, changes).numpy()


def _pictures(n: int = 64) -> np.ndarray:
    return np.random.default_rng(0).random((n, 2, 5, 7), dtype=np.float32) + 1


def test_a_flip_mirrors_some_images_and_leaves_the_others() -> None:
    images = _pictures()
    made = _augmented(images, Augment(flip=True))
    same = (made == images).all(axis=(1, 2, 3))
    mirrored = (made == images[..., ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 15 < mirrored.sum() < 49, "about half of 64"


@pytest.mark.parametrize("crop", [1, 3])
def test_a_crop_is_a_window_of_the_padded_image(crop: int) -> None:
    images = _pictures()
    made = _augmented(images, Augment(crop=crop))
    padded = np.pad(images, ((0, 0), (0, 0), (crop, crop), (crop, crop)))
    windows = [(row, column) for row in range(2 * crop + 1) for column in range(2 * crop + 1)]
    found = []
    for one, wide in zip(made, padded, strict=True):
        fits_ = [(r, c) for r, c in windows if np.array_equal(wide[:, r : r + 5, c : c + 7], one)]
        assert len(fits_) == 1
        found += fits_
    rows, columns = zip(*found, strict=True)
    assert set(rows) == set(columns) == set(range(2 * crop + 1)), "all shifts occur"
    assert rows != columns, "rows and columns are drawn apart"


def test_no_augmentation_is_none() -> None:
    images = _pictures()
    np.testing.assert_array_equal(_augmented(images, Augment()), images)


# --- device ---------------------------------------------------------------------------------


def test_a_wanted_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training.choose_device("auto") == "cpu"
    assert training.choose_device("cpu") == "cpu"
    with pytest.raises(InputError, match=r"train\.device: 'cuda' given.*; allowed: auto, cpu"):
        training.choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert training.choose_device("auto") == training.choose_device("cuda") == "cuda"


@pytest.mark.parametrize(
    ("wanted", "flags", "autocast"),
    [
        ("float32", "avx512_bf16", False),
        ("bfloat16", "avx2", True),
        ("auto", "avx2", False),
        ("auto", "amx_bf16", True),
    ],
)
def test_bfloat16_where_it_is_arithmetic(
    wanted: Any, flags: str, autocast: bool, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {flags} sse\n")
    monkeypatch.setattr(training, "Path", lambda _: tmp_path / "cpuinfo")
    found = training._precision(TrainSpec(precision=wanted), "cpu")
    assert isinstance(found, nullcontext) != autocast
