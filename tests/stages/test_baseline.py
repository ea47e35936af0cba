"""Which earlier baseline stands for one that would be trained now: only what is the same, whole."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from netzip_mlflow.runs import baseline, candidates
from netzip_mlflow.runs.bench import Bench
from netzip_mlflow.runs.job import Options
from netzip_mlflow.stages import train as stage
from netzip_mlflow.tracking import Killed, Run
from tests.stages.conftest import read_recipe

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from netzip_mlflow.deployable import Exports

RECIPE = """
name: small-digits
data: {name: digits, validation: 0.2, test: 0.2, calibration: 64}
model: {factory: "my_network:make"}
train: {epochs: 1, optimizer: adamw, lr: 0.004, batch: 64, precision: float32, threads: 1}
measure: {threads: 1, latency: {target: 0.5, max_seconds: 0.1, min_rounds: 5}, throughput: [8]}
score: {max_drop_points: 100}
"""
NETWORK = """
from torch import nn
from my_layers import act

def make(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 16), act(), nn.Linear(16, num_classes))
"""
LAYERS = """
from torch import nn

def act():
    return nn.ReLU()
"""
NAMELESS = """
from torch import nn

make = lambda num_classes: nn.Sequential(nn.Flatten(), nn.Linear(1024, num_classes))
"""


@dataclass(frozen=True)
class Trained:
    """The baseline's run after one `train`, as the store has it, and what was said."""

    run_id: str
    tags: dict[str, str]
    said: str

    @property
    def reused(self) -> str | None:
        return self.tags.get("netzip.reused_from")


@dataclass(frozen=True)
class Workshop:
    """A store, a user's modules, and the command `train`, as a process of its own each time."""

    options: Options
    client: MlflowClient
    folder: Path

    def write(self, module: str, text: str) -> None:
        (self.folder / f"{module}.py").write_text(text)

    def __call__(self, *overrides: str) -> Trained:
        for name in ("my_network", "my_layers"):
            sys.modules.pop(name, None)
        said: list[str] = []
        options = Options(self.options.tracking_uri, "stages", say=said.append)
        made = stage.train(read_recipe(RECIPE, self.folder, *overrides), options)
        tags = self.client.get_run(made.run.id).data.tags
        return Trained(made.run.id, tags, "\n".join(said))

    def twin(self, trained: Trained) -> Path:
        """Where the store keeps a baseline's twin."""
        (place,) = self.folder.glob(f"mlruns/*/{trained.run_id}/artifacts/twin")
        return place


@pytest.fixture
def trains(
    workplace: Options,
    client: MlflowClient,
    exports: Exports,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Workshop:
    """Nobody looks at figures here: nothing is measured."""
    for name in ("inspect_and_judge", "time_and_grade"):
        monkeypatch.setattr(candidates, name, lambda *_given: None)
    monkeypatch.setattr(stage, "Bench", partial(Bench, exports=exports))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # changed within one second
    monkeypatch.syspath_prepend(tmp_path)
    made = Workshop(workplace, client, tmp_path)
    made.write("my_network", NETWORK)
    made.write("my_layers", LAYERS)
    return made


class TestSameInputs:
    def test_nothing_is_trained_twice(self, trains):
        first, second = trains(), trains()
        assert second.reused == first.run_id
        assert first.run_id in second.said
        assert second.tags["netzip.model_digest"] == first.tags["netzip.model_digest"]

    @pytest.mark.parametrize("module", ["my_network", "my_layers"])
    def test_another_activation_in_a_users_network_is_another_baseline(self, trains, module):
        first = trains()
        trains.write("my_network", NETWORK.replace("act()", "nn.Tanh()"))
        if module == "my_layers":
            trains.write("my_network", NETWORK)
            trains.write("my_layers", LAYERS.replace("ReLU", "Tanh"))
        second = trains()
        assert second.reused is None
        assert second.tags["netzip.model_digest"] != first.tags["netzip.model_digest"]

    def test_weights_that_a_users_function_reads_count(self, trains, tmp_path):
        import torch

        reads = "nn.Linear(16, num_classes))\n    made[3].load_state_dict(torch.load('last.pt'))\n"
        text = NETWORK.replace("return nn", "made = nn").replace(
            "nn.Linear(16, num_classes))\n", f"{reads}    return made\n"
        )
        trains.write("my_network", f"import torch\n{text}")
        for seed in (0, 1):
            torch.manual_seed(seed)
            torch.save(torch.nn.Linear(16, 10).state_dict(), tmp_path / "last.pt")
            assert trains().reused is None

    def test_a_network_without_a_file_that_determines_it_is_trained_and_that_is_said(self, trains):
        trains.write("my_network", NAMELESS)
        trains()
        second = trains()
        assert second.reused is None
        (line,) = [text for text in second.said.splitlines() if "my_network:<lambda>" in text]
        assert line.startswith("baseline: trained")

    def test_an_alias_that_moved_to_another_version_is_another_start(self, trains):
        versions = [trains(f"seed={seed}").run_id for seed in (0, 1)]
        trains.client.create_registered_model("m")
        for run_id in versions:
            (output,) = trains.client.get_run(run_id).outputs.model_outputs
            trains.client.create_model_version("m", f"models:/{output.model_id}")
        champion = "model={uri: 'models:/m@champion', allow: ['my_network:make']}"
        runs = []
        for version in ("1", "2", "1"):
            trains.client.set_registered_model_alias("m", "champion", version)
            runs.append(trains(champion))
        assert [run.reused for run in runs] == [None, None, runs[0].run_id]
        trains.client.set_registered_model_alias("m", "champion", "2")
        untrained = trains(champion, "train=null")
        assert untrained.reused is None
        digest = trains.client.get_run(versions[1]).data.tags["netzip.model_digest"]
        assert untrained.tags["netzip.model_digest"] == digest

    def test_what_another_netzip_trained_is_trained_again(self, trains, monkeypatch):
        trains()
        monkeypatch.setattr(baseline, "package_digest", lambda: "another", raising=False)
        assert trains().reused is None


class TestStoredWhole:
    def stopped(self, trains: Workshop, monkeypatch: pytest.MonkeyPatch, *where: object) -> str:
        """The run of a baseline whose job was killed at a call; its status is KILLED."""

        def killed(*_given: object) -> None:
            raise Killed("SIGTERM")

        with monkeypatch.context() as patch:
            patch.setattr(*where, killed)
            with pytest.raises(Killed):
                trains()
        (run,) = trains.client.search_runs(
            [trains.client.get_experiment_by_name("stages").experiment_id],
            "tags.`netzip.kind` = 'baseline'",
        )
        assert run.info.status == "KILLED"
        return run.info.run_id

    def test_an_interrupted_jobs_baseline_is_found(self, trains, monkeypatch):
        killed = self.stopped(trains, monkeypatch, candidates, "inspect_and_judge")
        assert trains().reused == killed

    @pytest.mark.parametrize("written", ["model", "artifact"])
    def test_one_that_was_killed_before_its_twin_was_stored_is_not(
        self, trains, monkeypatch, written
    ):
        self.stopped(trains, monkeypatch, Run, written)
        again = trains()
        assert again.reused is None
        assert "trained again" not in again.said

    def remove_all(self, trains: Workshop, _first: Trained) -> None:
        shutil.rmtree(trains.folder / "mlruns")

    def remove_the_twin(self, trains: Workshop, first: Trained) -> None:
        shutil.rmtree(trains.twin(first))

    def change_a_weight(self, trains: Workshop, first: Trained) -> None:
        file = trains.twin(first) / "twin.safetensors"
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)

    def cut_it_short(self, trains: Workshop, first: Trained) -> None:
        file = trains.twin(first) / "twin.safetensors"
        file.write_bytes(file.read_bytes()[:-100])

    @pytest.mark.parametrize(
        "harm",
        [remove_all, remove_the_twin, change_a_weight, cut_it_short],
        ids=lambda f: f.__name__,
    )
    def test_what_is_gone_or_damaged_is_trained_again_and_that_is_said(
        self, trains, harm: Callable[..., None]
    ):
        first = trains()
        harm(self, trains, first)
        second = trains()
        assert second.reused is None
        (line,) = [text for text in second.said.splitlines() if "trained again" in text]
        assert first.run_id in line
        assert second.tags["netzip.model_digest"] == first.tags["netzip.model_digest"]
        assert trains().reused == second.run_id

    def test_an_older_one_that_is_whole_is_found_behind_a_damaged_one(self, trains):
        first = trains()
        aside = trains.twin(first).rename(trains.folder / "aside")
        second = trains()
        aside.rename(trains.twin(second).parents[2] / first.run_id / "artifacts" / "twin")
        self.change_a_weight(trains, second)
        assert trains().reused == first.run_id

    def test_a_damaged_network_is_refused_where_a_recipe_names_it(self, trains):
        from netzip_mlflow.errors import InputError

        first = trains()
        self.change_a_weight(trains, first)
        model = f"model={{uri: 'runs:/{first.run_id}', allow: ['my_network:make']}}"
        with pytest.raises(InputError, match="is damaged"):
            trains(model, "train=null")
