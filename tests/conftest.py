"""What all tests share: a calm environment, a tiny task, a tiny network trained once a session."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

# before anything imports numpy, torch or mlflow, and for every process that a test starts
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["NETZIP_CACHE_MAX_BYTES"] = "0"  # no test finds what another one computed
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import onnx

    from netzip_mlflow.deployable import Deployable, Exports
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.tasks.classification import Classification
    from netzip_mlflow.techniques import Context
    from netzip_mlflow.twin import Twin

USER_CODE = Path(__file__).parent / "user_code"
CLASSES, SIDE = 4, 12

settings.register_profile("netzip", deadline=None, print_blob=True)
settings.load_profile("netzip")


def tiny_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes in noise: uint8 (n, 12, 12, 3); the label, int64 (n,), is their direction."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    angle = (np.pi / CLASSES * labels)[:, None, None]
    row, column = np.mgrid[:SIDE, :SIDE]
    phase = draw.uniform(0, 2 * np.pi, (count, 1, 1))
    wave = np.sin(1.6 * (np.cos(angle) * row + np.sin(angle) * column) + phase)
    noise = draw.normal(0, 75, (count, SIDE, SIDE, 3))
    images = 110 + 38 * wave[..., None] + noise
    return images.clip(0, 255).astype(np.uint8), labels.astype(np.int64)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest --write-golden` rewrites the files of tests/golden; their diff is then reviewed."""
    parser.addoption("--write-golden", action="store_true", help="rewrite the golden files")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers, one runs all of a file, for its fixtures; of test_models.py, all of a
    network."""
    from xdist.scheduler import LoadFileScheduling

    if config.getoption("dist") != "loadfile":
        return None  # asked for by hand

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            network = test.partition("[")[2].split("-")[0] if "/test_models.py" in file else ""
            return f"{file} {network}"

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(file name, text)` fails when the text is not that of tests/golden/<file name>."""

    def check(name: str, text: str) -> None:
        file = Path(__file__).parent / "golden" / name
        if request.config.getoption("--write-golden"):
            file.write_text(text, encoding="utf-8")
        known = file.read_text(encoding="utf-8") if file.exists() else ""
        assert text == known, f"{file.name} is the project's API; meant? pytest --write-golden"

    return check


@pytest.fixture(scope="session", autouse=True)
def user_code() -> Iterator[Path]:
    """The folder of modules that stand for a user's own, importable by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(USER_CODE)])
        yield USER_CODE


@pytest.fixture(scope="session")
def faults() -> ModuleType:
    """The module tests/faults.py: what can go wrong on the way to a store."""
    name = "faults"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("faults.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def proxy(faults: ModuleType) -> Iterator[Callable[[str], Any]]:
    """`proxy(uri)`: a proxy in front of a server, to which faults can be given."""
    with contextlib.ExitStack() as closing:

        def start(upstream: str) -> Any:
            made = faults.Proxy(upstream)
            closing.callback(made.close)
            return made

        yield start


@pytest.fixture
def locked(faults: ModuleType) -> Callable[[Path], contextlib.AbstractContextManager[None]]:
    """`with locked(file):` somebody else writes to a sqlite file."""
    return faults.locked


@pytest.fixture(autouse=True)
def own_tracking_uri() -> Iterator[None]:
    """`mlflow.set_tracking_uri` sets the variable too: no test hands its store to the next."""
    name = "MLFLOW_TRACKING_URI"
    before = os.environ.get(name)
    yield
    if before is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = before


@pytest.fixture
def loads(tmp_path: Path) -> Callable[..., Recipe]:
    """`loads(text, *overrides)`: the text as r.yaml, loaded as the command line does."""
    from netzip_mlflow import data, models, recipe, tasks, techniques

    checks = (data.check, models.check, tasks.check, techniques.check)

    def load(text: str, *overrides: str) -> Recipe:
        file = tmp_path / "r.yaml"
        file.write_text(text, encoding="utf-8")
        return recipe.load(file, overrides, checks)

    return load


@pytest.fixture(scope="session")
def contained() -> list[str]:
    """The beginning of a command that runs in a namespace of process ids of its own, as in a
    container with this host's name."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespace can be made here: {error}")
    return command


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder that NETZIP_DATA names: cifar10.npz and resnet20_cifar10.safetensors."""
    if "NETZIP_DATA" not in os.environ:
        pytest.skip("NETZIP_DATA names no folder of data")
    return Path(os.environ["NETZIP_DATA"])


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    """A data set of four classes: 320 images to train on, 120 to test on."""
    x_train, y_train = tiny_images(320, seed=1)
    x_test, y_test = tiny_images(120, seed=2)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


@pytest.fixture(scope="session")
def task(arrays: dict[str, np.ndarray]) -> Classification:
    """256 train, 64 of them calibration, 64 validation, 120 test. Nobody may change it."""
    pytest.importorskip("torch")
    from netzip_mlflow.tasks.classification import Classification

    return Classification.of(arrays, calibration=64)


@pytest.fixture(scope="session")
def changed() -> Callable[..., Any]:
    """`changed(task, loss=...)`: the task with some of its methods replaced."""

    def make(task: Any, **methods: Any) -> Any:
        copied = copy.copy(task)
        vars(copied).update(methods)
        return copied

    return make


@pytest.fixture(scope="session")
def fresh_twin(task: Classification) -> Twin:
    """The tiny network with random weights, from a factory, so that it can be saved."""
    torch = pytest.importorskip("torch")
    from netzip_mlflow.twin import Architecture, InputSpec, Twin

    torch.set_num_threads(1)
    architecture = Architecture("factory", "tiny_networks:tiny", {**task.arguments, "width": 8})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture.build(task.shape, task.outputs)
    spec = InputSpec(task.shape, (0.4, 0.41, 0.42), (0.2, 0.21, 0.22))
    return Twin(model, spec, task.outputs, architecture, task.facts)


@pytest.fixture(scope="session")
def twin(task: Classification, fresh_twin: Twin) -> Twin:
    """The tiny network, trained for six epochs: good, not perfect. Nobody may change it."""
    from netzip_mlflow import training
    from netzip_mlflow.recipe import TrainSpec

    spec = TrainSpec(epochs=6, lr=0.1, batch=32, precision="float32")
    return training.fit(
        fresh_twin,
        task.split("train"),
        task,
        spec=spec,
        threads=1,
    ).twin


@pytest.fixture(scope="session")
def exports() -> Exports:
    """One memory of exported graphs for all tests: exporting is what takes time."""
    pytest.importorskip("torch")
    from netzip_mlflow.deployable import Exports

    return Exports(size=64)


@pytest.fixture(scope="session")
def context(task: Classification, twin: Twin, exports: Exports) -> Context:
    """What techniques get: the task, the trained twin as teacher, one thread, seed 0."""
    from netzip_mlflow.techniques import Context

    return Context.of(task, twin, seed=0, device="cpu", threads=1, exports=exports)


@pytest.fixture(scope="session")
def baseline(twin: Twin, context: Context) -> Deployable:
    """The trained tiny network as it ships in FP32."""
    from netzip_mlflow.techniques.fp32 import deploy

    return deploy(twin, context)


@pytest.fixture(scope="session")
def optimised() -> Callable[[onnx.ModelProto], list[str]]:
    """`optimised(model)`: the kinds of node that ONNX Runtime really executes, by its own dump."""
    import onnx
    import onnxruntime

    def kinds(model: onnx.ModelProto) -> list[str]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        with tempfile.TemporaryDirectory() as folder:
            options.optimized_model_filepath = str(Path(folder, "optimised.onnx"))
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            return [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]

    return kinds
