from __future__ import annotations

import json
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.metrics import process
from netzip_mlflow.metrics.process import Memory, fresh_process

MIB = 1 << 20


@pytest.fixture
def heavy(tmp_path):
    """A network whose weight alone takes 48 MiB."""
    weight = numpy_helper.from_array(np.ones((3072, 4096), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4096])],
        [weight],
    )
    path = tmp_path / "heavy.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path
    )
    return path


def test_a_fresh_process_holds_at_least_the_weights(forms, heavy):
    small, large = fresh_process(forms["float"], 1), fresh_process(heavy, 1)
    assert (small.absent, large.absent) == ({}, {})
    for found in (small, large):
        assert set(found.metrics) == {"size/load_ms", "size/first_inference_ms", "size/ram_bytes"}
        assert all(figure > 0 for figure in found.metrics.values())
    assert large.metrics["size/ram_bytes"] > 48 * MIB
    assert large.metrics["size/ram_bytes"] - small.metrics["size/ram_bytes"] > 45 * MIB


def test_the_process_imports_neither_torch_nor_onnx():
    """What it imports would be memory; onnx is not needed to run a file."""
    code = (
        "import sys, netzip_mlflow.metrics.process, netzip_mlflow.runtimes.onnxruntime\n"
        "print([m for m in ('torch', 'onnx', 'pandas', 'mlflow', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["random", "types", "json", "numpy"])
def test_a_users_module_of_pythons_name_stays_theirs(forms, tmp_path, monkeypatch, name):
    (tmp_path / f"{name}.py").write_text("raise SystemExit(9)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert fresh_process(forms["float"], 1).metrics["size/load_ms"] > 0


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_reach_the_process(forms, monkeypatch, threads):
    seen = []

    def run(command, **_):
        seen.extend(command)
        answer = json.dumps({"metrics": {"size/load_ms": 1.0}, "reasons": {"size/ram_bytes": "x"}})
        return subprocess.CompletedProcess(command, 0, answer, "")

    monkeypatch.setattr(process.subprocess, "run", run)
    found = fresh_process(forms["float"], threads)
    assert seen[-2:] == [str(threads), "onnxruntime"]
    assert found.metrics == {"size/load_ms": 1.0}
    assert found.absent == {"size/ram_bytes": "x"}


def test_a_file_that_does_not_load_is_bad_input(tmp_path):
    path = tmp_path / "corrupt.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"corrupt\.onnx: ONNX Runtime .* cannot load it"):
        fresh_process(path, 1)


def test_an_open_image_size_is_bad_input(build, tmp_path):
    inputs = {"x": ["batch", 3, "height", "width"]}
    model = build([helper.make_node("Relu", ["x"], ["y"])], {}, {"y": None}, inputs=inputs)
    onnx.save(model, tmp_path / "open.onnx")
    with pytest.raises(InputError, match=r"open\.onnx: the input's size is open"):
        fresh_process(tmp_path / "open.onnx", 1)


def test_a_process_that_dies_is_said_with_its_last_words(forms, monkeypatch):
    def run(command, **_):
        return subprocess.CompletedProcess(command, -9, "", "some warning\nKilled")

    monkeypatch.setattr(process.subprocess, "run", run)
    with pytest.raises(NetzipError, match=r"float\.onnx: .* status -9: Killed"):
        fresh_process(forms["float"], 1)


def test_what_a_users_sitecustomize_prints_is_not_the_answer(forms, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("print('welcome')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert fresh_process(forms["float"], 1).metrics["size/load_ms"] > 0


@pytest.mark.parametrize(("said", "status"), [('{"metrics": {"size/l', -9), ("[]", 0), ("1", 0)])
def test_an_answer_that_is_none_fails_one_model(forms, monkeypatch, said, status):
    def run(command, **_):
        return subprocess.CompletedProcess(command, status, said, "")

    monkeypatch.setattr(process.subprocess, "run", run)
    with pytest.raises(NetzipError, match=rf"float\.onnx: .* status {status}:"):
        fresh_process(forms["float"], 1)


def test_a_process_that_is_killed_without_a_word_may_have_had_no_memory(forms, monkeypatch):
    def run(command, **_):
        return subprocess.CompletedProcess(command, -9, "", "")

    monkeypatch.setattr(process.subprocess, "run", run)
    with pytest.raises(NetzipError, match=r"status -9: .*memory runs out"):
        fresh_process(forms["float"], 1)


def test_a_process_that_cannot_be_started_is_no_traceback(forms, monkeypatch):
    def run(command, **_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(process.subprocess, "run", run)
    with pytest.raises(NetzipError, match=r"cannot be started: .*Cannot allocate memory"):
        fresh_process(forms["float"], 1)


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux only")
def test_where_memory_runs_out_the_process_goes_before_its_parent():
    code = (
        "from netzip_mlflow.metrics.process import _main\n"
        "_main(['missing.onnx', '1', 'onnxruntime'], lambda answer: None)\n"
        "print(open('/proc/self/oom_score_adj').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1000"


def test_a_process_that_hangs_is_given_up(forms, monkeypatch):
    def run(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(process.subprocess, "run", run)
    with pytest.raises(NetzipError, match="took over 300 s"):
        fresh_process(forms["float"], 1)


class TestMemory:
    @staticmethod
    def proc(folder, resident, peak, *, clearable=True):
        """A /proc/self of our own."""
        (folder / "status").write_text(f"Name:\tx\nVmHWM:\t{peak} kB\nVmRSS:\t{resident} kB\n")
        if clearable:
            (folder / "clear_refs").write_text("")
        else:
            (folder / "clear_refs").mkdir()
        return folder

    def test_the_peak_counts_from_the_reset(self, tmp_path):
        memory = Memory(self.proc(tmp_path, resident=1000, peak=9000))
        memory.reset()
        assert (tmp_path / "clear_refs").read_text() == "5"
        self.proc(tmp_path, resident=1200, peak=1500)
        assert memory.peak_above() == (500 * 1024, "")

    def test_without_a_reset_only_a_new_peak_of_the_process_tells(self, tmp_path, monkeypatch):
        peaks = iter([9000, 9000])
        monkeypatch.setattr(process, "_life_peak", lambda: next(peaks))
        memory = Memory(self.proc(tmp_path, resident=5, peak=9, clearable=False))
        memory.reset()
        found, reason = memory.peak_above()
        assert found is None
        assert "cannot reset" in reason

        peaks = iter([9000, 20_000])
        monkeypatch.setattr(process, "_life_peak", lambda: next(peaks))
        memory.reset()
        assert memory.peak_above() == (20_000 - 5 * 1024, "")

    def test_a_peak_that_has_passed_is_seen(self):
        memory = Memory()
        memory.reset()
        with mmap.mmap(-1, 32 * MIB) as block:  # of its own: malloc may have pages left to give
            for _ in range(32):
                block.write(bytes(MIB))
        found, reason = memory.peak_above()
        assert (found is None) == bool(reason)
        if found is not None:
            assert found > 30 * MIB
