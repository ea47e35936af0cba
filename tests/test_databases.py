"""Databases that do not answer, without a server; real ones are in end_to_end/search."""

from __future__ import annotations

import socket
import sys
import time

import pytest

from netzip_mlflow import databases
from netzip_mlflow.errors import InputError, TrackingUnavailable
from netzip_mlflow.search import study as studies
from netzip_mlflow.tracking import check_reachable


@pytest.fixture
def closed() -> str:
    """The URL of a database on a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"postgresql+psycopg://me:s3cret@127.0.0.1:{port}/d"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:s3cret@h/d", "postgresql+psycopg://me:***@h/d"),
        ("postgresql://me:a/b:c@d@h:5432/d", "postgresql://me:***@h:5432/d"),
        ("postgresql://:s3cret@h/d", "postgresql://:***@h/d"),
        ("postgresql://me@h/d?password=s3cret&x=1", "postgresql://me@h/d?password=***&x=1"),
        ("--storage=mysql://me:s3cret@h/d more", "--storage=mysql://me:***@h/d more"),
        ("https://me:s3cret@h:5000/", "https://me:***@h:5000/"),
        ("postgresql://me@work:s3cret@h/d", "postgresql://me@work:***@h/d"),
        ("postgresql://me:s3 cret@h/d", "postgresql://me:***@h/d"),
        ("postgresql://me:s3%40cret%2F@h/d", "postgresql://me:***@h/d"),
        ("https://s3cret@h/", "https://***@h/"),
        ("postgresql://h/d?sslpassword=s3cret&x=1", "postgresql://h/d?sslpassword=***&x=1"),
        ("mysql://h/d?x=1&passwd=s3cret;s3cret", "mysql://h/d?x=1&passwd=***"),
        ("postgresql://h/d?PASSWORD=s3cret", "postgresql://h/d?PASSWORD=***"),
        ("postgresql://h/d?p%61ssword=s3cret", "postgresql://h/d?p%61ssword=***"),
        ("https://h/?access_token=s3cret&a=b", "https://h/?access_token=***&a=b"),
        ("mssql+pyodbc:///?odbc_connect=D%3Dx%3BPWD%3Ds3cret", "mssql+pyodbc:///?odbc_connect=***"),
        ("Driver={ODBC 18};UID=me;Pwd={s3;cret};A=b", "Driver={ODBC 18};UID=me;Pwd=***;A=b"),
        ("host=h password='s3 cret' dbname=d", "host=h password=*** dbname=d"),
        ("""{"user": "me", "password": "s3 cret"}""", """{"user": "me", "password": ***}"""),
        ("--set=data.arguments.api_key=s3cret", "--set=data.arguments.api_key=***"),
        ("a=" * 5000 + "token=s3cret", "a=" * 5000 + "token=***"),
    ],
)
def test_a_password_is_not_shown(url, shown):
    assert databases.without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me@/d?host=/run/postgresql",
        "postgresql+psycopg://h:5432/d",
        "sqlite:////some/where:else/s.db",
        "http://127.0.0.1:5000",
        "http://127.0.0.1:5000 does not answer, ask me@home",
        "https://h/?max_tokens=5&passfile=/etc/me.pgpass",
        "data.arguments.token: 'x' names an environment variable; allowed: data.path",
        "models:/m@champion",
        "train.epochs=2",
    ],
)
def test_what_has_none_is_shown_as_it_is(url):
    assert databases.without_password(url) == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:s3%40cret@h/d", "auth failed for me with s3@cret"),
        ("postgresql://me:s3%40cret@h/d", "auth failed for me with s3%40cret"),
        ("postgresql://h/d?sslpassword=s3+cret", "cannot decrypt the key with s3 cret"),
        ("mssql+pyodbc:///?odbc_connect=D%3Dx%3BPWD%3Ds3cret%3BA%3Db", "login failed: s3cret"),
        ("https://s3cret@h/", "403 for s3cret"),
    ],
)
def test_a_driver_s_message_shows_no_form_of_the_url_s_password(url, said):
    shown = databases.without_password(said, url)
    assert "cret" not in shown
    assert "***" in shown


@pytest.mark.parametrize("url", ["sqlite:///no/such/folder/s.db", "http://127.0.0.1:1", "mlruns"])
def test_only_database_servers_are_asked(url):
    assert databases.trouble(url) is None


def test_nobody_listens(closed):
    found = databases.trouble(closed)
    assert found is not None
    assert "Connection refused" in found
    assert "\n" not in found


def test_one_that_takes_connections_and_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(databases, "PATIENCE_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        url = f"postgresql+psycopg://me:s3cret@127.0.0.1:{listener.getsockname()[1]}/d"
        assert "timeout" in (databases.trouble(url) or "")
        assert time.monotonic() - started < 5


def test_the_url_s_own_patience_is_left_alone():
    url = "postgresql+psycopg://h/d"
    assert databases.connect_args(url) == {"connect_timeout": databases.PATIENCE_S}
    assert databases.connect_args(f"{url}?connect_timeout=60") == {}
    assert databases.connect_args("postgresql+pg8000://h/d") == {}


def test_a_driver_that_is_not_installed(closed, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    wanted = "its driver, the package psycopg, is not installed here: pip install "
    assert databases.trouble(closed) == f"{wanted}'netzip-mlflow[postgresql]'"


def test_a_kind_that_sqlalchemy_does_not_know():
    found = databases.trouble("postgres://me:s3cret@h/d")
    assert found == "postgres is not known; PostgreSQL is postgresql+psycopg://"


def test_the_study_s_database(closed):
    with pytest.raises(InputError, match=r"storage: .*://me:\*\*\*@.* cannot be used") as raised:
        studies.open_storage(closed)
    assert "s3cret" not in str(raised.value)


def test_the_tracking_store(closed):
    with pytest.raises(TrackingUnavailable, match=r"://me:\*\*\*@.* does not answer") as raised:
        check_reachable(closed)
    assert "s3cret" not in str(raised.value)


def test_a_database_of_mlflow_is_not_mixed_with_a_study_s(tmp_path):
    import mlflow

    url = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.MlflowClient(url).search_experiments()
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(InputError, match="holds the tables of something else"):
        studies.open_storage(url)
    assert (tmp_path / "mlflow.db").read_bytes() == before


def test_an_address_without_an_end_is_read_in_time_that_grows_with_it():
    """Steps, not seconds: what is behind each `://` is looked at up to a bound."""
    assert databases._USER.pattern.count("{0,4096}") == 2
    text = "://a:" * 2000
    assert databases.without_password(text) == text
    long = "x" * 3000
    assert databases.without_password(f"http://me:{long}@h/") == "http://me:***@h/"


def test_values_whose_key_is_secret_are_hidden():
    given = {"user": "me", "password": "hunter2", "more": [{"api_key": 5, "n": 1}], "token": None}
    assert databases.without_secrets(given) == {
        "user": "me",
        "password": "***",
        "more": [{"api_key": "***", "n": 1}],
        "token": None,
    }
