"""The twin: the float torch model as it stands after a chain's float techniques.

Saved as `twin.safetensors` (weights and masks) and `twin.json` (architecture and its arguments,
the ordered structural edits, input, classes), so that it rebuilds exactly, without pickle and
without running again, on data, the code that made the edits.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow import edits as structural
from netzip_mlflow.edits import Edit
from netzip_mlflow.errors import InputError, NetzipError, Problem

if TYPE_CHECKING:
    import torch

__all__ = ["Architecture", "Edit", "Grid", "InputSpec", "Twin"]

WEIGHTS, DESCRIPTION = "twin.safetensors", "twin.json"
FORMAT = 1


@dataclass(frozen=True)
class InputSpec:
    """One sample as the deployable takes it: float32 (C, H, W) in [0, 1]; mean, std per channel."""

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.shape[0]:
                raise InputError(
                    f"model.{name}: {len(values)} values given for images of "
                    f"{self.shape[0]} channels; allowed: one per channel"
                )


@dataclass(frozen=True)
class Architecture:
    """Where a network's class comes from: a name of the table, or a factory `module:function`."""

    kind: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def build(self, classes: int, shape: tuple[int, int, int]) -> torch.nn.Module:
        """A network with fresh weights, in eval mode."""
        from netzip_mlflow import models

        make = models.build if self.kind == "name" else models.build_factory
        channels, height, width = shape
        return make(
            self.name,
            classes=classes,
            channels=channels,
            size=(height, width),
            arguments=self.arguments,
        )


@dataclass(frozen=True, eq=False)
class Grid:
    """weight = scale of its output channel x an integer code that `form` can store.

    `form` is a name of `deployable.forms.FORMS`; `scale` float32 (output channels,), positive.
    """

    form: str
    scale: torch.Tensor

    def codes(self, weight: torch.Tensor) -> torch.Tensor:
        """The codes of a weight (output channels, ...) that lies on the grid, int8."""
        import torch

        shape = (-1, *(1,) * (weight.ndim - 1))
        return torch.round(weight.detach() / self.scale.to(weight.device).view(shape)).to(
            torch.int8
        )


@dataclass(frozen=True, eq=False)
class Twin:
    """A float network with all that is needed to rebuild and export it.

    `model` takes normalised input; `network()` takes the deployable's input. `architecture` is
    None for a plain module of the user's own: it can be deployed, but not saved as a twin.
    `masks` holds, per weight name, a bool tensor that is False where a pruning set a zero.
    `grids` says, per layer, on which values its weights lie (`Grid`); `ptq` stores them so.
    """

    model: torch.nn.Module
    input: InputSpec
    classes: tuple[str, ...]
    architecture: Architecture | None = None
    edits: tuple[Edit, ...] = ()
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
    chain: tuple[str, ...] = ()
    grids: Mapping[str, Grid] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: torch.nn.Module,
        *,
        shape: tuple[int, int, int],
        classes: int | tuple[str, ...],
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> Twin:
        """Wrap any classifier. Without mean and std it is taken to normalise its input itself."""
        names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
        spec = InputSpec(shape, mean or (0.0,) * shape[0], std or (1.0,) * shape[0])
        return cls(model=copy.deepcopy(model).eval(), input=spec, classes=names)

    def network(self) -> torch.nn.Module:
        """A module that shares the weights: float32 NCHW in [0, 1] to scores (n, classes)."""
        import torch

        plain = not any(self.input.mean) and set(self.input.std) == {1.0}
        first = torch.nn.Identity() if plain else _normalise(self.input)
        return torch.nn.Sequential(first, self.model).eval()

    def copy(self) -> Twin:
        """The same twin with weights of its own."""
        return self.replace(model=copy.deepcopy(self.model))

    def replace(self, **changes: Any) -> Twin:
        """A twin with some fields changed."""
        return dataclasses.replace(self, **changes)

    def digest(self) -> str:
        """SHA-256 over description, weights and masks, first 16 hex digits."""
        sha = hashlib.sha256(json.dumps(self._description(), sort_keys=True).encode())
        for name, tensor in sorted(self._tensors().items()):
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write the two files into `folder` (made if missing).

        Raises:
            NetzipError: the network came as a plain module, so nothing could rebuild it; or the
                folder cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if self.architecture is None:
            raise NetzipError(
                "a plain module has no twin to save: name an architecture or a factory"
                " (module:function) to get one; its deployable is not affected"
            )
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in self._tensors().items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / WEIGHTS)
            (folder / DESCRIPTION).write_text(
                json.dumps(self._description(), indent=2) + "\n", encoding="utf-8"
            )
        except (OSError, SafetensorError) as error:
            raise NetzipError(f"{folder}: cannot be written: {error}") from error

    @classmethod
    def load(cls, folder: Path, allow: Collection[str] = ()) -> Twin:
        """Rebuild a saved twin: architecture, then every edit in order, then the weights.

        Args:
            allow: the functions, as "module:function", that it may import and call beside this
                package's and those of installed entry points.

        Raises:
            InputError: a file is missing, is not ours, or does not fit the architecture; the twin
                names a function that is not allowed, of which nothing has been imported then.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            saved = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"no twin can be read: {error}", str(folder)) from None
        form = saved.get("format") if isinstance(saved, dict) else None
        if form != FORMAT:
            raise InputError(f"a twin of format {form}; allowed: {FORMAT}", str(folder))
        try:
            given = {k: tuple(saved["input"][k]) for k in ("shape", "mean", "std")}
            classes, chain = tuple(saved["classes"]), tuple(saved["chain"])
            architecture = Architecture(**saved["architecture"])
            edits = tuple(Edit(**edit) for edit in saved["edits"])
            grids = {
                k: Grid(form, tensors[f"grid.{k}"]) for k, form in saved.get("grids", {}).items()
            }
            _require_allowed(folder, architecture, edits, allow)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"no twin can be read: {DESCRIPTION} is incomplete: {error}", str(folder)
            ) from None
        spec = InputSpec(**given)
        model = architecture.build(len(classes), spec.shape)
        for edit in edits:
            model = structural.replay(model, edit)
        weights = {
            k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")
        }
        try:
            model.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise InputError(
                f"the weights do not fit the rebuilt network: {error}", str(folder)
            ) from None
        return cls(
            model=model.eval(),
            input=spec,
            classes=classes,
            architecture=architecture,
            edits=edits,
            masks={k.removeprefix("mask."): v for k, v in tensors.items() if k.startswith("mask.")},
            chain=chain,
            grids=grids,
        )

    def _tensors(self) -> dict[str, torch.Tensor]:
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        masks = {f"mask.{k}": v for k, v in self.masks.items()}
        return state | masks | {f"grid.{k}": v.scale for k, v in self.grids.items()}

    def _description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "architecture": dataclasses.asdict(self.architecture) if self.architecture else None,
            "input": dataclasses.asdict(self.input),
            "classes": list(self.classes),
            "edits": [dataclasses.asdict(edit) for edit in self.edits],
            "chain": list(self.chain),
            "grids": {name: grid.form for name, grid in self.grids.items()},
        }


def _normalise(spec: InputSpec) -> torch.nn.Module:
    import torch

    class Normalise(torch.nn.Module):
        """(x - mean) / std per channel."""

        def __init__(self) -> None:
            super().__init__()
            self.mean = torch.nn.Buffer(torch.tensor(spec.mean).view(1, -1, 1, 1))
            self.std = torch.nn.Buffer(torch.tensor(spec.std).view(1, -1, 1, 1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (images - self.mean) / self.std

    return Normalise()


def _require_allowed(
    folder: Path, architecture: Architecture, edits: Sequence[Edit], allow: Collection[str]
) -> None:
    """A twin is data: whoever can write to the store must not choose what is executed here."""
    replayed = [edit.technique for edit in edits]
    if not all(isinstance(name, str) for name in (architecture.name, *replayed)):
        raise TypeError("a name that is not a string")
    factory = None if architecture.kind == "name" else architecture.name
    if foreign := ", ".join(structural.foreign(edits, factory, allow)):
        what = f"the twin would import and call {foreign}, which nothing here names"
        hint = f"where it is trusted: model.allow: [{foreign}] in the recipe"
        allowed = "what the recipe names, installed techniques"
        raise InputError(Problem("", what, allowed, hint), str(folder))
