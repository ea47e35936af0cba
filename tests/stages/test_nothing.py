"""Compressing by nothing: whatever the technique, what comes out is the baseline."""

from __future__ import annotations

import pytest

NOTHING = {
    "weights": "{prune_l1: {ratio: 0}}",
    "random": "{prune_random: {ratio: 0}}",
    "channels": "{prune_channels: {ratio: 0}}",
    "full-rank": "{factorise: {ratio: 1}}",
    "all-energy": "{factorise: {method: energy, energy: 1}}",
}


@pytest.fixture(scope="module")
def nothing(compressed, run_compress):
    """Beside the baseline that was trained before, in the same store."""
    candidates = ", ".join(f"{name}: [{step}]" for name, step in NOTHING.items())
    return run_compress(compressed.folder, f"candidates={{{candidates}}}", pictures=False)


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_is_gained_and_nothing_lost(nothing, name):
    found = nothing.runs[name]
    assert found.info.status == "FINISHED"
    metrics = found.data.metrics
    for split in ("", "validation/"):
        assert metrics[f"{split}ratio/P"] == 1
        assert metrics[f"{split}score/ocs"] == 0
        assert metrics[f"{split}accuracy/drop_points"] == 0
        assert metrics[f"{split}fidelity/agreement"] == 1
    for ratio in ("S", "C", "pcr", "al", "zip"):
        assert metrics[f"ratio/{ratio}"] == 1, ratio
    baseline = nothing.runs["baseline"].data.metrics
    same = {k for k in baseline if k.startswith(("accuracy/", "speed/macs", "speed/chats"))}
    same |= {k for k in baseline if k.startswith("size/") and k.endswith(("bytes", "parameters"))}
    same -= {"size/ram_bytes"}
    assert len(same) > 6
    assert {k: metrics[k] for k in same} == {k: baseline[k] for k in same}


@pytest.mark.parametrize("name", NOTHING)
def test_the_file_is_the_baselines(nothing, name):
    ours, theirs = (nothing.model(n) / "model.onnx" for n in (name, "baseline"))
    assert ours.read_bytes() == theirs.read_bytes()
