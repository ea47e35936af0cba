"""`netzip compress`: its object, its statuses, and its faults in the middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netzip_mlflow import models


class TestCompress:
    def test_an_infeasible_outcome_for_machines(self, netzip, recipe, store, no_pictures):
        """A technique of the user's own may print what it likes: stdout is for the result."""
        Path("chatty.py").write_text(
            "def chat(twin, context):\n    print('I am here')\n    return twin\n"
        )
        change = "candidates.ruined=[{prune_random: {ratio: 0.95}}, 'chatty:chat']"
        options = ("--json", "--require-feasible", "--experiment", "mine", "--set", change)
        ended = netzip("compress", recipe, *options)
        assert ended.status == 3
        assert "I am here" in ended.err
        found = ended.object
        assert set(found) == {"experiment_id", "run_id", "best", "feasible", "candidates"}
        assert (found["best"], found["feasible"]) == (None, False)
        assert [c["name"] for c in found["candidates"]] == ["baseline", "ruined"]
        assert "training 1 epoch" in ended.err, "everything else goes to stderr"
        (home,) = (e for e in store.search_experiments() if e.name == "mine")
        assert found["experiment_id"] == home.experiment_id
        logged = {r.info.run_id: r for r in store.all_runs()}
        assert {r.info.status for r in logged.values()} == {"FINISHED"}
        for row in found["candidates"]:
            run = logged.pop(row["run_id"])
            assert run.info.run_name == row["name"]
            assert row["metrics"].items() <= run.data.metrics.items()
        assert [*logged] == [found["run_id"]]
        assert logged[found["run_id"]].data.tags["netzip.best"] == ""
        assert (
            "no candidate is feasible" in logged[found["run_id"]].data.tags["mlflow.note.content"]
        )

    def test_a_baseline_that_is_never_right(self, netzip, store, save, no_pictures):
        """It can only be found when it was measured: status 1, and what was measured is kept."""
        Path("contrary.py").write_text(
            "import torch\n"
            "class Contrary(torch.nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.first = torch.nn.Conv2d(1, 1, 1)\n"
            "        torch.nn.init.ones_(self.first.weight)\n"
            "        torch.nn.init.zeros_(self.first.bias)\n"
            "    def forward(self, x):\n"
            "        light = self.first(x).mean((1, 2, 3))\n"
            "        return torch.stack([light - 0.5, 0.5 - light], 1)\n"
            "def make(num_classes):\n"
            "    return Contrary()\n"
        )
        labels = np.arange(200) % 2
        draw = np.random.default_rng(0).integers(0, 40, (200, 8, 8), dtype=np.uint8)
        images = draw + (200 * labels[:, None, None]).astype(np.uint8)
        parts = {"x_train": images[:120], "y_train": labels[:120]}
        np.savez("light.npz", **parts, x_test=images[120:], y_test=labels[120:])
        first = models.build_factory("contrary:make", {"num_classes": 2})
        from safetensors.torch import save_file

        save_file(first.state_dict(), "contrary.safetensors")
        model = {"factory": "contrary:make", "weights": "contrary.safetensors"}
        save(
            train=None,
            data={"name": "npz", "path": "light.npz", "calibration": 16},
            model=model | {"mean": [0.0], "std": [1.0]},
            candidates={"half": ["half"]},
        )
        ended = netzip("compress", "recipe.yaml", "--quiet")
        assert (ended.status, ended.out) == (1, "")
        assert "accuracy/top1" in ended.err
        assert "baseline" in ended.err
        assert len(ended.err.strip().splitlines()) <= 3
        found = {r.info.run_name: r for r in store.all_runs()}
        assert {r.info.status for r in found.values()} == {"FAILED"}
        assert found["baseline"].data.metrics["accuracy/top1"] == 0.0
        assert "accuracy/top1" in found["stripes"].data.tags["netzip.reason"]

    def test_a_dry_run_leaves_nothing(self, netzip, recipe, place):
        before = {p.name for p in place.iterdir()}
        ended = netzip("compress", recipe, "--dry-run", "--json")
        assert ended.status == 0
        plan = ended.object
        assert set(plan) == {"name", "steps", "seconds", "missing"}
        assert any(step["step"].startswith("ruined: ") for step in plan["steps"])
        text = netzip("compress", recipe, "--dry-run")
        assert text.out.startswith("stripes: about ")
        assert {p.name for p in place.iterdir()} - {"__pycache__"} == before

    def test_a_dry_run_of_train_has_no_candidates(self, netzip, recipe):
        steps = [s["step"] for s in netzip("train", recipe, "--dry-run", "--json").object["steps"]]
        assert not any("ruined" in step for step in steps)


class TestStopped:
    @pytest.mark.parametrize(
        ("fault", "status", "says"),
        [("KeyboardInterrupt", 130, "interrupted"), ("Killed", 143, "ended by SIGTERM")],
    )
    def test_a_signal_has_its_own_status(
        self, netzip, recipe, store, monkeypatch, fault, status, says
    ):
        from netzip_mlflow.runs import baseline
        from netzip_mlflow.tracking import Killed

        def stop(*_given: object) -> None:
            raise {"KeyboardInterrupt": KeyboardInterrupt(), "Killed": Killed("SIGTERM")}[fault]

        monkeypatch.setattr(baseline, "ready", stop)
        ended = netzip("compress", recipe, "--quiet")
        assert (ended.status, ended.out) == (status, "")
        assert f"netzip: {says}\n" in ended.err
        assert [r.info.status for r in store.all_runs()] == ["KILLED"]
