"""Runs hostile inputs through the command line, most in one warm process, and judges each ending.

As a script it is that process: a line of JSON in for each command, a line out with its status.
By hand: `python tests/hostile_runs.py COUNT [SEED [ONLY,...]]`.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import re
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "user_code")]

import hostile  # noqa: E402

PATIENCE_S = (
    10.0  # of this process's own work on one input, which others on the machine do not slow
)
HEAVY_S = 60.0  # of one that compresses, or measures
SLOW_S = 300.0  # by the clock, on a busy machine: then it is given up
FRESH = 20  # each so many is a process of its own
STATUSES = (0, 1, 2, 3)
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NETZIP_CACHE_MAX_BYTES": "0",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "80",
    "NO_COLOR": "1",
}


class Pool:
    """One warm process; a new one where it has died or was given up."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, place: Path, arguments: tuple[str, ...], more: dict, patience: float) -> object:
        """The exit status, or how else it ended; what it said lies in `out` and `err`."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env=os.environ | ENVIRONMENT,
            )
            assert self._process.stdout
            self._process.stdout.readline()  # ready
        process = self._process
        assert process.stdin
        assert process.stdout
        request = {"place": str(place), "arguments": arguments, "environment": more}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], max(patience, SLOW_S))[0]:
            self.close()
            return f"hung over {max(patience, SLOW_S):g} s"
        line = process.stdout.readline()
        if not line:
            return f"died with {process.wait()}"
        status, seconds = json.loads(line)
        return f"took {seconds:.1f} s" if seconds > patience else status

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def serve() -> None:
    """The warm process: commands by the line, their output into files of their folder."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    import mlflow  # noqa: F401
    import torch

    from netzip_mlflow import cli
    from netzip_mlflow.report import plots

    torch.set_num_threads(1)
    from matplotlib.figure import Figure

    plots.figures = lambda *_given, **_named: {"blank": Figure()}
    calm, home, limit = dict(os.environ), sys.path.copy(), sys.getrecursionlimit()
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        os.chdir(request["place"])
        os.environ.clear()
        os.environ.update(calm | request["environment"])
        sys.path[:] = home
        sys.modules.pop("own_code", None)
        tempfile.tempdir = None
        sys.setrecursionlimit(limit)  # a user's module may have changed it
        with _said_into(Path("../out"), 1), _said_into(Path("../err"), 2):
            start = time.process_time()
            status = _status(cli.main, request["arguments"])
            seconds = time.process_time() - start
        answers.write(json.dumps([status, seconds]) + "\n")
        answers.flush()


def _status(main: object, arguments: list[str]) -> object:
    sys.argv = ["netzip", *arguments]
    try:
        main(arguments)  # type: ignore[operator]
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(ended.code)
            return 1
        return ended.code or 0
    except BaseException:  # noqa: BLE001 (that is what is looked for)
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def _said_into(file: Path, descriptor: int) -> Iterator[None]:
    kept, stream = os.dup(descriptor), (sys.stdout, sys.stderr)[descriptor - 1]
    stream.flush()
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(opened, descriptor)
    os.close(opened)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(kept, descriptor)
        os.close(kept)


class Bench:
    """A folder with what inputs need, made once, and one folder below it for each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pool = folder, Pool()
        self.things = folder / "things"
        self.things.mkdir(parents=True)
        self._prepare()

    def _prepare(self) -> None:
        import mlflow
        import numpy as np
        from conftest import tiny_images

        x_train, y_train = tiny_images(320, seed=1)
        x_test, y_test = tiny_images(120, seed=2)
        data = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
        np.savez(self.things / "stripes.npz", **data)
        (self.things / "r.yaml").write_bytes(hostile.dumped(hostile.GOOD))
        mlflow.MlflowClient(f"sqlite:///{self.things / 'mlflow.db'}").search_experiments()
        ran = self.things / "ran"
        ran.mkdir()
        for name in ("stripes.npz", "r.yaml", "mlflow.db"):
            shutil.copy(self.things / name, ran / name)
        more = {"NETZIP_CACHE": "cache", "NETZIP_CACHE_MAX_BYTES": "100000000"}
        store = f"sqlite:///{ran / 'mlflow.db'}"
        more |= {"MLFLOW_TRACKING_URI": store}
        arguments = ("compress", "r.yaml", "--only", "cut", "--quiet")
        status = self.pool.run(ran, arguments, more, 300)
        assert status == 0, (self.things / "err").read_text(encoding="utf-8")
        found = sorted(ran.rglob("model.onnx"), key=lambda p: p.stat().st_size)
        shutil.copy(found[-1], self.things / "good.onnx")

    def faults(self, given: hostile.Input) -> list[str]:
        """What is wrong with how an input ended."""
        place = self.folder / f"{given.number}" / given.folder
        self._lay(given, place)
        before = _runs(place)
        more = {"MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}"} | given.environment
        heavy = given.kind in ("cache", "ONNX") or given.arguments == ("compress", "r.yaml")
        start = time.monotonic()
        if given.number % FRESH == FRESH - 1:
            status = _fresh(place, given.arguments, more)
        else:
            status = self.pool.run(place, given.arguments, more, HEAVY_S if heavy else PATIENCE_S)
        seconds = time.monotonic() - start
        out, err = (
            (place.parent / name).read_bytes().decode("utf-8", "replace")
            if (place.parent / name).exists()
            else ""
            for name in ("out", "err")
        )
        outside = {p.name for p in place.parent.iterdir()} - {given.folder, "out", "err"}
        faults = [f"wrote {sorted(outside)} outside its folder"] if outside else []
        faults += list(_judged(given, status, out, err, before, _runs(place)))
        if not faults:
            shutil.rmtree(place.parent, ignore_errors=True)
        return [f"{fault} [{seconds:.1f} s]" for fault in faults]

    def _lay(self, given: hostile.Input, place: Path) -> None:
        place.mkdir(parents=True)
        for name in given.needs:
            source, target = self.things / name, place / name
            if name == "ran":
                for part in ("mlflow.db", "mlruns"):
                    copy = shutil.copytree if (source / part).is_dir() else shutil.copy
                    copy(source / part, place / part)
            elif name == "cache":
                shutil.copytree(self.things / "ran" / "cache", target)
            else:
                shutil.copy(source, target)
        for name, content in given.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        file, how, seed = given.damage
        if given.kind == "ONNX":
            import hostile_networks

            content = (place / "good.onnx").read_bytes()
            (place / file).write_bytes(hostile_networks.damaged(content, how, random.Random(seed)))
        elif given.kind == "cache":
            damage_cache(place / "cache" / "stages", file, how, random.Random(seed))


def _fresh(place: Path, arguments: tuple[str, ...], more: dict) -> object:
    environment = os.environ | ENVIRONMENT | more | {"PYTHONPATH": str(HERE / "user_code")}
    command = [sys.executable, "-m", "netzip_mlflow", *arguments]
    with (place.parent / "out").open("wb") as out, (place.parent / "err").open("wb") as err:
        try:
            return subprocess.run(
                command,
                cwd=place,
                env=environment,
                stdout=out,
                stderr=err,
                timeout=SLOW_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"hung over {SLOW_S:g} s"


def damage_cache(stages: Path, name: str, how: str, rng: random.Random) -> None:
    """Spoil the files of that name in every entry, or the entries themselves (no name)."""
    for entry in [p for p in stages.iterdir() if p.is_dir()]:
        whole = sorted(entry.iterdir()) if name == "*" else [entry / name if name else entry]
        for target in whole:
            content = target.read_bytes() if target.is_file() else b"{}"
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            if how in ("cut", "flip", "noise", "empty"):
                target.write_bytes(_spoiled(content, how, rng))
            elif how == "folder":
                target.mkdir()
            elif how == "link":
                target.symlink_to(rng.choice(["/nowhere", "/dev/null", str(target)]))
            elif how in ("json", "deep", "swapped"):
                odd = {"json": json.dumps(hostile.value(rng)), "deep": "[" * 9000}
                target.write_text(odd.get(how, "{}"), encoding="utf-8", errors="replace")


def _spoiled(content: bytes, how: str, rng: random.Random) -> bytes:
    if how == "noise":
        return rng.randbytes(len(content))
    if how == "empty":
        return b""
    at = rng.randrange(len(content) or 1)
    if how == "cut" or not content:
        return content[:at]
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _runs(place: Path) -> collections.Counter[str]:
    """Runs by status, over all stores below a folder."""
    found: collections.Counter[str] = collections.Counter()
    for store in place.parent.rglob("mlflow.db"):
        with (
            contextlib.closing(sqlite3.connect(store)) as opened,
            contextlib.suppress(sqlite3.Error),
        ):
            found.update(dict(opened.execute("SELECT status, COUNT(*) FROM runs GROUP BY status")))
    return found


def _judged(
    given: hostile.Input, status: object, out: str, err: str, before: dict, after: dict
) -> Iterator[str]:
    if status not in STATUSES:
        yield f"status {status}"
    if re.search(r"Traceback \(most recent|^\w+Error: |Fatal Python", err, re.MULTILINE):
        yield "traceback: " + (err.strip().splitlines() or [""])[-1][:200]
    if status and not err.strip():
        yield f"status {status} without a word"
    if after["RUNNING"]:
        yield f"{after['RUNNING']} runs RUNNING"
    if status == 2 and after != before:
        yield "status 2 left runs behind"
    if status not in (0, 3) and out.strip():
        yield f"status {status} with a result: {out[:80]!r}"
    if "--json" in given.arguments and status in (0, 3) and "--help" not in given.arguments:
        try:
            assert isinstance(json.loads(out, parse_constant=_no_constant), dict)
        except (ValueError, AssertionError):
            yield f"--json gave {out[:80]!r}"


def _no_constant(name: str) -> None:
    raise ValueError(name)


def main(count: int, seed: int, only: set[str], folder: Path) -> dict[str, list[str]]:
    """Run so many inputs; what is wrong, by kind."""
    bench, wrong = Bench(folder), collections.defaultdict(list)
    try:
        for given in hostile.inputs(count, seed):
            if only and not {given.kind, str(given.number)} & only:
                continue
            for fault in bench.faults(given):
                shown = " ".join(word[:60] for word in given.arguments)[:300]
                wrong[given.kind].append(f"{given.number}: {fault}\n      {shown!a}")
    finally:
        bench.pool.close()
    return wrong


if __name__ == "__main__":
    if len(sys.argv) == 1:
        serve()
    else:
        count, seed, only = [*sys.argv[1:], *("0", "0", "")[len(sys.argv) - 1 :]]
        place = Path(tempfile.mkdtemp(prefix="hostile-"))
        found = main(int(count), int(seed), set(filter(None, only.split(","))), place)
        for kind, faults in found.items():
            sys.stdout.write(f"{kind}: {len(faults)}\n  " + "\n  ".join(faults) + "\n")
        inputs = int(count) if not only else "some"
        faults = sum(map(len, found.values()))
        sys.stdout.write(f"{inputs} inputs, {faults} faults; folders are in {place}\n")
        if not found:
            shutil.rmtree(place)
