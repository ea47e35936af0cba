"""The folder: hits, damage, limits; what is not kept, and why."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from netzip_mlflow import techniques
from netzip_mlflow.cache import StageCache
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.techniques import TABLE, Context, Traits
from netzip_mlflow.techniques.finetune import Finetune
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.twin import Twin

FLOAT = [name for name in TABLE if techniques.find(name).traits.kind == "float"]
WORK = Finetune(epochs=1, lr=0.05)


def _entries(cache: StageCache) -> list[str]:
    return sorted(p.name for p in cache.folder.iterdir())


def _equal(one: Twin, two: Twin) -> bool:
    states = one.model.state_dict(), two.model.state_dict()
    return (
        one.digest() == two.digest()
        and one.chain == two.chain
        and states[0].keys() == states[1].keys()
        and all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    )


@pytest.mark.parametrize("name", FLOAT)
def test_a_hit_is_bit_equal_to_the_work(
    name: str, cache: StageCache, twin: Twin, context: Context
) -> None:
    technique = techniques.find(name)()
    plain = technique.apply(twin, context)
    first, second = (cache.apply(technique, twin, context) for _ in range(2))
    assert (first.hit, second.hit) == (False, True)
    assert first.key == second.key
    assert first.seconds == second.seconds > 0, "a hit tells how long the work took"
    for applied in (first, second):
        assert isinstance(applied.result, Twin)
        assert _equal(applied.result, plain)
    images = torch.rand(4, *twin.input.shape)
    with torch.no_grad():
        assert torch.equal(second.result.network()(images), plain.network()(images))


def test_a_hit_skips_the_work(
    cache: StageCache, trainings: list, twin: Twin, context: Context
) -> None:
    for _ in range(3):
        cache.apply(WORK, twin, context)
    assert trainings == [WORK]
    cache.apply(Finetune(epochs=2), twin, context)
    assert len(trainings) == 2


def test_two_chains_share_their_beginning(
    cache: StageCache, trainings: list, twin: Twin, context: Context
) -> None:
    chains = [
        (PruneL1(0.5), WORK, PruneL1(0.6)),
        (PruneL1(0.5), WORK, PruneL1(0.7), WORK),
        (PruneL1(0.6), WORK),
    ]
    made = []
    for chain in chains:
        stands, hits = twin, []
        for technique in chain:
            applied = cache.apply(technique, stands, context)
            stands, hits = applied.result, [*hits, applied.hit]
        made.append(hits)
    assert made == [[False] * 3, [True, True, False, False], [False, False]]
    assert len(trainings) == 3


def test_an_entry_holds_no_pickle(cache: StageCache, twin: Twin, context: Context) -> None:
    applied = cache.apply(WORK, twin, context)
    assert _entries(cache) == [applied.key]
    files = sorted(p.name for p in (cache.folder / applied.key).iterdir())
    assert files == ["entry.json", "twin.json", "twin.safetensors"]
    entry = json.loads((cache.folder / applied.key / "entry.json").read_text())
    assert entry["made_from"]["technique"]["parameters"]["epochs"] == 1


# --- damage ---------------------------------------------------------------------------------------


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "a weight changed": lambda e: _flip(e / "twin.safetensors"),
    "weights cut short": lambda e: os.truncate(e / "twin.safetensors", 100),
    "weights gone": lambda e: (e / "twin.safetensors").unlink(),
    "description changed": lambda e: (e / "twin.json").write_text("{}"),
    "description gone": lambda e: (e / "twin.json").unlink(),
    "entry empty": lambda e: (e / "entry.json").write_text(""),
    "entry of another kind": lambda e: (e / "entry.json").write_text("[1]"),
    "entry without digests": lambda e: (e / "entry.json").write_text('{"files": {}}'),
    "entry binary": lambda e: (e / "entry.json").write_bytes(b"\xff\xfe\x00"),
    "entry gone": lambda e: (e / "entry.json").unlink(),
    "all gone": lambda e: [f.unlink() for f in e.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_computed_again(
    damage: str, cache: StageCache, trainings: list, twin: Twin, context: Context
) -> None:
    first = cache.apply(WORK, twin, context)
    DAMAGE[damage](cache.folder / first.key)
    notes: list[str] = []
    second = cache.apply(WORK, twin, context, notes.append)
    assert not second.hit
    assert _equal(first.result, second.result)
    assert [n.startswith(f"cache: entry {first.key} was damaged") for n in notes] == [True]
    assert cache.apply(WORK, twin, context).hit, "it is whole again"
    assert len(trainings) == 2
    assert _entries(cache) == [first.key], "nothing else is left behind"


def test_an_entry_that_vanishes_while_it_is_read(
    cache: StageCache, twin: Twin, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has dropped it: no damage, only work."""
    first = cache.apply(WORK, twin, context)
    load, entry = Twin.load, cache.folder / first.key

    def too_late(folder: Path, allow: frozenset[str]) -> Twin:
        if folder == entry and entry.exists():
            for file in entry.iterdir():
                file.unlink()
            entry.rmdir()
        return load(folder, allow)

    monkeypatch.setattr(Twin, "load", too_late)
    notes: list[str] = []
    second = cache.apply(WORK, twin, context, notes.append)
    assert (second.hit, notes) == (False, [])
    assert _equal(first.result, second.result)


def test_an_entry_that_names_code_is_not_loaded_where_nothing_allows_it(
    cache: StageCache, twin: Twin, context: Context
) -> None:
    assert cache.apply(WORK, twin, context).key
    notes: list[str] = []
    strict = replace(cache, allow=frozenset())
    assert not strict.apply(WORK, twin, context, notes.append).hit
    assert all("tiny_networks:tiny" in note for note in notes)
    assert notes


def test_nothing_half_written_is_ever_there(
    cache: StageCache, twin: Twin, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever interrupts a writer, no entry of that key appears and no rest stays."""
    applied = cache.apply(WORK, twin, context)
    cache._drop(cache.folder / applied.key)
    seen: list[list[str]] = []
    save = Twin.save

    def interrupted(self: Twin, folder: Path) -> None:
        save(self, folder)
        seen.append(_entries(cache))
        raise KeyboardInterrupt

    monkeypatch.setattr(Twin, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.apply(WORK, twin, context)
    assert [name.startswith(".new-") for name in seen[0]] == [True]
    assert _entries(cache) == []


# --- limits ---------------------------------------------------------------------------------------


def _fake(cache: StageCache, name: str, size: int, used: int) -> Path:
    folder = cache.folder / (name * 32)
    folder.mkdir(parents=True)
    (folder / "twin.safetensors").write_bytes(bytes(size))
    os.utime(folder, (used, used))
    return folder


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = StageCache(tmp_path, limit=1000)
    old, middle, new = (_fake(cache, n, 400, t) for n, t in (("a", 100), ("b", 300), ("c", 200)))
    cache.tidy()
    assert [f.exists() for f in (old, middle, new)] == [False, True, True]
    cache.tidy()
    assert [f.exists() for f in (old, middle, new)] == [False, True, True]
    StageCache(tmp_path, limit=500).tidy()
    assert [f.exists() for f in (middle, new)] == [True, False]
    StageCache(tmp_path, limit=399).tidy()
    assert list(tmp_path.iterdir()) == []


def test_a_hit_counts_as_use(cache: StageCache, twin: Twin, context: Context) -> None:
    first, second = (cache.apply(t, twin, context) for t in (PruneL1(0.4), PruneL1(0.5)))
    for applied, used in ((first, 100), (second, 200)):
        os.utime(cache.folder / applied.key, (used, used))
    assert cache.apply(PruneL1(0.4), twin, context).hit
    size = sum(f.stat().st_size for f in (cache.folder / first.key).iterdir())
    StageCache(cache.folder, limit=size + 100).tidy()
    assert _entries(cache) == [first.key]


def test_storing_keeps_to_the_limit(cache: StageCache, twin: Twin, context: Context) -> None:
    applied = cache.apply(PruneL1(0.1), twin, context)
    size = sum(f.stat().st_size for f in (cache.folder / applied.key).iterdir())
    small = replace(cache, limit=int(2.5 * size))
    kept = [small.apply(PruneL1(0.1 + i / 10), twin, context).key for i in range(1, 5)]
    assert _entries(small) == sorted(kept[-2:])


def test_what_exceeds_the_limit_alone_drops_nothing_else(
    cache: StageCache, twin: Twin, context: Context
) -> None:
    cache = replace(cache, limit=1000)
    other = _fake(cache, "a", 900, 100)
    notes: list[str] = []
    cache.apply(PruneL1(0.5), twin, context, notes.append)
    assert list(cache.folder.iterdir()) == [other]
    assert len(notes) == 1
    assert notes[0].endswith("bytes, the cache holds 1,000")


def test_other_files_in_the_folder_are_never_touched(tmp_path: Path) -> None:
    for name in ("thesis", "a" * 31, "A" * 32, ".config"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(100))
    cache = StageCache(tmp_path, limit=1)
    _fake(cache, "b", 100, 100)
    cache.tidy()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["thesis", "a" * 31, "A" * 32, ".config"]
    )


def test_what_dead_processes_left_goes_after_an_hour(tmp_path: Path) -> None:
    for name, age in ((".new-dead", 4000), (".old-dead", 4000), (".new-busy", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "twin.json").write_text("{}")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    StageCache(tmp_path).tidy()
    assert [p.name for p in tmp_path.iterdir()] == [".new-busy"]


# --- what is not kept -----------------------------------------------------------------------------


def test_deploy_techniques_are_not_kept(cache: StageCache, twin: Twin, context: Context) -> None:
    (technique,) = techniques.chain([{"half": {}}])
    assert not cache.apply(technique, twin, context).hit
    assert not cache.folder.exists()


def test_a_plain_module_is_not_kept_and_that_is_noted(
    cache: StageCache, trainings: list, twin: Twin, context: Context
) -> None:
    plain, notes = twin.replace(architecture=None), []
    for _ in range(2):
        applied = cache.apply(WORK, plain, context, notes.append)
        assert (applied.hit, applied.key) == (False, "")
    assert len(trainings) == 2
    assert notes[0] == (
        "finetune: not cached: the network came as a plain module, which cannot be rebuilt"
    )


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, twin: Twin, context: Context
) -> None:
    (tmp_path / "file").touch()
    cache, notes = StageCache(tmp_path / "file" / "below"), []
    for _ in range(2):
        assert _equal(
            cache.apply(PruneL1(), twin, context, notes.append).result,
            PruneL1().apply(twin, context),
        )
    assert [n.startswith("prune_l1(0.3): not cached: ") for n in notes] == [True, True]


@pytest.mark.parametrize(("name", "kept"), [("damp", True), ("swap", False), ("settle", False)])
def test_what_a_saved_twin_does_not_hold_is_not_kept(
    name: str, kept: bool, cache: StageCache, twin: Twin, context: Context
) -> None:
    """`settle` changes a setting that no weight and no edit tells of: read back, it is lost."""
    given = {"damp": {"factor": 0.5}, "swap": {"slope": 0.1}, "settle": {"eps": 0.5}}[name]
    (technique,) = techniques.chain([{f"own_techniques:{name}": given}])
    notes: list[str] = []
    applied = cache.apply(technique, twin, context, notes.append)
    expected = technique.apply(twin, context)
    images = torch.rand(4, *twin.input.shape)
    with torch.no_grad():
        assert torch.equal(applied.result.network()(images), expected.network()(images))
    assert cache.apply(technique, twin, context).hit == kept
    assert len(notes) == (not kept)


def test_a_setting_that_was_not_kept_is_not_confused_with_another(
    cache: StageCache, trainings: list, twin: Twin, context: Context
) -> None:
    """Same weights, same labels, another epsilon: the next technique must not hit."""
    made = []
    for eps in (1e-5, 0.5):  # the first is what the network has already
        (settle,) = techniques.chain([{"own_techniques:settle": {"eps": eps}}])
        stands = cache.apply(settle, twin, context).result
        made.append(cache.apply(WORK, stands, context))
    assert [m.hit for m in made] == [False, False]
    assert len(trainings) == 2
    assert made[1].result.model.bn1.eps == 0.5


def test_what_fails_leaves_nothing(cache: StageCache, twin: Twin, context: Context) -> None:
    for _ in range(2):
        with pytest.raises(NetzipError, match="leaves no layer"):
            cache.apply(PruneL1(keep="*"), twin, context)
    assert not cache.folder.exists()


@dataclass(frozen=True)
class Wrong:
    """Says float, and ships."""

    traits = Traits("own", "float", "wrong")

    def label(self) -> str:
        return "wrong"

    def apply(self, twin: Twin, context: Context):
        return techniques.find("half")().apply(twin, context)


def test_what_is_no_twin_is_handed_on(cache: StageCache, twin: Twin, context: Context) -> None:
    assert not isinstance(cache.apply(Wrong(), twin, context).result, Twin)
    assert not cache.folder.exists()
