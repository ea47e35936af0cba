"""MLflow's tables in a database that has none."""

from __future__ import annotations

import os

from netzip_mlflow.first_use import made_whole

__all__ = ["have_tables"]

POOL = "MLFLOW_SQLALCHEMYSTORE_POOLCLASS"


def have_tables(uri: str) -> None:
    """See that a store which is a database has MLflow's tables, and its default experiment.

    Raises:
        InputError: another process does not end making them.
        MlflowException, SQLAlchemyError: they cannot be made.
    """
    if not uri.startswith(("http:", "https:")):
        made_whole(uri, _make)


def _make(uri: str) -> None:
    import mlflow

    before = os.environ.get(POOL)
    if uri.startswith("sqlite"):
        os.environ[POOL] = "NullPool"  # MLflow keeps engines by their address, this one is left
    try:
        mlflow.MlflowClient(uri).search_experiments(max_results=1)
    finally:
        if before is None:
            os.environ.pop(POOL, None)
        else:
            os.environ[POOL] = before
