"""Logged models: a deployable as an ONNX model, a twin as an artifact, and both found again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow import runtimes
from netzip_mlflow.errors import InputError
from netzip_mlflow.tracking.faults import transient

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

__all__ = [
    "add_version",
    "baseline_of",
    "local_file",
    "log_deployable",
    "model_file",
    "stored_baselines",
    "stored_model",
    "stored_twin",
    "twin_folder",
]

MANIFEST, GOLDEN, FILE = "netzip.json", "golden.npz", "model.onnx"
TWIN_DIGEST = "netzip.twin_digest"  # written last: who has it was stored whole


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
                    f"{k}=={manifest['versions'][k]}" for k in ("onnx", *runtimes.PACKAGES)
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
    answers: list[Any] = [
        TensorSpec(kind, (-1, *o["shape"]), o["name"]) for o in manifest["outputs"]
    ]
    return ModelSignature(Schema([given]), Schema(answers))


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


def stored_baselines(client: MlflowClient, experiment_id: str, training_digest: str) -> list[str]:
    """Runs of baselines that the same inputs trained and that were stored whole: the finished ones
    first, then those whose job was ended later, each the newest first."""
    wanted = (
        f"tags.`netzip.kind` = 'baseline' AND tags.`{TWIN_DIGEST}` != ''"
        f" AND tags.`netzip.training_digest` = '{training_digest}'"
    )
    runs = client.search_runs([experiment_id], wanted, max_results=10, order_by=["start_time DESC"])
    return [run.info.run_id for run in sorted(runs, key=lambda r: r.info.status != "FINISHED")]


def stored_model(client: MlflowClient, run_id: str, folder: Path) -> Path:
    """The ONNX file of a run's logged model, fetched; extra_files/netzip.json lies beside it.

    Raises:
        InputError: there is none, or it is not what was stored.
    """
    outputs = _run(client, run_id).outputs
    if not outputs or not outputs.model_outputs:
        raise InputError(f"runs:/{run_id}: the run has no logged model")
    return _fetched_model(f"models:/{outputs.model_outputs[-1].model_id}", folder)


def stored_twin(client: MlflowClient, run_id: str, folder: Path) -> tuple[Path, str]:
    """The folder of a run's twin, fetched, and the twin's digest (empty: none was noted).

    Raises:
        InputError: there is no such run, or it has no twin.
    """
    digest = _run(client, run_id).data.tags.get(TWIN_DIGEST, "")
    try:
        if any(item.path == "twin" for item in client.list_artifacts(run_id)):
            return Path(client.download_artifacts(run_id, "twin", str(folder))), digest
    except Exception as error:  # noqa: BLE001 (every artifact store raises errors of its own)
        raise InputError(f"runs:/{run_id}: its twin cannot be fetched: {error}") from None
    what = "its twin is gone from the artifact store" if digest else "the run has no twin"
    raise InputError(f"runs:/{run_id}: {what}")


def _run(client: MlflowClient, run_id: str) -> MlflowRun:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        raise InputError(f"runs:/{run_id}: no such run: {error}") from None


def _fetched_model(uri: str, folder: Path) -> Path:
    import mlflow.artifacts

    try:
        place = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    except Exception as error:  # noqa: BLE001 (every artifact store raises errors of its own)
        raise InputError(f"{uri}: cannot be fetched: {error}") from None
    files = sorted(place.glob("*.onnx"))
    if not files:
        what = "holds no ONNX file" if any(place.iterdir()) else "is gone from the artifact store"
        raise InputError(f"{uri}: {what}")
    described = place / "extra_files" / MANIFEST
    if described.is_file():  # else it is a model of another tool
        digest = hashlib.sha256(files[0].read_bytes()).hexdigest()[:16]
        try:
            stored = json.loads(described.read_text(encoding="utf-8"))["model_digest"]
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{uri}: {MANIFEST} is damaged: {error}") from None
        if digest != stored:
            raise InputError(f"{uri}: {FILE} is damaged: its digest is {digest}, not {stored}")
    return files[0]


def model_file(uri: str, folder: Path) -> tuple[Path, str | None]:
    """The ONNX file behind a path, `models:/...` or `runs:/<run>[/name]`, and its run's id.

    Raises:
        InputError: nothing is there, or it holds no ONNX file.
    """
    if not uri.startswith(("models:/", "runs:/")):
        return local_file(uri), None
    import mlflow

    if uri.startswith("runs:/"):
        run_id = uri.removeprefix("runs:/").split("/")[0]
        return stored_model(mlflow.MlflowClient(), run_id, folder), run_id
    file = _fetched_model(uri, folder)
    return file, _source_run(file.parent)


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
    earlier_try: int | None = None,
) -> None:
    """A run's logged model as a new version of the registered model `name`, found by `alias`.

    `earlier_try`: when it was to be done first, in milliseconds since 1970: a version that was made
    later keeps the alias.
    """
    _require_registered_model(client, name)
    earlier, aliases = [], {}
    if earlier_try is not None:
        earlier = client.search_model_versions(f"name = '{name}' AND run_id = '{run}'")
        aliases = client.get_registered_model(name).aliases
    version = (
        earlier[0]
        if earlier
        else client.create_model_version(
            name, f"models:/{model}", run, tags=dict(tags), model_id=model
        )
    )
    holder = client.get_model_version(name, aliases[alias]) if alias in aliases else None
    if earlier_try is not None and holder is not None and holder.creation_timestamp > earlier_try:
        return
    client.set_registered_model_alias(name, alias, version.version)


def _require_registered_model(client: MlflowClient, name: str) -> None:
    """Who may add versions to a model that is there need not be allowed to make one."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        try:
            client.create_registered_model(name)
        except MlflowException as refusal:
            if refusal.error_code != "RESOURCE_ALREADY_EXISTS":  # another has just made it
                raise


def _source_run(place: Path) -> str | None:
    import yaml

    description = yaml.safe_load((place / "MLmodel").read_text(encoding="utf-8"))
    if run_id := description.get("run_id"):
        return run_id
    if model_id := description.get("model_id"):
        import mlflow

        return mlflow.MlflowClient().get_logged_model(model_id).source_run_id
    return None


def twin_folder(uri: str, folder: Path) -> tuple[Path, str]:
    """The twin behind a logged model or a run, as `stored_twin` gives it.

    Raises:
        InputError: it has no twin.
    """
    import mlflow

    run_id = model_file(uri, folder)[1]
    if run_id is None:
        raise InputError(f"model.uri: {uri} has no twin: only a deployable was logged there")
    return stored_twin(mlflow.MlflowClient(), run_id, folder)


def baseline_of(client: MlflowClient, run_id: str) -> str | None:
    """The run id of the baseline that a run was measured against, by its tags."""
    tags = client.get_run(run_id).data.tags
    return run_id if tags.get("netzip.kind") == "baseline" else tags.get("netzip.baseline")
