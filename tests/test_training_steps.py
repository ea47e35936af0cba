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
from netzip_mlflow.recipe import TrainSpec
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.training import Teacher

# --- the teacher ----------------------------------------------------------------------------

_scores = st.lists(
    st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=4), min_size=1, max_size=5
)


@given(
    student=_scores,
    teacher_row=st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=4),
    temperature=st.floats(0.5, 20),
    alpha=st.floats(0, 1),
)
def test_the_loss_is_hintons(
    student: list, teacher_row: list, temperature: float, alpha: float, task: Classification
) -> None:
    """alpha T^2 KL(softmax(t / T) || softmax(s / T)) + (1 - alpha) CE, by scipy in float64."""
    given_ = np.array(student, np.float32)
    wanted = np.tile(np.array(teacher_row, np.float32), (len(given_), 1))
    hard = -log_softmax(given_.astype(float), axis=1)[:, 0].mean()
    p, q = (softmax(s.astype(float) / temperature, axis=1) for s in (wanted, given_))
    soft = rel_entr(p, q).sum(1).mean()
    expected = alpha * temperature**2 * soft + (1 - alpha) * hard
    found = Teacher(nn.Identity(), task.imitate, temperature, alpha).soft(
        (torch.from_numpy(given_),),
        (torch.from_numpy(wanted),),
        torch.tensor(hard, dtype=torch.float32),
    )
    assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_a_student_like_its_teacher_has_only_the_hard_loss(task: Classification) -> None:
    scores = np.array([[1.0, 2.0, 3.0, 0.5]], np.float32)
    given_ = (torch.from_numpy(scores),)
    found = Teacher(nn.Identity(), task.imitate, 4.0, 0.9).soft(given_, given_, torch.tensor(2.0))
    assert float(found) == pytest.approx(0.1 * 2.0)


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
