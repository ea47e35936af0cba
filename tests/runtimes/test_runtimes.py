from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from netzip_mlflow.errors import InputError
from netzip_mlflow.runtimes import RUNTIMES, open_runtime


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_of_the_table_offers_the_protocol(name):
    runtime = open_runtime(name)
    assert runtime is importlib.import_module(RUNTIMES[name])
    assert callable(runtime.load)
    assert callable(runtime.executed)


def test_an_unknown_runtime_is_refused_with_what_is_near():
    with pytest.raises(InputError) as caught:
        open_runtime("onnxruntme")
    assert str(caught.value) == (
        "runtime: 'onnxruntme' is unknown; allowed: onnxruntime (did you mean 'onnxruntime'?)"
    )


@pytest.mark.parametrize(
    "module",
    [
        "statistics",
        "metrics.accuracy",
        "metrics.fidelity",
        "metrics.latency",
        "metrics.machine",
        "metrics.operations",
        "metrics.process",
        "metrics.size",
        "runtimes.onnxruntime",
    ],
)
def test_nothing_heavy_is_imported(module):
    """An edge device has numpy, onnx, onnxruntime and psutil."""
    heavy = ["torch", "torchvision", "pandas", "matplotlib", "scipy", "sklearn", "mlflow"]
    code = f"import sys, netzip_mlflow.{module}\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
