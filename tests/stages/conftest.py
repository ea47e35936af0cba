"""One real, very small compress run for all tests of the stages, and a store for each other one."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from matplotlib.figure import Figure

from netzip_mlflow import data, models, recipe, runtimes, search, tasks, techniques
from netzip_mlflow.metrics import catalogue, process
from netzip_mlflow.metrics.family import Figures
from netzip_mlflow.report import plots, search_plots
from netzip_mlflow.runs.job import Options

if TYPE_CHECKING:
    import optuna
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runs.bench import Outcome
    from netzip_mlflow.stages.search.result import Found

RECIPE = """
name: small-digits
data: {name: digits, validation: 0.2, test: 0.2, calibration: 64}
model: {name: lenet5}
train: {epochs: 2, optimizer: adamw, lr: 0.004, batch: 64, precision: float32, threads: 1}
candidates:
  int8: [ptq]
  broken: ["lamps:broken"]
  chain: [{prune_l1: {ratio: 0.3}}, {finetune: {epochs: 1, lr: 0.01, teacher: baseline}}, ptq]
measure: {threads: 1, latency: {target: 0.5, max_seconds: 1, min_rounds: 5}, throughput: [8]}
score: {max_drop_points: 100}
"""
SMALL_SEARCH = """
name: small-search
data: {name: digits, validation: 0.2, test: 0.2, calibration: 64}
model: {name: lenet5}
train: {epochs: 2, optimizer: adamw, lr: 0.004, batch: 64, precision: float32, threads: 1}
candidates:
  int8: [ptq]
  outside: [{prune_random: {ratio: 0.1}}]
measure: {threads: 1, latency: {target: 0.5, max_seconds: 1, min_rounds: 5}, throughput: [8]}
score: {max_drop_points: 3.0}
search:
  trials: 8
  sampler: random
  keep: 2
  space:
    - {optional: true, prune_channels: {ratio: [0.25, 0.5]}}
    - optional: true
      one_of:
        - qat: {bits: [4, ternary], epochs: 1, lr: {low: 0.001, high: 0.1, log: true}}
        - finetune: {epochs: 1, lr: 0.01, teacher: baseline}
    - one_of: [{ptq: {bits: [8, 4]}}, {half: {}}]
"""
# A technique of a user's own that cannot do its work.
LAMPS = '''
def broken(twin, context):
    """Fails at once."""
    raise RuntimeError("the lamp is out")
'''
VARIABLES = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


def one_figure(_frame: object, **_named: object) -> dict[str, Figure]:
    """In place of `plots.figures` where nobody looks at the pictures: they take seconds."""
    return {"blank": Figure()}


def one_figure_of_a_search(*_given: object) -> dict[str, Figure]:
    """The same, in place of `search_plots.figures`."""
    return {"blank": Figure()}


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn."""
    monkeypatch.setattr(plots, "figures", one_figure)
    monkeypatch.setattr(search_plots, "figures", one_figure_of_a_search)


@pytest.fixture
def no_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at load time and memory, for which a process is started that takes seconds."""
    nothing = Figures()
    monkeypatch.setattr(process, "fresh_process", lambda *_: nothing)


def read_recipe(text: str, folder: Path, *overrides: str) -> Recipe:
    """A recipe's text as the command line would read it."""
    file = folder / "recipe.yaml"
    file.write_text(text)
    rooms = (data, models, tasks, techniques, runtimes, search)
    checks = [room.check for room in (*rooms, catalogue)]
    return tasks.complete(recipe.load(file, overrides, checks))


@dataclass(frozen=True)
class Compressed:
    """What a compress run left behind, and how it was started."""

    recipe: Recipe
    options: Options
    outcome: Outcome
    client: MlflowClient
    folder: Path
    said: tuple[str, ...]

    @property
    def parent(self) -> Run:
        return self.client.get_run(self.outcome.run_id)

    @property
    def runs(self) -> dict[str, Run]:
        """The children by name, as the store has them now."""
        below = f"tags.`netzip.parent` = '{self.outcome.run_id}'"
        found = self.client.search_runs([self.outcome.experiment_id], below)
        return {run.info.run_name or "": run for run in found}

    def files(self, run_id: str, path: str | None = None) -> set[str]:
        """All artifacts of a run, below folders too."""
        found: set[str] = set()
        for item in self.client.list_artifacts(run_id, path):
            found |= self.files(run_id, item.path) if item.is_dir else {item.path}
        return found

    def fetch(self, run_id: str, path: str) -> Path:
        """An artifact as a local file."""
        return Path(self.client.download_artifacts(run_id, path))

    def model(self, name: str) -> Path:
        """The folder of a child's logged model."""
        import mlflow.artifacts

        (output,) = self.runs[name].outputs.model_outputs
        mlflow.set_tracking_uri(self.options.tracking_uri)
        return Path(mlflow.artifacts.download_artifacts(f"models:/{output.model_id}"))


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables in a sqlite file: making them takes seconds, copying them does not."""
    import mlflow

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def workplace(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """An empty store in a folder of this test's own, which is the working folder."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(migrated, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return Options(uri, "stages")


@pytest.fixture(scope="session")
def lamps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The module `lamps`, importable."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "lamps.py").write_text(LAMPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        yield


@pytest.fixture(scope="session")
def run_compress(
    migrated: Path, tmp_path_factory: pytest.TempPathFactory, lamps: None
) -> Callable[..., Compressed]:
    """Runs the recipe in a folder; a folder that is given again has a store already."""
    import mlflow

    from netzip_mlflow.stages.compress import compress

    def run(
        folder: Path | None = None, *overrides: str, pictures: bool = True, **more: Any
    ) -> Compressed:
        if folder is None:
            folder = tmp_path_factory.mktemp("compress")
            shutil.copy(migrated, folder / "mlflow.db")
        scratch = folder / "scratch"
        scratch.mkdir(exist_ok=True)
        said: list[str] = []
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        options = Options(uri, "stages", "netzip compress recipe.yaml", say=said.append)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(tempfile, "tempdir", str(scratch))
            if not pictures:
                patch.setattr(plots, "figures", one_figure)
            patch.setenv("MLFLOW_TRACKING_URI", uri)
            for name in VARIABLES:
                patch.delenv(name, raising=False)
            loaded = read_recipe(RECIPE, folder, *overrides)
            outcome = compress(loaded, options, **more)
        return Compressed(loaded, options, outcome, mlflow.MlflowClient(uri), folder, tuple(said))

    return run


@pytest.fixture(scope="session")
def compressed(run_compress: Callable[..., Compressed]) -> Compressed:
    """A baseline, two candidates and one that failed, all in a store."""
    return run_compress()


@pytest.fixture(scope="session")
def again(compressed: Compressed, run_compress: Callable[..., Compressed]) -> Compressed:
    """The same store, a second time: one candidate only, scored on another basis."""
    return run_compress(compressed.folder, "score.speed=latency", only=("int8",), pictures=False)


@pytest.fixture
def inside(compressed: Compressed, monkeypatch: pytest.MonkeyPatch) -> Compressed:
    """The same, with its folder and store as the working ones."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(compressed.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", compressed.options.tracking_uri)
    return compressed


@dataclass(frozen=True)
class Searches:
    """Runs the small search in a store, and reads what is left of it."""

    options: Options
    folder: Path

    def __call__(
        self, *overrides: str, study: str | None = None, short: bool = False, **request: Any
    ) -> Found:
        """`short`: little is left to compare at the end."""
        from netzip_mlflow.stages.search.command import Request, search_recipe

        less = ("candidates={}", "search.keep=1") if short else ()
        loaded = read_recipe(SMALL_SEARCH, self.folder, *overrides, *less)
        found = search_recipe(loaded, self.options, Request(study, **request))
        assert found is not None, "nobody else leads it"
        return found

    def study(self, found: Found) -> optuna.Study:
        """The study in Optuna's database."""
        import optuna

        return optuna.load_study(study_name=found.study, storage=found.storage)

    def runs(self, found: Found) -> dict[str, Run]:
        """The runs below the search's, by name."""
        import mlflow

        below = f"tags.`netzip.parent` = '{found.outcome.run_id}'"
        client = mlflow.MlflowClient(self.options.tracking_uri)
        runs = client.search_runs([found.outcome.experiment_id], below)
        return {run.info.run_name or "": run for run in runs}


@pytest.fixture
def searched(
    workplace: Options, no_pictures: None, no_fresh_process: None, tmp_path: Path
) -> Searches:
    """`searched(*overrides, study=...)` runs the small search in this test's store."""
    return Searches(workplace, tmp_path)


@pytest.fixture
def client(workplace: Options) -> MlflowClient:
    """Of this test's store."""
    import mlflow

    return mlflow.MlflowClient(workplace.tracking_uri)
