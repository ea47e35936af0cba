"""Whether the tracking store can be used, said in seconds, before anything heavy is imported.

First whether anybody is there, with what Python brings along; only where somebody answers, through
MLflow's own client: what it accepts (own authorities, client certificates, tokens) is accepted.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from netzip_mlflow.databases import sqlite_trouble, trouble, without_password
from netzip_mlflow.errors import TrackingUnavailable
from netzip_mlflow.tracking.faults import reason as reason_of

__all__ = ["absolute", "check_reachable", "healthy", "tracking_uri", "unusable"]

PATIENCE_S = 3.0
AWAY = (502, 503, 504)  # a proxy is there, the server is not
CREDENTIALS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
CERTIFICATE = (
    "name its authority's file in MLFLOW_TRACKING_SERVER_CERT_PATH, or trust it without with "
    "MLFLOW_TRACKING_INSECURE_TLS=true"
)

# sqlite:///mlflow.db, file:runs and runs; not file:x behind sqlite: (a URI of its own), :memory:
_RELATIVE = re.compile(r"(sqlite(?:\+\w+)?:///(?!file:)|file:|(?!databricks|[\w+.-]+:))([^/:].*)")
OWN_CERTIFICATE = " (a certificate of yours is named in MLFLOW_TRACKING_CLIENT_CERT_PATH)"


def tracking_uri(option: str | None = None) -> str:
    """The store to use: the option, MLFLOW_TRACKING_URI, or `mlflow.db` in the current folder."""
    given = option or os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given
    file = str(Path("mlflow.db").resolve())
    # in an address these would mean something else, and MLflow makes folders by the address's text
    return "sqlite:///mlflow.db" if {"?", "%"} & set(file) else f"sqlite:///{file}"


def healthy(uri: str) -> str | None:
    """None when somebody is there: a server that answers, a database that can be written (or `uri`
    is none of both); else why not, in one line.

    What a server thinks of our certificates and credentials is not asked: none are sent.
    """
    try:
        if uri.startswith("sqlite:"):
            return sqlite_trouble(uri, PATIENCE_S)
        if not _is_server(uri):
            return trouble(uri)
        parts = urlsplit(uri)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        address = f"{urlunsplit(bare).rstrip('/')}/health"
        anyones = ssl.create_default_context()
        anyones.check_hostname, anyones.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=anyones))
        with opener.open(address, timeout=PATIENCE_S):
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
    if uri.startswith("sqlite:"):
        return unusable(uri, reason)
    return (
        f"the tracking server {without_password(uri)} does not answer: "
        f"{without_password(reason, uri)}; start it, or "
        "name another with --tracking-uri or MLFLOW_TRACKING_URI"
    )


def unusable(uri: str, reason: str) -> str:
    """What is said of a store that cannot be used."""
    shown, reason = without_password(uri), without_password(reason, uri)
    return f"the tracking store {shown} cannot be used: {reason}"


def absolute(uri: str) -> str:
    """A local store's address as it is from every folder; any other as it is."""
    local = _RELATIVE.fullmatch(uri)
    here = str(Path.cwd()) if local else ""
    return f"{local[1]}{here}/{local[2]}" if local and not {"?", "%"} & set(here) else uri


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
