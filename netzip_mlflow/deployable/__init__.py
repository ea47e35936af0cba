"""Twin to deployable: the one ONNX file that ships, with `netzip.json` beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow import runtimes
from netzip_mlflow.deployable.compact import compact
from netzip_mlflow.deployable.export import INPUT, Exported, Exports, export
from netzip_mlflow.deployable.zeros import pack_zeros
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.metrics import operations

if TYPE_CHECKING:
    import onnx

    from netzip_mlflow.twin import Twin

__all__ = [
    "INPUT",
    "MANIFEST",
    "Deployable",
    "Exported",
    "Exports",
    "compact",
    "export",
    "file_digest",
    "pack_zeros",
]

MODEL, MANIFEST = "model.onnx", "netzip.json"
LAYOUTS = {2: "NCL", 3: "NCHW"}  # by axes of a sample


@dataclass(frozen=True, eq=False)
class Deployable:
    """The graph that ships and what is known of it (`manifest`, plain JSON)."""

    model: onnx.ModelProto
    manifest: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        model: onnx.ModelProto,
        twin: Twin,
        source: Exported,
        *,
        task: str,
        label: str | None = None,
        **facts: Any,
    ) -> Deployable:
        """Describe a compact graph made from an exported twin; `facts` join the manifest.

        `label` is the deploy technique's, where one made the graph: the chain ends with it, while
        the twin stays the one that was exported (and is stored).
        """
        manifest = {
            **twin.facts,
            "task": task,
            "input": {
                "name": INPUT,
                "dtype": "float32",
                "layout": LAYOUTS.get(len(twin.input.shape), "channels first"),
                "range": [0, 1],
                "shape": list(twin.input.shape),
            },
            "outputs": [
                {"name": name, "shape": list(shape)}
                for name, shape in zip(twin.outputs.names, twin.outputs.shapes, strict=True)
            ],
            "chain": [*twin.chain, *([label] if label else [])],
            "opset": {o.domain or "ai.onnx": o.version for o in model.opset_import},
            "ir_version": model.ir_version,
            "twin_digest": twin.digest(),
            "model_digest": _digest(model.SerializeToString()),
            "float_deviation": source.deviation,
            "layers": _layers(model, source.layers),
            "versions": _versions(),
            **facts,
        }
        return cls(model, manifest)

    @property
    def digest(self) -> str:
        """SHA-256 of the file's bytes, first 16 hex digits."""
        return self.manifest["model_digest"]

    def save(self, folder: Path) -> Path:
        """Write `model.onnx` and `netzip.json`; each replaces an older one whole. Returns the file.

        Raises:
            NetzipError: the folder cannot be written.
        """
        file = folder / MODEL
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _replace(file, self.model.SerializeToString())
            _replace(folder / MANIFEST, (json.dumps(self.manifest, indent=2) + "\n").encode())
        except OSError as error:
            raise NetzipError(f"{folder}: cannot be written: {error}") from error
        return file


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, first 16 hex digits.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return _digest(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read: {error}", str(path)) from None


def _layers(model: onnx.ModelProto, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Each layer's bit widths and operations, under the network's name where the counts agree."""
    found = operations.layers(model)
    known = names if len(names) == len(found) else tuple(layer.name for layer in found)
    keys = ("op", "macs", "weight_bits", "activation_bits", "weight_bytes", "parameters")
    return [
        {"name": name} | {key: getattr(layer, key) for key in keys}
        for name, layer in zip(known, found, strict=True)
    ]


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("netzip-mlflow", "torch", "onnx", *runtimes.PACKAGES)}
