"""The command line: exit statuses, messages, stdout, and that nothing is left behind."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from netzip_mlflow import cli, models

COMMANDS = (
    *("compress", "train", "measure", "compare", "score"),
    *("validate", "init", "list", "doctor", "export"),
)
# MLflow 3.17 maps its tables with an option that SQLAlchemy 2.1 is about to drop: not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
VARIABLES = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
RECIPE = {
    "name": "stripes",
    "data": {"name": "npz", "path": "stripes.npz", "calibration": 32},
    "model": {"factory": "tiny_networks:tiny", "arguments": {"width": 4}},
    "train": {"epochs": 1, "lr": 0.1, "batch": 32, "precision": "float32", "threads": 1},
    "candidates": {"ruined": [{"prune_random": {"ratio": 0.95}}]},
    "measure": {"latency": {"target": 0.5, "max_seconds": 0.3, "min_rounds": 5}, "throughput": []},
    "score": {"max_drop_points": 0},
}


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def object(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def netzip(capsys, monkeypatch) -> Callable[..., Ended]:
    """Runs the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["netzip"])
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # or it says `python -m`
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Path:
    """MLflow's tables in a sqlite file: making them takes seconds, copying them does not."""
    import mlflow

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder without a store in it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(place, migrated):
    """The same with an empty store; gives the client that reads it."""
    import mlflow

    shutil.copy(migrated, place / "mlflow.db")
    return mlflow.MlflowClient(f"sqlite:///{place}/mlflow.db")


def runs(store) -> list:
    """All runs of all experiments."""
    return store.search_runs([e.experiment_id for e in store.search_experiments()])


def save(recipe: dict, file: Path = Path("recipe.yaml")) -> Path:
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return file


@pytest.fixture
def recipe(place, arrays) -> Path:
    """A recipe that runs in seconds, beside its data."""
    np.savez(place / "stripes.npz", **arrays)
    return save(RECIPE)


@pytest.fixture
def no_pictures(monkeypatch) -> None:
    """Pictures take seconds and nobody looks at them here."""
    from matplotlib.figure import Figure

    from netzip_mlflow.report import plots

    monkeypatch.setattr(plots, "figures", lambda _frame, best: {"blank": Figure()})


class TestHelp:
    def test_of_the_whole(self, netzip, golden):
        ended = netzip("--help")
        assert ended.status == 0
        golden("help.txt", ended.out)
        for command in COMMANDS:
            assert f"  {command} " in ended.out

    @pytest.mark.parametrize("command", COMMANDS)
    def test_of_each_command(self, netzip, golden, command):
        ended = netzip(command, "--help")
        assert ended.status == 0
        golden(f"help-{command}.txt", ended.out)

    @pytest.mark.parametrize(
        "arguments",
        [["--help"], ["compress", "--help"], ["list", "techniques"], ["validate", "recipe.yaml"]],
        ids=" ".join,
    )
    def test_nothing_heavy_is_imported(self, place, arguments):
        save({**RECIPE, "model": {"name": "resnet8"}, "data": {"name": "digits", "test": 0.2}})
        script = """
import sys
from netzip_mlflow import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as ended:
    heavy = ("torch", "torchvision", "mlflow", "pandas", "matplotlib", "sklearn", "scipy")
    loaded = [name for name in heavy if name in sys.modules]
    sys.exit(f"{ended.code} {loaded}")
"""
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
        )
        assert done.stderr.strip() == "0 []"

    def test_python_m_is_the_same(self, place):
        done = subprocess.run(
            [sys.executable, "-m", "netzip_mlflow", "validate", "none.yaml"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("netzip: none.yaml: no such file")


class TestBadRecipe:
    """Each is one message with status 2, before a store is touched."""

    @pytest.fixture
    def refused(self, netzip, recipe, place):
        def run(*arguments: object) -> str:
            ended = netzip("compress", *arguments)
            assert ended.status == 2
            assert ended.out == ""
            assert ended.err.startswith("netzip: ")
            assert not (place / "mlflow.db").exists()
            return ended.err

        return run

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ("train.epoch=3", ["train.epoch: unknown key", "mean 'epochs'?"]),
            ("train.epochs=many", ["train.epochs: 'many' is not allowed", "integer"]),
            ("train.epochs=0", ["train.epochs: 0 is not allowed", "greater than or equal to 1"]),
            ("score.speed=warp", ["score.speed: 'warp'", "'chats'", "'latency'"]),
            ("score.accuracy=map50", ["score.accuracy: 'map50'", "top1"]),
            ("task=clasification", ["unknown task", "mean 'classification'?"]),
            ("data.name=nzp", ["data", "'nzp'", "mean 'npz'?"]),
            ("model={name: resnet9}", ["'resnet9'", "resnet8"]),
            ("candidates.ruined=[pqt]", ["candidates.ruined[0]", "'pqt'", "mean 'ptq'?"]),
            (
                "candidates.ruined=[{prune_l1: {ratio: 1.5}}]",
                ["candidates.ruined[0].prune_l1.ratio: 1.5 is not allowed", "from 0"],
            ),
            (
                "candidates.ruined=[{prune_l1: {ration: 0.5}}]",
                ["prune_l1.ration: unknown key", "mean 'ratio'?"],
            ),
            ("candidates.ruined=[ptq, prune_l1]", ["ptq is a deploy technique", "prune_l1"]),
            ("candidates.ruined=[ptq, half]", ["ptq is a deploy technique", "half"]),
            ("candidates.baseline=[half]", ["candidates.baseline: the name is reserved"]),
            ("candidates={'A (1)': [half]}", ["A (1)", "letters a-z"]),
            ("data.path=${NOWHERE_SET}/x.npz", ["data.path", "NOWHERE_SET", "is not set"]),
            ("train=null", ["a model without weights needs a train section"]),
            ("train.epochs", ["--set 'train.epochs': must be key.path=value"]),
            ("train.epochs=[", ["--set 'train.epochs=['", "not valid YAML"]),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_key_type_value_or_name(self, refused, change, says):
        said = refused("recipe.yaml", "--set", change)
        for part in says:
            assert part in said

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("name: [", "is not valid YAML"),
            ("", "must be a mapping of keys"),
            ("- one\n- two\n", "must be a mapping of keys"),
            ("name: a\nname: b\n", "is not valid YAML: key 'name' is given twice"),
            ("name: only\n", "data: is missing"),
        ],
    )
    def test_a_file_that_is_no_recipe(self, refused, content, says):
        Path("odd.yaml").write_text(content)
        assert f"odd.yaml: {says}" in refused("odd.yaml")

    def test_a_file_that_is_not_there(self, refused):
        said = refused("recpie.yaml")
        assert "recpie.yaml: no such file" in said
        assert "did you mean 'recipe.yaml'?" in said

    def test_everything_at_once(self, refused):
        said = refused("recipe.yaml", "--set", "train.epochs=0", "--set", "score.zeta=-1")
        assert "train.epochs" in said
        assert "score.zeta" in said

    @pytest.mark.parametrize(
        ("option", "value", "says"),
        [("--seed", -1, "seed: -1"), ("--threads", 0, "measure.threads: 0")],
    )
    def test_options_are_held_to_the_recipes_bounds(self, refused, option, value, says):
        assert says in refused("recipe.yaml", option, value)

    def test_validate_says_the_same(self, netzip, recipe, refused):
        ended = netzip("validate", recipe, "--set", "train.epoch=3")
        assert (ended.status, ended.out) == (2, "")
        assert ended.err == refused("recipe.yaml", "--set", "train.epoch=3")


class TestBadData:
    """Found when data and network are read: status 2, and no run."""

    @pytest.fixture
    def refused(self, netzip, recipe, store):
        def run(*arguments: object) -> str:
            ended = netzip("compress", "recipe.yaml", *arguments)
            assert (ended.status, ended.out) == (2, "")
            assert runs(store) == []
            assert not store.get_experiment_by_name("netzip")
            return ended.err

        return run

    def save(self, arrays: dict, **changes: np.ndarray) -> None:
        np.savez("stripes.npz", **(arrays | changes))

    def test_data_that_are_not_there(self, refused):
        assert "nothing.npz" in refused("--set", "data.path=nothing.npz")

    def test_splits_that_overlap(self, refused, arrays):
        doubled = np.concatenate([arrays["x_train"][:2], arrays["x_test"][2:]])
        self.save(arrays, x_test=doubled)
        said = refused()
        assert "test" in said
        assert "train" in said
        assert "data.duplicates: drop" in said

    def test_a_class_that_is_missing(self, refused, arrays):
        keep = arrays["y_test"] != 2
        self.save(arrays, x_test=arrays["x_test"][keep], y_test=arrays["y_test"][keep])
        said = refused()
        assert "class" in said
        assert "2" in said
        assert "test" in said

    def test_images_and_labels_of_different_counts(self, refused, arrays):
        self.save(arrays, y_test=arrays["y_test"][:-1])
        said = refused()
        assert "120" in said
        assert "119" in said

    def test_images_of_another_shape(self, refused, arrays):
        self.save(arrays, x_test=arrays["x_test"][:, :8])
        said = refused()
        assert "train (3, 12, 12)" in said
        assert "test (3, 8, 12)" in said

    def test_images_that_are_no_pixels(self, refused, arrays):
        self.save(arrays, x_train=arrays["x_train"].astype(np.float64))
        said = refused()
        assert "float64" in said
        assert "uint8" in said

    def test_a_network_of_another_number_of_channels(self, refused):
        said = refused("--set", "model={name: resnet18}", "--set", "data={name: digits, test: 0.2}")
        assert "3 channels" in said

    def test_a_factory_that_is_not_there(self, refused):
        said = refused("--set", "model.factory=tiny_networks:tinny")
        assert "has no function 'tinny'" in said
        assert "did you mean 'tiny'?" in said

    def test_weights_that_are_a_pickle(self, refused):
        Path("weights.pt").write_bytes(pickle.dumps({"conv1.weight": [1.0]}))
        said = refused("--set", "model.weights=weights.pt")
        assert "weights.pt" in said
        assert "pickle" in said

    def test_weights_that_are_not_there(self, refused):
        assert "none.safetensors" in refused("--set", "model.weights=none.safetensors")

    def test_weights_of_another_network(self, refused):
        from safetensors.torch import save_file

        other = models.build("lenet5", classes=4, channels=3, size=(32, 32))
        save_file(other.state_dict(), "other.safetensors")
        said = refused("--set", "model.weights=other.safetensors")
        assert "other.safetensors" in said
        assert "conv1.weight" in said

    def test_a_candidate_that_the_recipe_has_not(self, refused):
        said = refused("--only", "ruind")
        assert "--only: 'ruind'" in said
        assert "did you mean 'ruined'?" in said


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
        logged = {r.info.run_id: r for r in runs(store)}
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

    def test_a_baseline_that_is_never_right(self, netzip, store, place, no_pictures):
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
        first = models.build_factory(
            "contrary:make", classes=2, channels=1, size=(8, 8), arguments={}
        )
        from safetensors.torch import save_file

        save_file(first.state_dict(), "contrary.safetensors")
        model = {"factory": "contrary:make", "weights": "contrary.safetensors"}
        save(
            {key: value for key, value in RECIPE.items() if key != "train"}
            | {
                "data": {"name": "npz", "path": "light.npz", "calibration": 16},
                "model": model | {"mean": [0.0], "std": [1.0]},
                "candidates": {"half": ["half"]},
            }
        )
        ended = netzip("compress", "recipe.yaml", "--quiet")
        assert (ended.status, ended.out) == (1, "")
        assert "accuracy/top1" in ended.err
        assert "baseline" in ended.err
        assert len(ended.err.strip().splitlines()) <= 3
        found = {r.info.run_name: r for r in runs(store)}
        assert {r.info.status for r in found.values()} == {"FAILED"}
        assert found["baseline"].data.metrics["accuracy/top1"] == 0.0
        assert "accuracy/top1" in found["stripes"].data.tags["netzip.reason"]

    def test_a_dry_run_leaves_nothing(self, netzip, recipe, place):
        before = {p.name for p in place.iterdir()}
        ended = netzip("compress", recipe, "--dry-run", "--json")
        assert ended.status == 0
        plan = ended.object
        assert set(plan) == {"name", "steps", "seconds"}
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
        from netzip_mlflow.stages import compress as stage
        from netzip_mlflow.tracking import Killed

        def stop(*_given: object) -> None:
            raise {"KeyboardInterrupt": KeyboardInterrupt, "Killed": Killed}[fault]

        monkeypatch.setattr(stage, "baseline", stop)
        ended = netzip("compress", recipe, "--quiet")
        assert (ended.status, ended.out) == (status, "")
        assert f"netzip: {says}\n" in ended.err
        assert [r.info.status for r in runs(store)] == ["KILLED"]


class TestServer:
    @pytest.fixture
    def closed(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

    @pytest.mark.parametrize(
        "arguments",
        [
            ["compress", "recipe.yaml"],
            ["train", "recipe.yaml"],
            ["measure", "model.onnx"],
            ["compare"],
            ["score", "table.csv", "--log"],
            ["export", "runs:/0", "folder"],
        ],
        ids=lambda arguments: arguments[0],
    )
    def test_that_is_down_is_said_before_any_work(self, netzip, recipe, place, closed, arguments):
        Path("table.csv").write_text("technique,top1,chats_g,disk_mb\na,50,4,2\nb,50,2,1\n")
        ended = netzip(*arguments, "--tracking-uri", closed)
        assert (ended.status, ended.out) == (2, "")
        assert f"the tracking server {closed} does not answer" in ended.err
        assert "--tracking-uri" in ended.err
        assert sorted(p.suffix for p in place.iterdir() if p.is_file()) == [
            ".csv",
            ".npz",
            ".yaml",
        ]

    def test_is_asked_before_code_of_the_users_is_imported(self, netzip, recipe, closed):
        """A technique of one's own usually imports torch at its top, which takes seconds."""
        Path("slow_start.py").write_text("open('imported', 'w').close()\ndef f(twin, c): ...\n")
        change = "candidates.own=['slow_start:f']"
        ended = netzip("compress", recipe, "--set", change, "--tracking-uri", closed)
        assert ended.status == 2
        assert "does not answer" in ended.err
        assert not Path("imported").exists()

    def test_a_store_whose_folder_is_missing(self, netzip, recipe, place):
        uri = f"sqlite:///{place}/no/folder/mlflow.db"
        ended = netzip("compress", recipe, "--tracking-uri", uri)
        assert ended.status == 2
        assert f"{place}/no/folder is not a writable folder" in ended.err


class TestUnderMlflowRun:
    def test_the_reason_is_left_on_the_run_that_was_started(
        self, netzip, recipe, store, monkeypatch
    ):
        run = store.create_run("0").info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", run)
        ended = netzip("compress", recipe, "--set", "train.epoch=3")
        assert ended.status == 2
        tags = store.get_run(run).data.tags
        assert "train.epoch: unknown key" in tags["netzip.reason"]
        assert "train.epoch: unknown key" in tags["mlflow.note.content"]

    def test_a_run_that_is_gone_does_not_hide_the_message(self, netzip, recipe, store, monkeypatch):
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
        ended = netzip("compress", recipe, "--set", "train.epoch=3")
        assert ended.status == 2
        assert "train.epoch: unknown key" in ended.err

    def test_texts_that_an_entry_point_passes(self, netzip, recipe):
        """MLproject passes one text where the command line repeats an option, and empty ones."""
        ended = netzip(
            *("compress", "--recipe", recipe, "--only", "a, ruined", "--dry-run", "--json"),
            *("--set", "candidates.a=[half]; train.epochs=7;"),
        )
        steps = [step["step"] for step in ended.object["steps"]]
        assert any("7 epochs" in step for step in steps)
        assert [s.split(":")[0] for s in steps if s[:2] in {"a:", "ru"}] == ["ruined", "a"]
        ended = netzip("validate", "--recipe", recipe, "--set", "")
        assert ended.status == 0


TABLES = {
    "resnet18": """\
technique,top1,latency_ms,macs_g,chats_g,disk_mb,params_m,nonzero_m,cpu_percent,ram_gb,energy_j,power_w
None (FP32),70.3,14,1.81,57.92,44.7,11.2,11.2,49.6,2.48,2.2,117.8
PTQ (INT8),70.1,7,1.81,14.48,11.3,11.2,11.2,49.1,2.52,0.8,111.6
QAT (INT8),69.6,7,1.81,14.48,11.3,11.2,11.2,49.1,2.51,0.8,111.6
GUP_R (FP32),50.8,15,1.81,57.92,44.7,11.2,3.3,49.6,2.51,1.8,121.8
GUP_L1 (FP32),66.6,14,1.81,57.92,44.7,11.2,3.3,49.6,2.46,1.7,122.0
""",
    "yolov5s": """\
technique,map50,latency_ms,macs_g,chats_g,disk_mb,params_m,cpu_percent,ram_gb,energy_j,power_w
None PyTorch (FP32),56.6,3165,8.1,259.2,29.2,7.2,75.6,1.9,13.4,4.2
None TF (FP32),56.5,1270,8.1,259.2,29.2,7.2,89.6,1.13,7.0,5.4
PTQ TFlite (FP16),56.5,2288,8.1,129.6,14.6,7.2,25.1,0.49,8.9,3.8
PTQ TFlite (INT8),54.7,1393,8.1,64.8,7.6,7.2,24.9,0.37,5.3,3.7
""",
}
# MEASURING.md, section 2: P, S, C by CPU use, C by disk, E, OCS on the paper's basis, OCS by disk
PRINTED = {
    "PTQ (INT8)": (0.997, 4.000, 1.010, 3.956, 2.750, 4.744, 7.681),
    "QAT (INT8)": (0.990, 4.000, 1.010, 3.956, 2.750, 4.703, 7.619),
    "GUP_R (FP32)": (0.723, 1.000, 1.000, 1.000, 1.222, -0.040, -0.040),
    "GUP_L1 (FP32)": (0.947, 1.000, 1.000, 1.000, 1.294, 0.229, 0.229),
    "None TF (FP32)": (0.998, 1.000, 0.844, 1.000, 1.914, 0.755, 0.911),
    "PTQ TFlite (FP16)": (0.998, 2.000, 3.012, 2.000, 1.506, 3.510, 2.499),
    "PTQ TFlite (INT8)": (0.966, 4.000, 3.036, 3.842, 2.528, 6.312, 7.091),
}


class TestScore:
    @pytest.fixture(autouse=True)
    def tables(self, place):
        for name, text in TABLES.items():
            (place / f"{name}.csv").write_text(text)

    @pytest.mark.parametrize("table", TABLES)
    @pytest.mark.parametrize("size", ["cpu", "disk"])
    def test_the_papers_tables_on_both_bases(self, netzip, table, size):
        found = netzip("score", f"{table}.csv", "--size", size, "--json").object
        assert found["basis"]["size"] == size
        assert found["basis"]["terms"] == "P,S,C,E"
        first, *rows = found["rows"]
        one = {"P": 1.0, "S": 1.0, "C": 1.0, "E": 1.0, "ocs": 0.0}
        assert first == {"technique": TABLES[table].splitlines()[1].split(",")[0]} | one
        assert len(rows) == TABLES[table].count("\n") - 2
        for row in rows:
            P, S, by_cpu, by_disk, E, ocs_cpu, ocs_disk = PRINTED[row["technique"]]
            C, ocs = (by_cpu, ocs_cpu) if size == "cpu" else (by_disk, ocs_disk)
            wanted = {"P": P, "S": S, "C": C, "E": E, "ocs": ocs}
            assert {key: round(row[key], 3) for key in wanted} == wanted

    def test_for_people(self, netzip):
        text = netzip("score", "resnet18.csv", "--size", "cpu").out
        (line,) = (x for x in text.splitlines() if "PTQ (INT8)" in x)
        assert "4.744" in line
        assert "size=cpu" in text

    def test_without_energy_the_term_is_null_and_said(self, netzip):
        bare = "technique,top1,chats_g,disk_mb\nnone,50,4,2\nhalved,50,2,1\n"
        Path("bare.csv").write_text(bare)
        found = netzip("score", "bare.csv", "--json").object
        assert found["basis"]["terms"] == "P,S,C"
        assert [row["E"] for row in found["rows"]] == [None, None]
        assert [row["ocs"] for row in found["rows"]] == [0.0, 2.0]

    def test_options_change_the_score(self, netzip):
        def scored(*options: str) -> float:
            found = netzip("score", "resnet18.csv", "--json", *options).object
            return next(r["ocs"] for r in found["rows"] if r["technique"] == "PTQ (INT8)")

        P, S, C, E = 70.1 / 70.3, 57.92 / 14.48, 44.7 / 11.3, 2.2 / 0.8
        assert scored("--weights", "P=0,S=2,C=0,E=0") == pytest.approx(P * 2 * (S - 1))
        assert scored("--zeta", "2") == pytest.approx(P * (P - 1 + 2 * S - 1 + C - 1 + E - 1))
        assert scored("--speed", "latency", "--weights", "P=0,S=1,C=0,E=0") == pytest.approx(P)
        first = ("--baseline", "QAT (INT8)", "--weights", "P=0,S=0,C=0,E=1")
        assert scored(*first) == pytest.approx(0.0)

    def test_a_header_of_ones_own(self, netzip):
        Path("own.csv").write_text("technique,acc,chats_g,disk_mb\nnone,50,4,2\nhalved,50,2,1\n")
        found = netzip("score", "own.csv", "--column", "acc=top1", "--json").object
        assert [row["ocs"] for row in found["rows"]] == [0.0, 2.0]

    def test_log_writes_the_rows_as_runs(self, netzip, store):
        ended = netzip("score", "resnet18.csv", "--log", "--experiment", "tables", "--json")
        found = {r.info.run_name: r for r in runs(store)}
        assert set(found) == {"resnet18"} | {r["technique"] for r in ended.object["rows"]}
        for row in ended.object["rows"]:
            assert found[row["technique"]].data.metrics["score/ocs"] == row["ocs"]
        assert {r.info.status for r in found.values()} == {"FINISHED"}

    @pytest.mark.parametrize(
        ("change", "options", "says"),
        [
            (("14.48", "nan"), [], ["row 'PTQ (INT8)', column 'chats_g': 'nan'", "finite"]),
            (("70.1", "inf"), [], ["row 'PTQ (INT8)', column 'top1': 'inf'"]),
            (("70.1", "seventy"), [], ["column 'top1': 'seventy'"]),
            (("None (FP32),70.3", "None (FP32),0"), [], ["None (FP32)", "top1", "0"]),
            ((",11.3,", ",0,"), [], ["PTQ (INT8)", "disk_bytes"]),
            (("QAT (INT8)", "PTQ (INT8)"), [], ["'PTQ (INT8)': stands there 2 times"]),
            (("disk_mb", "megabytes"), [], ["column 'disk_mb': is missing"]),
            (("", ""), ["--baseline", "None"], ["baseline 'None': no such row"]),
            (("", ""), ["--speed", "warp"], ["'warp'", "chats"]),
            (("", ""), ["--size", "dusk"], ["'dusk'", "mean 'disk'?"]),
            (("", ""), ["--weights", "P=x"], ["P"]),
            (("", ""), ["--weights", "P=1,Q=1"], ["Q"]),
            (("", ""), ["--zeta", "-1"], ["zeta"]),
            (("", ""), ["--column", "acc"], ["--column: 'acc'", "HEADER=MEANING"]),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list | tuple) else "",
    )
    def test_what_cannot_be_scored(self, netzip, store, change, options, says):
        Path("odd.csv").write_text(TABLES["resnet18"].replace(*change, 1))
        ended = netzip("score", "odd.csv", "--log", *options)
        assert (ended.status, ended.out) == (2, "")
        for part in says:
            assert part in ended.err
        assert runs(store) == []

    def test_a_file_that_is_not_there(self, netzip):
        ended = netzip("score", "none.csv")
        assert (ended.status, ended.out) == (2, "")
        assert "none.csv" in ended.err


class TestSmallCommands:
    def test_validate(self, netzip, recipe):
        ended = netzip("validate", recipe)
        assert ended.status == 0
        assert ended.out.startswith("stripes: valid, 1 candidate, digest ")

    def test_init_then_validate(self, netzip, place):
        ended = netzip("init")
        assert ended.status == 0
        assert "netzip validate recipe.yaml" in ended.out
        assert netzip("validate", "recipe.yaml").status == 0

    def test_init_twice(self, netzip, place):
        Path("mine.yaml").write_text("mine")
        ended = netzip("init", "mine.yaml")
        assert (ended.status, ended.out) == (2, "")
        assert "mine.yaml: exists already" in ended.err
        assert Path("mine.yaml").read_text() == "mine"

    def test_init_where_nothing_can_be_written(self, netzip, place):
        Path("file").write_text("")
        ended = netzip("init", "file/recipe.yaml")
        assert ended.status == 2
        assert "file/recipe.yaml: cannot be written" in ended.err

    @pytest.mark.parametrize("what", ["techniques", "models", "data", "metrics"])
    def test_list(self, netzip, what):
        text, found = netzip("list", what), netzip("list", what, "--json").object
        assert text.status == 0
        assert [line.split()[0] for line in text.out.splitlines()] == list(found)

    def test_list_of_something_else(self, netzip):
        ended = netzip("list", "metric")
        assert (ended.status, ended.out) == (2, "")
        assert "did you mean 'metrics'?" in ended.err

    def test_doctor(self, netzip, place):
        text, found = netzip("doctor"), netzip("doctor", "--json").object
        assert text.status == 0
        for key, value in found.items():
            assert f"{key:<22} {value}" in text.out
        assert found["tracking store"].endswith("/mlflow.db (usable)")
        assert list(place.iterdir()) == [], "it only looks"

    @pytest.mark.parametrize(
        "arguments",
        [["compres"], ["compress", "--epochs", "3"], ["score"], ["compress", "--seed", "x"]],
        ids=" ".join,
    )
    def test_a_command_line_that_is_none(self, netzip, place, arguments):
        ended = netzip(*arguments)
        assert (ended.status, ended.out) == (2, "")
        assert "netzip" in ended.err

    def test_nothing_at_all_is_a_call_for_help(self, netzip, place):
        ended = netzip()
        assert "compress" in ended.out + ended.err


class TestMeasureAndExport:
    @pytest.fixture
    def refused(self, netzip, store, place):
        def run(*arguments: object) -> str:
            ended = netzip(*arguments)
            assert (ended.status, ended.out) == (2, "")
            assert runs(store) == []
            return ended.err

        return run

    @pytest.fixture(autouse=True)
    def files(self, place, baseline) -> Iterator[None]:
        """A good file and a corrupt one."""
        baseline.save(place / "good")
        (place / "corrupt.onnx").write_bytes(b"\x08\x07 this was a model once")
        return

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ([], "measure: no model given"),
            (["corrupt.onnx", "--baseline", "good"], "corrupt.onnx"),
            (["good", "--baseline", "corrupt.onnx"], "corrupt.onnx"),
            (["corrupt.onnx", "--baseline", "good", "--no-log"], "corrupt.onnx"),
            (["none.onnx", "--baseline", "good"], "none.onnx: no such ONNX file"),
            (["good"], "--baseline"),
            (["good", "--no-log"], "--baseline"),
            (["runs:/" + "0" * 32], "no such run"),
            (["good", "--baseline", "good", "--layout", "hwcn"], "layout"),
            (["good", "--baseline", "good", "--mean", "a,b"], "--mean: 'a,b'"),
            (["good", "--baseline", "good", "--std", "0"], "std"),
            (["good", "--baseline", "good", "--scale", "0"], "scale"),
            (["good", "--baseline", "good", "--runtime", "onnxrutime"], "mean 'onnxruntime'?"),
            (["good", "--baseline", "good", "--threads", "0"], "threads"),
            (["good", "--baseline", "good", "--recipe", "none.yaml"], "none.yaml"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_cannot_be_measured(self, refused, arguments, says):
        assert says in refused("measure", *arguments)

    def test_measure_for_machines(self, netzip, store, recipe):
        options = ("--recipe", recipe, "--baseline", "good", "--json")
        shutil.copytree("good", "twin")
        ended = netzip("measure", "--model", "good,twin,twin", *options)
        assert ended.status == 0
        rows = ended.object["models"]
        assert [row["model"] for row in rows] == ["baseline", "twin", "twin-2"]
        for row in rows:
            assert {"model", "metrics"} <= set(row)
            assert row["metrics"]["score/ocs"] == 0.0
            assert row["metrics"]["accuracy/top1"] == rows[0]["metrics"]["accuracy/top1"]
        kinds = sorted(r.data.tags["netzip.kind"] for r in runs(store))
        assert kinds == ["measure", "measurement", "measurement", "measurement"]

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["good", "corrupt.onnx"], "exists and is not empty"),
            (["good", "corrupt.onnx/below"], "cannot be written"),
            (["corrupt.onnx", "out"], "corrupt.onnx"),
            (["none.onnx", "out"], "no such ONNX file"),
            (["good", "out", "--opset", "3"], "--opset: 3 cannot be had from"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_cannot_be_exported(self, refused, place, arguments, says):
        before = sorted(p.name for p in place.iterdir())
        assert says in refused("export", *arguments)
        assert sorted(p.name for p in place.iterdir()) == before

    def test_export(self, netzip, place):
        ended = netzip("export", "good", "shipped")
        assert (ended.status, ended.err) == (0, "")
        assert ended.out == "shipped: model.onnx, netzip.json, predict.py\n"
        assert {p.name for p in (place / "shipped").iterdir()} == {
            "model.onnx",
            "netzip.json",
            "predict.py",
        }


class TestCompare:
    def test_nothing_to_compare_leaves_nothing(self, netzip, store):
        ended = netzip("compare")
        assert (ended.status, ended.out) == (2, "")
        assert "nothing to compare" in ended.err
        assert runs(store) == []

    def test_an_experiment_that_is_not_there(self, netzip, store):
        store.create_experiment("digits")
        ended = netzip("compare", "--experiment", "digit")
        assert (ended.status, ended.out) == (2, "")
        assert "did you mean 'digits'?" in ended.err
        assert {e.name for e in store.search_experiments()} == {"Default", "digits"}

    def test_for_machines(self, netzip, store, place, no_pictures):
        (place / "t.csv").write_text(TABLES["resnet18"])
        assert netzip("score", "t.csv", "--log", "--experiment", "tables").status == 0
        found = netzip("compare", "--experiment", "tables", "--json", "--quiet").object
        assert set(found) == {"run_id", "groups"}
        (group,) = found["groups"]
        assert set(group) == {"best", "feasible", "runs"}
        assert group["runs"][0]["name"] == "None (FP32)"
        assert len(group["runs"]) == 5
        text = netzip("compare", "--experiment", "tables", "--quiet").out
        assert "PTQ (INT8)" in text
