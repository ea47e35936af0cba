"""Logged models: a deployable as an ONNX model, a twin as an artifact, and both found again."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import InputError
from netzip_mlflow.tracking.faults import transient

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "add_version",
    "baseline_of",
    "download",
    "find_baseline",
    "local_file",
    "log_deployable",
    "model_file",
    "twin_folder",
]

MANIFEST, GOLDEN, FILE = "netzip.json", "golden.npz", "model.onnx"


def log_deployable(
    client: MlflowClient, experiment: str, run: str, folder: Path, name: str, *, again: bool = False
) -> str:
    """Log `folder` (model.onnx, netzip.json, golden.npz) as a run's model; returns the model's id.

    The ONNX flavour with a signature and pinned requirements; no external data, nothing pickled.
    `again`: an earlier try may have made the model; then it is completed.
    """
    import mlflow.onnx as flavour
    import onnx
    from mlflow.entities import LoggedModelOutput

    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    model = _begun(client, experiment, run, name) if again else None
    if model is None:
        tags = {
            "netzip.model_digest": manifest["model_digest"],
            "netzip.chain": "+".join(manifest["chain"]) or "fp32",
        }
        created = client.create_logged_model(experiment, name=name, source_run_id=run, tags=tags)
        model = created.model_id
    try:
        with _quiet():
            flavour.log_model(
                onnx.load(folder / FILE),
                model_id=model,
                signature=_signature(manifest),
                pip_requirements=[
                    f"{k}=={manifest['versions'][k]}" for k in ("onnx", "onnxruntime")
                ],
                extra_files=[str(folder / MANIFEST), str(folder / GOLDEN)],
                metadata={"netzip": {k: manifest[k] for k in ("task", "chain", "model_digest")}},
                onnx_execution_providers=["CPUExecutionProvider"],
                onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
                save_as_external_data=False,
            )
    except Exception as error:
        if not transient(error):  # its files are refused: it would be shown as PENDING for ever
            with contextlib.suppress(Exception):
                client.finalize_logged_model(model, "FAILED")
        raise
    outputs = client.get_run(run).outputs if again else None
    if outputs is None or model not in {output.model_id for output in outputs.model_outputs}:
        client.log_outputs(run, [LoggedModelOutput(model, 0)])
    return model


def _begun(client: MlflowClient, experiment: str, run: str, name: str) -> str | None:
    """The run's logged model of that name, which an earlier try has made."""
    same = f"source_run_id = '{run}' AND name = '{name}'"
    earlier = client.search_logged_models([experiment], same, max_results=1)
    return earlier[0].model_id if earlier else None


def _signature(manifest: dict[str, Any]) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    kind = np.dtype("float32")
    given = TensorSpec(kind, (-1, *manifest["input"]["shape"]), manifest["input"]["name"])
    answer = TensorSpec(kind, (-1, len(manifest["classes"])), manifest["output"])
    return ModelSignature(Schema([given]), Schema([answer]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MLflow advises input examples (large, for images) and prints the model's address."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def find_baseline(client: MlflowClient, experiment_id: str, training_digest: str) -> str | None:
    """The newest finished baseline run that was trained from the same inputs, or None."""
    wanted = (
        "tags.`netzip.kind` = 'baseline' AND attributes.status = 'FINISHED'"
        f" AND tags.`netzip.training_digest` = '{training_digest}'"
    )
    found = client.search_runs([experiment_id], wanted, max_results=1, order_by=["start_time DESC"])
    return found[0].info.run_id if found else None


def download(client: MlflowClient, run_id: str, folder: Path) -> tuple[Path, Path | None]:
    """A run's model folder (model.onnx, netzip.json) and its twin's folder, None where it has none.

    Raises:
        InputError: the run has no logged model.
    """
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise InputError(f"runs:/{run_id}: no such run: {error}") from None
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise InputError(f"runs:/{run_id}: the run has no logged model")
    model = Path(
        mlflow.artifacts.download_artifacts(
            f"models:/{outputs[-1].model_id}", dst_path=str(folder), tracking_uri=None
        )
    )
    if not any(item.path == "twin" for item in client.list_artifacts(run_id)):
        return model, None
    return model, Path(client.download_artifacts(run_id, "twin", str(folder)))


def model_file(uri: str, folder: Path) -> tuple[Path, str | None]:
    """The ONNX file behind a path, `models:/...` or `runs:/<run>[/name]`, and its run's id.

    Raises:
        InputError: nothing is there, or it holds no ONNX file.
    """
    if not uri.startswith(("models:/", "runs:/")):
        return local_file(uri), None
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        if uri.startswith("runs:/"):
            run_id = uri.removeprefix("runs:/").split("/")[0]
            return download(client, run_id, folder)[0] / FILE, run_id
        place = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise InputError(f"{uri}: cannot be fetched: {error}") from None
    found = sorted(place.glob("*.onnx"))
    if not found:
        raise InputError(f"{uri}: holds no ONNX file")
    return found[0], _source_run(place)


def local_file(path: str) -> Path:
    """An ONNX file, or the `model.onnx` of a folder.

    Raises:
        InputError: there is none.
    """
    place = Path(path)
    file = place / FILE if place.is_dir() else place
    if not file.is_file():
        raise InputError(f"{path}: no such ONNX file; allowed: a path, models:/... or runs:/...")
    return file


def add_version(
    client: MlflowClient,
    name: str,
    alias: str,
    run: str,
    model: str,
    tags: Mapping[str, str],
    *,
    again: bool = False,
) -> None:
    """A run's logged model as a new version of the registered model `name`, found by `alias`."""
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # it is there
        client.create_registered_model(name)
    earlier = client.search_model_versions(f"name = '{name}' AND run_id = '{run}'") if again else []
    version = (
        earlier[0]
        if earlier
        else client.create_model_version(
            name, f"models:/{model}", run, tags=dict(tags), model_id=model
        )
    )
    client.set_registered_model_alias(name, alias, version.version)


def _source_run(place: Path) -> str | None:
    import yaml

    description = yaml.safe_load((place / "MLmodel").read_text())
    if run_id := description.get("run_id"):
        return run_id
    if model_id := description.get("model_id"):
        import mlflow

        return mlflow.MlflowClient().get_logged_model(model_id).source_run_id
    return None


def twin_folder(uri: str, folder: Path) -> Path:
    """The twin behind a logged model or a run.

    Raises:
        InputError: it has no twin.
    """
    import mlflow

    run_id = model_file(uri, folder)[1]
    twin = download(mlflow.MlflowClient(), run_id, folder)[1] if run_id else None
    if twin is None:
        raise InputError(f"model.uri: {uri} has no twin: only a deployable was logged there")
    return twin


def baseline_of(client: MlflowClient, run_id: str) -> str | None:
    """The run id of the baseline that a run was measured against, by its tags."""
    tags = client.get_run(run_id).data.tags
    return run_id if tags.get("netzip.kind") == "baseline" else tags.get("netzip.baseline")
