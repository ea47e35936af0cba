"""The public API: a curated list, lazy, and complete."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import netzip_mlflow

PACKAGE = Path(netzip_mlflow.__file__).parent
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages([str(PACKAGE)], "netzip_mlflow.")
    if "__main__" not in m.name
)


def _run(code: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_is_what_resolves() -> None:
    assert set(netzip_mlflow.__all__) == set(netzip_mlflow._HOMES)
    for name in netzip_mlflow.__all__:
        assert getattr(netzip_mlflow, name).__module__.startswith("netzip_mlflow.")
    assert set(netzip_mlflow.__all__) <= set(dir(netzip_mlflow))


def test_the_type_checker_sees_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name: f"{node.module}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("netzip_mlflow.")
        for alias in node.names
    }
    homes = {n: f"netzip_mlflow.{h.partition(':')[0]}" for n, h in netzip_mlflow._HOMES.items()}
    assert imported == homes


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        netzip_mlflow.nothing  # noqa: B018
    with pytest.raises(ImportError):
        exec("from netzip_mlflow import nothing")  # noqa: S102


def _signature(function: Callable[..., object]) -> str:
    return re.sub(r"<function [^>]*<lambda> at \w+>", "...", str(inspect.signature(function)))


def test_the_known_names_and_signatures(golden: Callable[[str, str], None]) -> None:
    lines = []
    for name in sorted(netzip_mlflow.__all__):
        found = getattr(netzip_mlflow, name)
        if inspect.isclass(found) and issubclass(found, Exception):
            lines.append(f"{name}: error, exit status {found.exit_status}")  # type: ignore[attr-defined]
            continue
        if hasattr(found, "model_fields"):
            lines.append(f"{name}: see recipe.schema.json")
            continue
        lines.append(f"{name}{_signature(found)}")
        if inspect.isclass(found):
            ours = [c for c in reversed(found.__mro__) if c.__module__.startswith("netzip_mlflow")]
            for key, member in sorted({k: v for c in ours for k, v in vars(c).items()}.items()):
                made = member.__func__ if isinstance(member, classmethod | staticmethod) else member
                if inspect.isfunction(made) and made.__name__[0] not in "_<":
                    lines.append(f"  .{key}{_signature(made)}")
    golden("public_api.txt", "\n".join(lines) + "\n")


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"torch", "mlflow", "pandas", "numpy", "onnx", "onnxruntime", "matplotlib", "pydantic"}
    code = f"import sys, netzip_mlflow; print(sorted({heavy!r} & sys.modules.keys()))"
    assert _run(code) == "[]\n"


def test_the_light_rooms_load_no_torch() -> None:
    code = (
        "import sys\n"
        "from netzip_mlflow import recipe, scoring, statistics, techniques, metrics\n"
        "from netzip_mlflow.metrics import catalogue, latency, operations, size, machine\n"
        "from netzip_mlflow.runtimes import onnxruntime\n"
        "heavy = {'torch', 'torchvision', 'pandas', 'matplotlib', 'mlflow'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    assert _run(code) == "[]\n"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lists_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, "a module says what it is for"
    offered = getattr(module, "__all__", [])
    assert len(set(offered)) == len(offered)
    assert [n for n in offered if not hasattr(module, n)] == []


SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def _switches(**given: str) -> dict[str, str]:
    """The switches as they stand after the import, where these were given."""
    environment = {k: v for k, v in os.environ.items() if k not in SWITCHES} | given
    code = "import os, json, netzip_mlflow; print(json.dumps(dict(os.environ)))"
    found = json.loads(_run(code, environment))
    return {name: found[name] for name in SWITCHES}


def test_no_library_reports_to_its_maker() -> None:
    assert _switches() == SWITCHES
    assert _switches(ORT_DISABLE_TELEMETRY="") == SWITCHES  # which ONNX Runtime takes for on


def test_a_choice_of_the_user_s_own_stands() -> None:
    assert _switches(MLFLOW_DISABLE_TELEMETRY="false")["MLFLOW_DISABLE_TELEMETRY"] == "false"


def test_onnx_runtime_leaves_nothing_in_the_home(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in SWITCHES}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    _run("import netzip_mlflow.runtimes.onnxruntime", environment)
    assert list(tmp_path.rglob("*")) == []
