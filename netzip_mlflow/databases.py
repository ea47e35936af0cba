"""Databases by their URL: whether one answers, said in seconds and never with its password."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

__all__ = ["connect_args", "trouble", "without_password"]

SERVERS = ("postgresql", "postgres", "mysql", "mariadb", "mssql")
PATIENCE_S = 5
PATIENT = ("psycopg", "psycopg2", "pymysql", "mysqldb")  # drivers that know `connect_timeout`


def without_password(text: str) -> str:
    """A URL, or a text with URLs in it, as it may be shown."""
    text = re.sub(r"://([^:/@\s]*):\S*@", r"://\1:***@", text)
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", text)


def connect_args(url: str) -> dict[str, Any]:
    """What has a driver give up in seconds where nobody answers; the URL's own is left alone."""
    from sqlalchemy import make_url

    parsed = make_url(url)
    known = parsed.get_driver_name() in PATIENT and "connect_timeout" not in parsed.query
    return {"connect_timeout": PATIENCE_S} if known else {}


def trouble(url: str) -> str | None:
    """None where a database's server answers, or `url` names none; else why not, in one line."""
    kind = url.partition("://")[0].partition("+")[0]
    if kind not in SERVERS or find_spec("sqlalchemy") is None:
        return None
    from sqlalchemy import create_engine
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        engine = create_engine(url, connect_args=connect_args(url), poolclass=NullPool)
        with engine.connect():
            return None
    except NoSuchModuleError:
        return f"{url.partition(':')[0]} is not known; PostgreSQL is postgresql+psycopg://"
    except ModuleNotFoundError as error:
        hint = ": pip install 'netzip-mlflow[postgresql]'" if error.name == "psycopg" else ""
        return f"its driver, the package {error.name}, is not installed here{hint}"
    except (SQLAlchemyError, ImportError) as error:
        return _said(error, url)


def _said(error: Exception, url: str) -> str:
    """What the driver says, in one line; none is known to name the password, all are searched."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    text = " ".join(str(getattr(error, "orig", None) or error).split())
    try:
        password = make_url(url).password
    except ArgumentError:
        password = None
    return without_password(text.replace(password, "***") if password else text)
