"""What a failed call to MLflow means: the store is away for a while, or it refuses this one."""

from __future__ import annotations

import errno
import re

from netzip_mlflow.databases import without_password

__all__ = ["reason", "status_of", "transient"]

DENIED = (401, 403)  # passing too: a token may be renewed meanwhile
PASSING = (*DENIED, 407, 408, 425, 429)  # beside 5xx: time out, too early, too many requests
_STATUS = re.compile(r"failed with error code (\d{3})")
FULL = (errno.ENOSPC, errno.EDQUOT)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error; None where there is none."""
    response = getattr(error, "response", None)
    if getattr(response, "status_code", None) is not None:
        return response.status_code  # type: ignore[union-attr] (requests' own, looked at above)
    # MLflow keeps no status that it has no name for: 413 becomes its internal error
    if said := _STATUS.search(str(error)):
        return int(said.group(1))
    named = getattr(error, "get_http_status_code", None)
    return None if named is None else named()


def transient(error: BaseException) -> bool:
    """Whether the same call may succeed later: connections, 5xx, a locked database, a full disk."""
    status = status_of(error)
    if status is not None and (status >= 500 or status in PASSING):
        return True
    if _database_away(error.__cause__ or error):
        return True
    if status is not None:
        return False
    if _of_requests(error):
        return True
    return isinstance(error, ConnectionError | TimeoutError) or (
        isinstance(error, OSError) and error.errno in FULL
    )


def reason(error: BaseException) -> str:
    """An error in one line, without passwords."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = without_password(lines[0]) if lines else type(error).__name__
    cause = said.rpartition("(Caused by ")[2].removesuffix(")")  # urllib3's, behind its own words
    return cause if len(cause) <= 300 else f"{cause[:300]}..."


def _database_away(error: BaseException) -> bool:
    try:
        from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
        from sqlalchemy.exc import TimeoutError as PoolTimeout
    except ModuleNotFoundError:  # mlflow-skinny: the database is the server's
        return False
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _of_requests(error: BaseException) -> bool:
    from requests import RequestException

    return isinstance(error, RequestException)
