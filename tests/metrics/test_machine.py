from __future__ import annotations

import json
import os
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from netzip_mlflow.metrics import machine
from netzip_mlflow.metrics.machine import digest, energy_sources, fingerprint

RUNTIME = {"runtime": "onnxruntime", "version": "1", "providers": ["CPU"], "threads": 1}

X86 = """processor\t: 0
model name\t: Some Xeon 9000
flags\t\t: fpu sse2 avx2 fma avx512f avx512_vnni amx_int8 hypervisor

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm asimddp i8mm
CPU part\t: 0xd08
"""


def system(root, cpuinfo, **files):
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(cpuinfo)
    for path, text in files.items():
        file = root / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_an_x86_machine(tmp_path):
    governor = {"sys__devices__system__cpu__cpu0__cpufreq__scaling_governor": "performance\n"}
    found = fingerprint(RUNTIME, root=system(tmp_path, X86, **governor))
    assert found["cpu"] == "Some Xeon 9000"
    assert found["instruction_sets"] == ["avx2", "fma", "avx512f", "avx512_vnni", "amx_int8"]
    assert found["governor"] == "performance"


def test_an_arm_board_is_named_by_its_device_tree(tmp_path):
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text(ARM)
    (tmp_path / "proc/device-tree/model").write_text("Raspberry Pi 4 Model B\0")
    found = fingerprint(RUNTIME, root=tmp_path)
    assert found["cpu"] == "Raspberry Pi 4 Model B"
    assert found["instruction_sets"] == ["asimd", "asimddp", "i8mm"]
    assert found["governor"] is None


def test_this_machine():
    found = fingerprint(RUNTIME)
    assert set(found) == {
        "cpu",
        "instruction_sets",
        "cores",
        "governor",
        "os",
        "python",
        "packages",
        "runtime",
    }
    assert found["cpu"]
    assert 1 <= found["cores"] <= os.cpu_count()
    assert found["packages"]["numpy"] == np.__version__
    assert found["runtime"] == RUNTIME
    assert json.loads(json.dumps(found)) == found


def test_a_package_that_is_not_there_has_no_version(monkeypatch):
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "no-such-package-of-ours"))
    assert fingerprint(RUNTIME)["packages"]["no-such-package-of-ours"] is None


def test_the_digest_follows_the_content_not_the_order():
    one = fingerprint(RUNTIME)
    assert re.fullmatch(r"[0-9a-f]{12}", digest(one))
    assert digest(one) == digest(dict(reversed(one.items())))
    assert digest(one) != digest(fingerprint({**RUNTIME, "threads": 2}))


def sources(root):
    return {source.name: source for source in energy_sources(root=root)}


def test_no_rapl_is_said(tmp_path):
    rapl = sources(tmp_path)["rapl"]
    assert not rapl.available
    assert rapl.reason == "no RAPL counter under /sys/class/powercap"


def test_rapl_that_can_be_read(tmp_path):
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.parent.mkdir(parents=True)
    counter.write_text("123456\n")
    assert sources(tmp_path)["rapl"] == ("rapl", True, "1 counters can be read")
    counter.write_text("garbage")
    assert not sources(tmp_path)["rapl"].available


def test_rapl_that_may_not_be_read(tmp_path, monkeypatch):
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.parent.mkdir(parents=True)
    counter.write_text("1")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(counter), "read_text", refuse)
    rapl = sources(tmp_path)["rapl"]
    assert not rapl.available
    assert rapl.reason == ("no permission to read /sys/class/powercap/intel-rapl:0/energy_uj")


class FakeError(Exception):
    pass


def fake_nvml(*, start=True, devices=1, energy=True):
    """A pynvml of our own."""
    closed = []

    def init():
        if not start:
            raise FakeError("Driver Not Loaded")

    def consumption(_):
        if not energy:
            raise FakeError("Not Supported")
        return 1

    return SimpleNamespace(
        __spec__=SimpleNamespace(),
        NVMLError=FakeError,
        nvmlInit=init,
        nvmlShutdown=lambda: closed.append(True),
        nvmlDeviceGetCount=lambda: devices,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetTotalEnergyConsumption=consumption,
        closed=closed,
    )


@pytest.mark.parametrize(
    ("state", "available", "reason"),
    [
        ({}, True, "1 GPU(s) tell their energy"),
        ({"start": False}, False, "NVML does not start: Driver Not Loaded"),
        ({"devices": 0}, False, "NVML finds no GPU"),
        ({"energy": False}, False, "the GPU does not tell its energy: Not Supported"),
    ],
)
def test_nvml(monkeypatch, state, available, reason):
    library = fake_nvml(**state)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert ("nvml", available, reason) in energy_sources()
    assert len(library.closed) == (0 if "start" in state else 1)  # what was started is closed


def test_nvml_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    assert sources(tmp_path)["nvml"] == (
        "nvml",
        False,
        "the package nvidia-ml-py is not installed",
    )
