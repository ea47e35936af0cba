"""Structured pruning that cannot be done, and what it says then."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from netzip_mlflow import techniques
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.prune_channels import PruneChannels
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.twin import Grid, Twin


def test_a_ratio_that_would_empty_a_layer(twin: Twin, context: Context) -> None:
    with pytest.raises(
        NetzipError,
        match=r"ratio: 0\.95 .*'conv1' without channels: it has 8; .*0\.938.*keep: conv1",
    ):
        PruneChannels(0.95, round_to=1).apply(twin, context)
    made = PruneChannels(0.95, round_to=1, keep="conv1").apply(twin, context)
    assert made.model.get_submodule("conv2").out_channels == 1


def test_a_ratio_that_removes_nothing(twin: Twin, context: Context) -> None:
    with pytest.raises(NetzipError, match=r"ratio: 0\.1 removes nothing.*'conv2', has 16.*is 8"):
        PruneChannels(0.1, round_to=8).apply(twin, context)


def test_macs_out_of_reach(twin: Twin, context: Context) -> None:
    with pytest.raises(NetzipError, match=r"macs: 0\.01 .*cannot be reached.*keep: conv2.* 0\.\d+"):
        PruneChannels(macs=0.01, keep="conv2").apply(twin, context)


def test_keep_that_matches_nothing(twin: Twin, context: Context) -> None:
    with pytest.raises(
        NetzipError,
        match=r"keep: 'conv3' .*allowed: conv1, bn1, conv2, .*linear, .*\(did you mean 'conv[12]'",
    ):
        PruneChannels(keep="conv1, conv3").apply(twin, context)


def test_masks_and_grids_would_not_fit(twin: Twin, context: Context) -> None:
    with pytest.raises(NetzipError, match=r"masks \(conv1\.weight.*before"):
        PruneChannels().apply(PruneL1(0.5).apply(twin, context), context)
    gridded = twin.replace(grids={"conv1": Grid("int8", torch.ones(8))})
    with pytest.raises(NetzipError, match=r"grids \(conv1\).*before"):
        PruneChannels().apply(gridded, context)


def test_without_a_teacher_it_says_so(twin: Twin, context: Context) -> None:
    with pytest.raises(NetzipError, match="teacher"):
        PruneChannels(teacher="baseline").apply(twin, replace(context, teacher=None))


class _Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.linear = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("only on Sundays")


def test_a_network_that_cannot_be_traced(context: Context) -> None:
    net = Twin.of(_Untraceable(), shape=(3, 8, 8), outputs=OutputSpec.of(scores=(4,)))
    with pytest.raises(NetzipError, match=r"_Untraceable cannot be traced.*3x8x8.*only on Sundays"):
        PruneChannels().apply(net, context)


def test_ratio_and_macs_contradict() -> None:
    raw = {"candidates": {"c": [{"prune_channels": {"ratio": 0.3, "macs": 0.5}}]}}
    (problem,) = techniques.check(raw)
    assert problem.where == "candidates.c[0].prune_channels.macs"
    assert "ratio" in problem.what
    raw["candidates"]["c"][0]["prune_channels"]["macs"] = None  # type: ignore[assignment]
    assert techniques.check(raw) == []
