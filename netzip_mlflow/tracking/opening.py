"""MLflow's client for a store, which is asked for its health before anything is imported."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from netzip_mlflow.databases import without_password
from netzip_mlflow.errors import InputError
from netzip_mlflow.tracking.faults import reason
from netzip_mlflow.tracking.reachable import check_reachable, unusable
from netzip_mlflow.tracking.tables import have_tables

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["experiment_named", "opened", "store_errors"]

SETTINGS = {
    # the outbox and `patiently` try again: they know what may have arrived
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def opened(uri: str) -> MlflowClient:
    """A client of the store, which is MLflow's current one from now on.

    Raises:
        TrackingUnavailable: the store cannot be used.
        InputError: it can be, but not from here.
    """
    check_reachable(uri)
    if not uri.startswith(("http:", "https:")) and find_spec("sqlalchemy") is None:
        raise InputError(
            f"the tracking store {without_password(uri)} needs full mlflow, here is mlflow-skinny: "
            "name a server with --tracking-uri http://... (or measure files with --no-log)"
        )
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    # A new database announces each step of its making; an error is logged with its traceback, and
    # is ours to say.
    for name in ("mlflow.store.db.utils", "mlflow.utils.databricks_utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    mlflow.set_tracking_uri(uri)
    try:
        have_tables(uri)
        return mlflow.MlflowClient(uri)
    except store_errors() as error:
        raise InputError(unusable(uri, reason(error))) from error


def store_errors() -> tuple[type[Exception], ...]:
    """What a store that cannot be used raises; a database's own errors pass through MLflow."""
    from mlflow.exceptions import MlflowException

    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ModuleNotFoundError:  # mlflow-skinny
        return (MlflowException,)
    return MlflowException, SQLAlchemyError


def experiment_named(client: MlflowClient, name: str) -> str:
    """The id of an experiment, which is made where there is none; another may do so meanwhile."""
    from mlflow.exceptions import MlflowException

    if (known := client.get_experiment_by_name(name)) is not None:
        return known.experiment_id
    try:
        return client.create_experiment(name, _artifacts())
    except MlflowException:
        if (known := client.get_experiment_by_name(name)) is None:
            raise
        return known.experiment_id


def _artifacts() -> str | None:
    """Where a new experiment's artifacts lie; None: where MLflow puts them, which reads a local
    folder's name as if it were part of a URL."""
    import mlflow

    uri, place = mlflow.get_tracking_uri(), Path("mlruns").resolve()
    return place.as_uri() if uri.startswith("sqlite:") and set("%?#") & set(str(place)) else None
