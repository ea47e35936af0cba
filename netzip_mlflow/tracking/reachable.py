"""Whether the tracking store can be used, said in seconds, before anything heavy is imported.

First whether anybody is there, with what Python brings along; only where somebody answers, through
MLflow's own client: what it accepts (own authorities, client certificates, tokens) is accepted.
"""

from __future__ import annotations

import http.client
import os
import ssl
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from netzip_mlflow.databases import sqlite_trouble, trouble, without_password
from netzip_mlflow.errors import TrackingUnavailable
from netzip_mlflow.tracking.faults import reason as reason_of

__all__ = ["check_reachable", "healthy", "tracking_uri"]

PATIENCE_S = 3.0
AWAY = (502, 503, 504)  # a proxy is there, the server is not
CREDENTIALS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
CERTIFICATE = (
    "name its authority's file in MLFLOW_TRACKING_SERVER_CERT_PATH, or trust it without with "
    "MLFLOW_TRACKING_INSECURE_TLS=true"
)

OWN_CERTIFICATE = " (a certificate of yours is named in MLFLOW_TRACKING_CLIENT_CERT_PATH)"


def tracking_uri(option: str | None = None) -> str:
    """The store to use: the option, MLFLOW_TRACKING_URI, or `mlflow.db` in the current folder."""
    given = option or os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given
    file = str(Path("mlflow.db").resolve())
    # in an address these would mean something else, and MLflow makes folders by the address's text
    return "sqlite:///mlflow.db" if {"?", "%"} & set(file) else f"sqlite:///{file}"


def healthy(uri: str, patience_s: float | None = None) -> str | None:
    """None when somebody is there: a server that answers, a database that can be written (or `uri`
    is none of both); else why not, in one line.

    What a server thinks of our certificates and credentials is not asked: none are sent.
    """
    patience_s = PATIENCE_S if patience_s is None else patience_s
    try:
        if uri.startswith("sqlite:"):
            return sqlite_trouble(uri, patience_s)
        if not _is_server(uri):
            return trouble(uri)
        parts = urlsplit(uri)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        address = f"{urlunsplit(bare).rstrip('/')}/health"
        anyones = ssl.create_default_context()
        anyones.check_hostname, anyones.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=anyones))
        with opener.open(address, timeout=patience_s):
            return None
    except urllib.error.HTTPError as error:
        return f"it answers with status {error.code}" if error.code in AWAY else None
    except (OSError, ValueError, OverflowError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if any(isinstance(each, ssl.SSLError) for each in (error, reason)):
            return None  # it speaks, and wants a certificate of ours
        return str(reason) or type(error).__name__


def check_reachable(uri: str) -> None:
    """Raise when the store cannot be used.

    Raises:
        TrackingUnavailable: the server does not answer or lets nobody in; the database cannot be
            opened and written.
    """
    reason = healthy(uri)
    if reason is not None:
        raise TrackingUnavailable(_sentence(uri, reason))
    if _is_server(uri):
        _ask_through_mlflow(uri)
    elif uri.startswith("sqlite:"):
        _check_folder()


def _is_server(uri: str) -> bool:
    return uri.lower().startswith(("http://", "https://"))


def _sentence(uri: str, reason: str) -> str:
    shown, reason = without_password(uri), without_password(reason, uri)
    if uri.startswith("sqlite:"):
        return f"the tracking store {shown} cannot be used: {reason}"
    return (
        f"the tracking server {shown} does not answer: {reason}; start it, or "
        "name another with --tracking-uri or MLFLOW_TRACKING_URI"
    )


def _check_folder() -> None:
    """MLflow puts the artifacts of a local store below the current folder, by a text that it
    decodes: where that is another folder, they would be written to that one."""
    here = str(Path.cwd())
    if unquote(here) != here:
        raise TrackingUnavailable(
            f"the current folder {here}: MLflow would write artifacts to {unquote(here)}, since it "
            "decodes what follows a %; rename the folder, or use a tracking server"
        )


def _ask_through_mlflow(uri: str) -> None:
    if find_spec("mlflow") is None:
        return
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    shown = without_password(uri)
    try:
        answer = http_request(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/search",
            "GET",
            params={"max_results": 1},
            max_retries=0,
            timeout=PATIENCE_S,
            raise_on_status=False,
        )
    except (MlflowException, OSError) as error:
        said = reason_of(error)
        if "CERTIFICATE_VERIFY_FAILED" in said:
            raise TrackingUnavailable(
                f"the tracking server {shown} is not trusted: {said}; {CERTIFICATE}"
            ) from error
        hint = OWN_CERTIFICATE if "SSL" in said else ""
        raise TrackingUnavailable(_sentence(uri, f"{said}{hint}")) from error
    status = answer.status_code if answer is not None else 0
    if status in {401, 403}:
        raise TrackingUnavailable(
            f"the tracking server {shown} lets nobody in with these credentials (status {status}); "
            f"{CREDENTIALS}"
        )
    if status != 200:
        raise TrackingUnavailable(
            _sentence(uri, f"it answers MLflow's question with status {status}")
        )
