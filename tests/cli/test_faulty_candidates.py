"""Candidates that cannot be made beside one that can: each run says why, and that one finishes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

OWN = '''
import dataclasses

import torch
from torch import nn


class Forked(nn.Module):
    """Goes one of two ways by the values of the images: it trains, but has no one graph."""

    def __init__(self, classes):
        super().__init__()
        self.gate = Gate()
        self.linear = nn.Linear(8, classes)

    def forward(self, x):
        return self.linear(self.gate(x).mean((2, 3)))


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        x = self.conv(x)
        return x if x.mean() > 0 else -x  # line 26


def forked(num_classes):
    return Forked(num_classes)


class Shy(nn.Sequential):
    """Cannot be followed by gradients."""

    def forward(self, x):
        if torch.is_grad_enabled() and not self.training:
            raise ValueError("only in training")
        return super().forward(x)


def shy(num_classes):
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
    return Shy(nn.Conv2d(3, 8, 3), nn.ReLU(), *pooled)


def silenced(twin, context):
    """A layer of zeros."""
    with torch.no_grad():
        twin.model.conv2.weight.zero_()
    return twin


def three(twin, context, said):
    """One class fewer, and whether the twin says so."""
    from netzip_mlflow import OutputSpec

    twin.model.linear = nn.Linear(twin.model.linear.in_features, 3)
    return twin.replace(outputs=OutputSpec.of(scores=(3,))) if said else twin


def larger(twin, context):
    """Takes other images than those of the data."""
    return twin.replace(input=dataclasses.replace(twin.input, shape=(3, 16, 16)))
'''
TAUGHT = {"finetune": {"epochs": 1, "teacher": "baseline"}}
# a candidate's chain, and what its run must say: the layer where there is one, and the key
FAULTY = {
    "no-channels": (
        [{"prune_channels": {"ratio": 0.95, "round_to": 1}}],
        r"prune_channels: ratio: 0\.95 would leave layer 'conv2' without channels.*allowed: ",
    ),
    "no-weights": (
        [{"prune_l1": {"ratio": 0.99, "scope": "layer"}}],
        r"prune_l1.*: ratio: 0\.99 leaves no weight in layer 'linear'.*allowed: ",
    ),
    "no-rank": (
        ["faulty:silenced", {"factorise": {"method": "energy", "layers": "conv2"}}],
        r"factorise: layer conv2: method: energy gives rank 0.*allowed: ",
    ),
    "no-layer": (
        [{"binarise": {"layers": "conv9", "epochs": 1}}],
        r"binarise\.layers: 'conv9' is no layer .*allowed: conv1.*did you mean 'conv2'",
    ),
    "no-graph": (
        [{"distil": {"student": "faulty:forked", "epochs": 1}}, "ptq"],
        r"torch cannot export the network to ONNX: .*\(layer gate, faulty\.py, line 26\)",
    ),
    "no-trace": (
        [{"distil": {"student": "faulty:shy", "epochs": 1}}, "prune_channels"],
        r"prune_channels: Shy cannot be traced for inputs of 3x12x12: .*only in training",
    ),
    "no-class": (
        [{"faulty:three": {"said": True}}, TAUGHT],
        r"finetune: teacher: baseline answers scores \(4,\) .*, the network scores \(3,\)",
    ),
    "no-score": (
        [{"faulty:three": {"said": False}}, TAUGHT],
        r"the network: answers \d+ samples with \(\d+, 3\); allowed: for each sample scores \(4,\)",
    ),
    "no-image": (
        ["faulty:larger", "ptq"],
        r"ptq: calibration images are of \(3, 12, 12\); allowed: \(3, 16, 16\)",
    ),
}


@pytest.fixture
def faulty(recipe) -> None:
    """The user's own code, in the working folder."""
    Path("faulty.py").write_text(OWN.lstrip())


def test_each_says_why_and_the_good_one_finishes(netzip, save, store, faulty, no_pictures):
    chains = {name: chain for name, (chain, _) in FAULTY.items()}
    save(candidates=chains | {"good": ["half"]}, score={"max_drop_points": 100})
    ended = netzip("compress", "recipe.yaml", "--quiet", "--json")
    assert ended.status == 0
    assert (ended.object["best"], ended.object["feasible"]) == ("good", True)
    runs = {run.info.run_name: run for run in store.all_runs()}
    assert {name for name, run in runs.items() if run.info.status == "FINISHED"} == {
        *("stripes", "baseline", "good")
    }
    for name, (_, says) in FAULTY.items():
        assert runs[name].info.status == "FAILED"
        reason = runs[name].data.tags["netzip.reason"]
        assert re.match(says, reason), f"{name}: {reason}"
        assert "\n" not in reason
    assert "GraphModule" not in ended.err, "torch's own dumps are not for users"


def test_a_network_that_no_candidate_could_ship(netzip, save, store, faulty):
    """The baseline cannot be exported: the run has failed, and says so."""
    save(model={"factory": "faulty:forked"})
    ended = netzip("compress", "recipe.yaml", "--quiet")
    assert (ended.status, ended.out) == (1, "")
    says = (
        r"netzip: model: torch cannot export the network to ONNX: .*layer gate, faulty\.py, line 26"
    )
    assert re.match(says, ended.err)
    runs = store.all_runs()
    assert {run.info.status for run in runs} == {"FAILED"}
    assert all("layer gate" in run.data.tags["netzip.reason"] for run in runs)
