"""Where the cache is, how large it may be, and when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from netzip_mlflow.cache import StageCache
from netzip_mlflow.errors import InputError


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"NETZIP_CACHE": "/one", "XDG_CACHE_HOME": "/two"}, "/one/stages"),
        ({"XDG_CACHE_HOME": "/two"}, "/two/netzip/stages"),
        ({"XDG_CACHE_HOME": "not/absolute"}, "/users/me/.cache/netzip/stages"),
        ({}, "/users/me/.cache/netzip/stages"),
        ({"NETZIP_CACHE": "~/mine"}, "/users/me/mine/stages"),
    ],
)
def test_where_it_is(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/users/me")
    assert StageCache.open(environment) == StageCache(Path(folder), 2 * 2**30)


def test_its_size_can_be_set_and_zero_is_off() -> None:
    made = StageCache.open({"NETZIP_CACHE": "/one", "NETZIP_CACHE_MAX_BYTES": "12345"})
    assert made is not None
    assert made.limit == 12345
    assert StageCache.open({"NETZIP_CACHE": "/one", "NETZIP_CACHE_MAX_BYTES": "0"}) is None


@pytest.mark.parametrize("text", ["2GB", "-1", "1e9", "many"])
def test_a_size_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"NETZIP_CACHE_MAX_BYTES: '.*' given; allowed: a whole"):
        StageCache.open({"NETZIP_CACHE_MAX_BYTES": text})


def test_without_a_home_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert StageCache.open({}) is None
