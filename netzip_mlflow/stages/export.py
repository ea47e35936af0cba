"""`netzip export`: a candidate as a folder that runs anywhere ONNX Runtime does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from netzip_mlflow import folders
from netzip_mlflow.errors import InputError, NetzipError, Problem

__all__ = ["PREDICT", "export"]

PREDICT = '''\
"""Ask the network: python predict.py IMAGES.npy (float32, (n, C, H, W), from 0 to 1)."""

import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime would report to its maker
import onnxruntime

folder = Path(__file__).parent
described = json.loads((folder / "netzip.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
answers = session.run(None, {described["input"]["name"]: np.load(sys.argv[1])})
'''
TOLERANCE = 1e-3


def export(
    uri: str, folder: Path, opset: int | None = None, *, tracking_uri: str | None = None
) -> list[str]:
    """Write model.onnx, netzip.json, golden.npz and predict.py into a new or empty folder.

    Args:
        tracking_uri: the store that `models:/` and `runs:/` are fetched from.

    Raises:
        InputError: the model cannot be fetched or read, the folder is not empty, or the opset is
            not possible: the converter refuses, or the converted file answers differently.
    """
    from netzip_mlflow.metrics.graph import read_model
    from netzip_mlflow.tracking.models import model_file

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not empty; allowed: a new or empty folder")
    if tracking_uri is not None and uri.startswith(("models:/", "runs:/")):
        import mlflow

        mlflow.set_tracking_uri(tracking_uri)
    with folders.temporary() as scratch:
        file, _ = model_file(uri, scratch)
        read_model(file)  # a corrupt one is not passed on
        place = scratch / "export"
        place.mkdir()
        shutil.copy(file, place / "model.onnx")
        for name in ("netzip.json", "golden.npz"):
            source = next(
                (p for p in (file.parent / name, file.parent / "extra_files" / name) if p.exists()),
                None,
            )
            if source is not None:
                shutil.copy(source, place / name)
        if opset is not None:
            _convert(place, opset)
        if (place / "netzip.json").exists():
            script = PREDICT + _last_lines(place / "netzip.json")
            (place / "predict.py").write_text(script, encoding="utf-8")
        try:
            shutil.copytree(place, folder, dirs_exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error}") from None
    return sorted(p.name for p in folder.iterdir())


def _last_lines(described: Path) -> str:
    """What prints the answers: as the task does it, where it is one of ours."""
    from netzip_mlflow.tasks import TABLE, task_class
    from netzip_mlflow.tasks.task_base import TaskBase

    name = json.loads(described.read_text(encoding="utf-8"))["task"]
    return (task_class(name) if name in TABLE else TaskBase).predict


def _convert(place: Path, opset: int) -> None:
    """Replace model.onnx by the same in another opset, if it answers the same."""
    import numpy as np
    import onnx
    from onnx import version_converter

    from netzip_mlflow import runtimes

    refusals = (
        version_converter.ConvertError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        RuntimeError,  # of the converter's own checks
        ValueError,
    )
    file = place / "model.onnx"
    model = onnx.load(file)
    current = next((o.version for o in model.opset_import if not o.domain), "none")
    what, allowed = f"{opset} cannot be had from {current}", "another opset, or none"
    try:
        onnx.checker.check_model(model)  # the converter takes a sound one for granted
        converted = version_converter.convert_version(model, opset)
        onnx.checker.check_model(converted)
        (given,) = model.graph.input
        shape = [d.dim_value or 1 for d in given.type.tensor_type.shape.dim]
        images = np.random.default_rng(0).random(shape, dtype=np.float32)
        answers = [runtimes.evaluator(each)({given.name: images}) for each in (model, converted)]
    except (NetzipError, *refusals) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(Problem("--opset", f"{what}: {reason}", allowed)) from None
    if not all(np.allclose(*pair, atol=TOLERANCE) for pair in zip(*answers, strict=True)):
        raise InputError(Problem("--opset", f"{what}: its answers differ", allowed))
    onnx.save(converted, file)
    described = place / "netzip.json"
    if described.exists():
        import hashlib

        manifest = json.loads(described.read_text(encoding="utf-8"))
        manifest["opset"]["ai.onnx"] = opset
        manifest["model_digest"] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        described.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
