"""Whether the tracking store can be used, found out in seconds and without importing mlflow."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from netzip_mlflow.databases import trouble, without_password
from netzip_mlflow.errors import TrackingUnavailable

__all__ = ["check_reachable", "healthy", "tracking_uri"]

PATIENCE_S = 3.0


def tracking_uri(option: str | None = None) -> str:
    """The store to use: the option, MLFLOW_TRACKING_URI, or `mlflow.db` in the current folder."""
    return (
        option
        or os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{Path('mlflow.db').resolve()}"
    )


def healthy(uri: str, patience_s: float = PATIENCE_S) -> str | None:
    """None when a server answers, MLflow's or a database's (or `uri` is none), else why not."""
    try:
        if urlsplit(uri).scheme not in {"http", "https"}:
            return trouble(uri)
        request = urllib.request.Request(f"{uri.rstrip('/')}/health")  # noqa: S310 (scheme checked)
        with urllib.request.urlopen(request, timeout=patience_s):  # noqa: S310
            return None
    except urllib.error.HTTPError as error:
        return None if error.code < 500 else f"it answers with status {error.code}"
    except (OSError, ValueError, OverflowError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def check_reachable(uri: str) -> None:
    """Raise when the store cannot be used.

    Raises:
        TrackingUnavailable: the server does not answer, or the database's folder cannot be written.
    """
    reason = healthy(uri)
    if reason is not None:
        raise TrackingUnavailable(
            f"the tracking server {without_password(uri)} does not answer: "
            f"{without_password(reason, uri)}; start it, or name another with "
            "--tracking-uri or MLFLOW_TRACKING_URI"
        )
    parts = urlsplit(uri)
    if parts.scheme == "sqlite" and parts.path not in {"", "/", "/:memory:"}:
        folder = Path(parts.path.removeprefix("/")).parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise TrackingUnavailable(
                f"the tracking store {uri}: {folder} is not a writable folder"
            )
