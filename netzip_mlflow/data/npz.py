"""A data set in one .npz file."""

from __future__ import annotations

import zipfile
import zlib

import numpy as np

from netzip_mlflow.data.arrays import from_arrays
from netzip_mlflow.data.source import Source
from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import DataSpec, locate

__all__ = ["load"]


def load(spec: DataSpec) -> Source:
    """Read `spec.path`: the arrays that `arrays.from_arrays` describes. Nothing is unpickled.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    path = locate(spec.path or "", "data.path")
    try:
        with path.open("rb") as file:
            held = np.load(file, allow_pickle=False)
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise InputError("holds one array; allowed: an .npz of named arrays", str(path))
            arrays = {key: held[key] for key in held.files}
    except FileNotFoundError:
        raise InputError("no such file", str(path)) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot be read as .npz: {error}", str(path)) from None
    return from_arrays(arrays, name=path.stem, groups=spec.groups, origin=str(path))
