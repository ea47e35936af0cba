"""What must work on an edge device: import, score a table, measure two ONNX files."""

import csv
import importlib
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

netzip, server = sys.argv[1:]
environment = os.environ | {"MLFLOW_TRACKING_URI": server}

for absent in ("torch", "torchvision", "pandas", "matplotlib", "sklearn"):
    assert importlib.util.find_spec(absent) is None, f"{absent} is installed here"
for module in ("recipe", "scoring", "statistics", "runtimes.onnxruntime"):
    importlib.import_module(f"netzip_mlflow.{module}")
for family in ("accuracy", "fidelity", "latency", "machine", "operations", "process", "size"):
    importlib.import_module(f"netzip_mlflow.metrics.{family}")


def run(*words: str) -> str:
    done = subprocess.run([netzip, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"netzip {' '.join(words)}: {done.stderr}"
    return done.stdout


assert "compress" in run("--help")

with open("table.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["technique", "top1", "chats_g", "disk_mb"])
    rows.writerows([["fp32", 70.0, 64, 40], ["int8", 70.0, 16, 10]])
scored = json.loads(run("score", "table.csv", "--json"))
assert scored["rows"][1]["ocs"] == 6.0, scored


def network(width: int) -> str:
    """A convolution, a mean and a linear layer over 8x8 images."""
    draw = np.random.default_rng(0)
    shapes = {"w": (width, 3, 3, 3), "v": (width, 10)}
    weights = [
        numpy_helper.from_array(draw.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "v"], ["scores"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "g", [images], [scores], weights)
    path = f"net{width}.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


words = ["measure", network(8), "--baseline", network(64), "--quiet", "--json"]
for logged in ([], ["--no-log"]):
    first, second = json.loads(run(*words, *logged))["models"]
    assert first["model"] == "baseline", first
    assert round(second["metrics"]["ratio/pcr"]) == 8, second
    assert second["metrics"]["size/ram_bytes"] > 0, second
print("edge: imports, score and measure work without torch, pandas, matplotlib and full mlflow")
