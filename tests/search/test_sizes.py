"""What a search takes for known before a training, and that it is what comes out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from netzip_mlflow import techniques
from netzip_mlflow.deployable import Deployable
from netzip_mlflow.search import sizes
from netzip_mlflow.stages.search.objective import MARGIN
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.twin import Twin

Entries = list[dict[str, Any]]
ZEROS: Entries = [{"prune_l1": {"ratio": 0.8}}]
RANDOM: Entries = [{"prune_random": {"ratio": 0.8, "scope": "layer"}}]
TRAINED: Entries = [{"finetune": {"epochs": 6, "lr": 0.1, "batch": 32}}]
INT8, INT4, FP16, BF16 = (
    [{name: given}]
    for name, given in (
        ("ptq", {}),
        ("ptq", {"bits": 4}),
        ("half", {}),
        ("half", {"dtype": "bf16"}),
    )
)
QAT: Entries = [{"qat": {"bits": "ternary", "epochs": 3, "lr": 0.1, "batch": 32}}]


@pytest.mark.parametrize(
    ("entries", "known"),
    [
        (INT8, True),
        (TRAINED + INT8, True),
        (QAT + INT8, True),
        (ZEROS, True),
        (ZEROS + INT8, True),  # nothing trains: its rounding is what it will be
        (ZEROS + TRAINED, True),  # masks stay
        (ZEROS + TRAINED + FP16, True),
        (RANDOM + TRAINED + BF16, True),
        (ZEROS + TRAINED + INT8, False),  # how many weights will round to zero?
        (ZEROS + QAT + INT8, False),
        (ZEROS + QAT, False),
        (TRAINED + ZEROS, False),  # which are the least will be known then
        (ZEROS + TRAINED + RANDOM, False),
        ([{"prune_l1": {"ratio": 0.5, "steps": 2}}], False),
        ([*ZEROS, {"ptq": {"bits": 4, "max_drop": 0.5}}], False),
    ],
)
def test_what_is_known(entries: Entries, known: bool) -> None:
    assert sizes.known(techniques.chain(entries)) == known


@pytest.mark.parametrize(
    "entries", [ZEROS + TRAINED, ZEROS + TRAINED + FP16, RANDOM + TRAINED + BF16, QAT + INT8]
)
def test_a_known_size_is_that_of_the_trained_file(
    entries: Entries, twin: Twin, context: Context, tmp_path: Path
) -> None:
    def size(context: Context, folder: str) -> tuple[int, bytes]:
        made: Twin | Deployable = twin
        for technique in techniques.chain(entries):
            assert isinstance(made, Twin)
            made = technique.apply(made, context)
        file = (deploy(made, context) if isinstance(made, Twin) else made).save(tmp_path / folder)
        return file.stat().st_size, file.read_bytes()

    found, untrained = size(dataclasses.replace(context, untrained=True), "untrained")
    real, trained = size(context, "trained")
    assert untrained != trained
    assert real / MARGIN <= found <= real * MARGIN
