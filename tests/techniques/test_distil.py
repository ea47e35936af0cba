"""Distillation: the chain goes on with the student, who learns from the twin as it stands."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netzip_mlflow import techniques
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.distil import Distil
from netzip_mlflow.techniques.factorise import Factorise
from netzip_mlflow.techniques.finetune import Finetune
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.twin import Architecture, Twin

TINY = "tiny_networks:tiny"


def test_the_student_takes_the_twins_place(twin: Twin, context: Context, tmp_path: Path) -> None:
    """Edits of before are gone with the architecture; what follows starts anew from the student."""
    split = Factorise().apply(twin, context)
    made = Distil(student=TINY, arguments="{width: 4}", epochs=2).apply(split, context)
    assert made.architecture == Architecture("factory", TINY, {"num_classes": 4, "width": 4})
    assert made.edits == ()
    assert (made.input, made.outputs, made.facts) == (twin.input, twin.outputs, twin.facts)
    assert made.chain == ("factorise(0.5)", f"distil({TINY})")
    assert sum(p.numel() for p in made.model.parameters()) < sum(
        p.numel() for p in split.model.parameters()
    )
    again = Factorise(ratio=0.25, layers="conv2").apply(made, context)
    assert [e.technique for e in again.edits] == ["factorise"]
    again.save(tmp_path)
    assert Twin.load(tmp_path, [TINY]).digest() == again.digest()


def test_masks_stay_with_the_teacher(twin: Twin, context: Context) -> None:
    made = Distil(student=TINY, epochs=1).apply(PruneL1(0.5).apply(twin, context), context)
    assert made.masks == {}
    assert all(weight.all() for n, weight in made.model.named_parameters() if "conv" in n)


def test_it_learns_from_the_incoming_twin_alone(
    twin: Twin, fresh_twin: Twin, task: Classification, context: Context
) -> None:
    """With alpha 1 and wrong labels, and no baseline in the context."""
    rolled = replace(context.train, targets=np.roll(context.train.targets, 1))
    alone = replace(context, train=rolled, teacher=None)
    pupil = Distil(student=TINY, epochs=8, lr=0.1, batch=32, alpha=1.0)
    right = pupil.apply(twin, context)
    anyhow = pupil.apply(twin, alone)
    assert right.digest() == anyhow.digest(), "neither labels nor baseline play a part"
    assert task.validate(anyhow.network()) > 0.6
    assert pupil.apply(fresh_twin, context).digest() != right.digest()


def test_it_starts_from_scratch_and_the_seed_decides(twin: Twin, context: Context) -> None:
    pupil = Distil(student=TINY, epochs=1)
    first, other = (pupil.apply(twin, replace(context, seed=seed)) for seed in (0, 1))
    assert first.digest() != other.digest()
    start = other.model.get_parameter("conv1.weight")
    assert (start - twin.model.get_parameter("conv1.weight")).abs().max() > 0.1


def test_finetuning_a_student_needs_the_classes_only(twin: Twin, context: Context) -> None:
    made = Distil(epochs=1).apply(twin, context)
    tuned = Finetune(epochs=1, teacher="baseline").apply(made, context)
    assert tuned.chain == ("distil(resnet8)", "finetune(teacher)")


# --- mistakes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "key", "what", "hint"),
    [
        ({"student": "resnet9"}, "student", "no network is called 'resnet9'", "mean 'resnet"),
        ({"student": "nowhere:net"}, "student", "nowhere cannot be imported", ""),
        ({"student": "tiny_networks:tny"}, "student", "no function 'tny'", "mean 'tiny'"),
        ({"student": "tiny networks:a"}, "student", "'tiny networks:a'", ""),
        ({"arguments": "{width: "}, "arguments", "is not allowed", ""),
        ({"arguments": "[1]"}, "arguments", "it is list", ""),
        ({"arguments": "8"}, "arguments", "it is int", ""),
        ({"arguments": "{[1]: 2}"}, "arguments", "a key must be a text", ""),
        ({"arguments": "!!timestamp 2020-01-01"}, "arguments", "timestamp", ""),
        ({"arguments": "{width: .nan}"}, "arguments", "not JSON compliant", ""),
        ({"epoch": 3}, "epoch", "unknown key", "mean 'epochs'"),
    ],
)
def test_mistakes_are_found_when_the_recipe_is_read(
    given: dict[str, Any], key: str, what: str, hint: str
) -> None:
    (problem,) = techniques.check({"candidates": {"c": [{"distil": given}]}})
    assert problem.where == f"candidates.c[0].distil.{key}"
    assert what in problem.what
    assert hint in problem.hint


@pytest.mark.parametrize("text", ['{"width": 4}', "{width: 4}", "width: 4"])
def test_arguments_are_yaml_or_json(text: str) -> None:
    assert techniques.check({"candidates": {"c": [{"distil": {"arguments": text}}]}}) == []
    made = Distil(student=TINY, arguments=text)._architecture({})
    assert made == Architecture("factory", TINY, {"width": 4})


@pytest.mark.parametrize(
    ("student", "arguments", "message"),
    [
        (
            TINY,
            "{num_classes: 7}",
            r"student .*tiny: answers 2 samples with \(2, 7\); .* \(4,\)",
        ),
        (TINY, "{wdth: 7}", r"student tiny_networks:tiny: .*cannot be called with .*wdth"),
        ("lenet5", None, "student lenet5: lenet5 cannot take images of 12x12; allowed: 16x16"),
        (TINY, "[]", "arguments: it is list; allowed: a mapping"),
    ],
)
def test_a_student_that_does_not_fit(
    student: str, arguments: str | None, message: str, twin: Twin, context: Context
) -> None:
    with pytest.raises(NetzipError, match=f"distil: {message}"):
        Distil(student=student, arguments=arguments).apply(twin, context)


def test_its_training_is_that_of_finetune() -> None:
    """The same words, bounds and meanings, wherever both have them."""
    one, two = (
        {
            f.name: dataclasses.replace(f.metadata["bounds"], search=None)
            for f in dataclasses.fields(kind)
        }
        for kind in (Distil, Finetune)
    )
    assert {k: v for k, v in one.items() if k in two} == {k: v for k, v in two.items() if k in one}
    assert one.keys() - two.keys() == {"student", "arguments"}
    assert two.keys() - one.keys() == {"teacher", "features"}


def test_nothing_is_drawn_from_the_outside(twin: Twin, context: Context) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Distil(student=TINY, epochs=1).apply(twin, context)
    assert torch.equal(torch.get_rng_state(), before)
