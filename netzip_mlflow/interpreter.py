"""Modules of this package in a process of their own."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["command"]

# The package is taken from its own place, whatever is installed or lies in the working folder, and
# nothing is put before the standard library: a user's random.py there stays the user's.
_START = """\
import importlib.util, runpy, sys
package, module, *arguments = sys.argv[1:]
spec = importlib.util.spec_from_file_location("netzip_mlflow", package)
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
sys.argv[1:] = arguments
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def command(module: str, *arguments: str) -> list[str]:
    """What runs a module of this package as a script in a new interpreter."""
    package = Path(__file__).with_name("__init__.py").resolve()
    return [sys.executable, "-P", "-c", _START, str(package), module, *arguments]
