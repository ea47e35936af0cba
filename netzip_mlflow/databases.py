"""Databases by their URL: whether one answers, said in seconds and never with its password."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_plus

__all__ = ["connect_args", "sqlite_trouble", "trouble", "without_password", "without_secrets"]

SERVERS = ("postgresql", "postgres", "mysql", "mariadb", "mssql")
PATIENCE_S = 5
SQLITE_QUERY = (
    *("uri", "mode", "cache", "immutable", "vfs", "nolock", "psow", "timeout", "isolation_level"),
    *("detect_types", "check_same_thread", "cached_statements", "autocommit"),
)
HIDDEN = "***"
LEAST = 3  # characters of a password that is looked for in prose
SECRET = re.compile(  # in the letters of a key
    r"passw|passphrase|pwd|secret|credential|odbcconnect|(api|access|account)key"
    r"|(token|signature)$|^(pass|sig)$"
)
# a user's password; behind a port there may be spaces, and an @ later
_USER = re.compile(r"://([^:/\s]*):(?:\S{0,4096}|(?!\d+(?:\s|$))[^/@\n]{0,4096})@")
_TOKEN = re.compile(r"(https?://)[^:/@\s]+@")  # in a user's place, by itself
_PAIRS = (  # how a key is written before its value, and how far that goes
    (re.compile(r"[?&]([^=&?\s]+)="), re.compile(r"[^&\s]*")),  # in a URL
    (re.compile(r"""["']([\w-]+)["']\s*:\s*"""), re.compile(r""""[^"]*"|'[^']*'""")),  # in JSON
    (  # in a driver's connection string
        re.compile(r"(?<![\w.-])([\w.-]+)="),
        re.compile(r"""'[^']*'|"[^"]*"|\{[^}]*\}|[^&;\s'"]*"""),
    ),
)
PATIENT = ("psycopg", "psycopg2", "pymysql", "mysqldb")  # drivers that know `connect_timeout`


def without_password(text: str, url: str = "") -> str:
    """A text, with URLs or connection strings in it, as it may be shown.

    Args:
        url: what it speaks of: its passwords are hidden as a driver may say them, decoded.
    """
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _USER.sub(rf"://\1:{HIDDEN}@", text)
    text = _TOKEN.sub(rf"\1{HIDDEN}@", text)
    for key, value in _PAIRS:
        text = _without_values(text, key, value)
    return text


def without_secrets(value: Any) -> Any:
    """Plain values, those hidden whose key says that they are secret."""
    if isinstance(value, list):
        return [without_secrets(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: HIDDEN if each is not None and _is_secret(str(key)) else without_secrets(each)
        for key, each in value.items()
    }


def _without_values(text: str, key: re.Pattern[str], value: re.Pattern[str]) -> str:
    """A text whose keys that say that they are secret have their values hidden."""
    kept, place = [], 0
    for found in key.finditer(text):
        hidden = value.match(text, found.end()) if _is_secret(found[1]) else None
        if hidden is not None and found.start() >= place:
            kept += [text[place : found.end()], HIDDEN]
            place = hidden.end()
    return "".join([*kept, text[place:]])


def _is_secret(key: str) -> bool:
    return SECRET.search(re.sub(r"[^a-z]", "", unquote_plus(key).lower())) is not None


def _secrets(url: str) -> set[str]:
    """A URL's passwords and tokens, as they are written and decoded."""
    found = [*re.findall(r"://[^:/]*:(.*)@", url), *re.findall(r"^https?://([^:/@]+)@", url)]
    for key, value in re.findall(r"[?&]([^=&]+)=([^&]*)", url):
        if _is_secret(key):
            found += [value, *re.findall(r"(?i)\bpwd=\{?([^;}]*)", unquote_plus(value))]
    written = {form for secret in found for form in (secret, unquote(secret), unquote_plus(secret))}
    return {secret for secret in written if len(secret) >= LEAST}


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


def sqlite_trouble(url: str, patience_s: float = PATIENCE_S) -> str | None:
    """None where a sqlite database can be written, or made; else why not, in one line."""
    if find_spec("sqlalchemy") is None:
        return None
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        file = make_url(url).database or ""
        query = [key for key, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True)]
        if strange := [key for key in query if key not in SQLITE_QUERY]:
            return f"what follows its ? is not sqlite's: {strange[0]}; in a folder's name write %3F"
        if file in {"", ":memory:"}:
            return None
        if not file.startswith("file:"):
            reason = _folder_trouble(Path(file))
            if reason is not None or not Path(file).exists():
                return reason
        waiting = {"timeout": patience_s}
        with create_engine(url, connect_args=waiting, poolclass=NullPool).connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.exec_driver_sql("CREATE TABLE netzip_asks_whether_it_can_write (x)")
            connection.rollback()
    except SQLAlchemyError as error:
        return _said(error, url)
    return None


def _folder_trouble(file: Path) -> str | None:
    """Why a file cannot be made, nor a journal beside it."""
    if file.is_dir():
        return f"{file} is a folder"
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            return None
    except OSError as error:
        return f"{file.parent} is not a writable folder: {error.strerror}"


def _said(error: Exception, url: str) -> str:
    """What the driver says, in one line; none is known to name the password, all are searched."""
    return without_password(" ".join(str(getattr(error, "orig", None) or error).split()), url)
