"""`netzip compress` with and without the stage cache."""

from __future__ import annotations

import pytest


@pytest.fixture
def folder(place, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("NETZIP_CACHE", str(place / "cache"))
    monkeypatch.delenv("NETZIP_CACHE_MAX_BYTES")
    return place / "cache" / "stages"


def test_on_unless_it_is_switched_off(netzip, recipe, store, folder, no_pictures):
    def ruined() -> tuple[bool, str | None]:
        run = next(r for r in store.all_runs() if r.info.run_name == "ruined")
        return "from the cache, key" in ended.err, run.data.tags.get("netzip.cached")

    ended = netzip("compress", recipe, "--no-cache")
    assert (ended.status, ruined()) == (0, (False, None))
    assert not folder.exists()
    ended = netzip("compress", recipe)
    assert (ended.status, ruined()) == (0, (False, None))
    (entry,) = folder.iterdir()
    ended = netzip("compress", recipe)
    assert (ended.status, ruined()) == (0, (True, "prune_random(0.95)"))
    assert f"ruined: prune_random(0.95): from the cache, key {entry.name[:12]}" in ended.err
    ended = netzip("compress", recipe, "--no-cache")
    assert (ended.status, ruined()) == (0, (False, None))


def test_a_wrong_size_is_bad_input(netzip, recipe, store, folder, monkeypatch):
    monkeypatch.setenv("NETZIP_CACHE_MAX_BYTES", "2GB")
    ended = netzip("compress", recipe)
    assert ended.status == 2
    assert "NETZIP_CACHE_MAX_BYTES: '2GB' given; allowed: a whole number of bytes" in ended.err
    assert store.all_runs() == []
