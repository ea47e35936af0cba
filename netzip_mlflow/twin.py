"""The twin: the float torch model as it stands after a chain's float techniques.

Saved as `twin.safetensors` (weights and masks) and `twin.json` (architecture and its arguments,
the ordered structural edits, input, outputs, facts), so that it rebuilds exactly, without pickle
and without running again, on data, the code that made the edits.
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
from netzip_mlflow.signature import InputSpec, OutputSpec, check, outputs_of

if TYPE_CHECKING:
    import torch

__all__ = ["Architecture", "Edit", "Grid", "InputSpec", "OutputSpec", "Twin"]

WEIGHTS, DESCRIPTION = "twin.safetensors", "twin.json"
FORMAT, OLDER = 2, 1


@dataclass(frozen=True)
class Architecture:
    """Where a network's class comes from: a name of the table, or a factory `module:function`.

    `arguments` are those of the task (`num_classes`, where it has classes) and of the recipe.
    """

    kind: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def build(self, shape: tuple[int, ...], outputs: OutputSpec) -> torch.nn.Module:
        """A network with fresh weights, in eval mode, for samples of a shape.

        Raises:
            InputError: there is no such network, or it does not take such samples and arguments or
                give such outputs.
        """
        from netzip_mlflow import models

        if self.kind == "name":
            network = models.build(self.name, shape, self.arguments)
        else:
            network = models.build_factory(self.name, self.arguments)
        check(network, shape, outputs, f"model: {self.name}")
        return network


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
    `facts` (JSON) is what the task says of its answers, such as names of classes.
    `masks` holds, per weight name, a bool tensor that is False where a pruning set a zero.
    `grids` says, per layer, on which values its weights lie (`Grid`); `ptq` stores them so.
    """

    model: torch.nn.Module
    input: InputSpec
    outputs: OutputSpec
    architecture: Architecture | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
    chain: tuple[str, ...] = ()
    grids: Mapping[str, Grid] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: torch.nn.Module,
        *,
        shape: tuple[int, ...],
        outputs: OutputSpec | None = None,
        facts: Mapping[str, Any] | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> Twin:
        """Wrap any network. Without `outputs` it is asked what it answers; without mean and std it
        is taken to normalise its input itself.

        Raises:
            InputError: it does not take samples of the shape.
        """
        network = copy.deepcopy(model).eval()
        spec = InputSpec(shape, mean or (0.0,) * shape[0], std or (1.0,) * shape[0])
        outputs = outputs or OutputSpec.asked(network, shape, "the network")
        return cls(network, spec, outputs, facts=facts or {})

    def network(self) -> torch.nn.Module:
        """A module that shares the weights: float32 (n, C, ...) in [0, 1] to the outputs, a tuple
        in the spec's order where there are several."""
        import torch

        plain = not any(self.input.mean) and set(self.input.std) == {1.0}
        first = torch.nn.Identity() if plain else _normalise(self.input)
        last = [_in_order(self.outputs)] if len(self.outputs.names) > 1 else []
        return torch.nn.Sequential(first, self.model, *last).eval()

    def copy(self) -> Twin:
        """The same twin with weights of its own."""
        return self.replace(model=copy.deepcopy(self.model))

    def replace(self, **changes: Any) -> Twin:
        """A twin with some fields changed."""
        return dataclasses.replace(self, **changes)

    def digest(self) -> str:
        """SHA-256 over description, weights and masks, first 16 hex digits."""
        return _digest(self._description(), self._tensors())

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
    def load(cls, folder: Path, allow: Collection[str] = (), digest: str = "") -> Twin:
        """Rebuild a saved twin: architecture, then every edit in order, then the weights.

        Args:
            allow: the functions, as "module:function", that it may import and call beside this
                package's and those of installed entry points.
            digest: what `digest` gave before it was saved, where that is known.

        Raises:
            InputError: a file is missing, damaged or not ours, or does not fit the architecture;
                the twin names a function that is not allowed, of which nothing has been imported
                then.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            saved = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"no twin can be read: {error}", str(folder)) from None
        form = saved.get("format") if isinstance(saved, dict) else None
        if form not in (FORMAT, OLDER):
            raise InputError(f"a twin of format {form}; allowed: {FORMAT}, {OLDER}", str(folder))
        try:
            stored = _stored(saved if form == FORMAT else _renewed(saved), tensors)
            _require_allowed(folder, stored.architecture, stored.edits, allow)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"no twin can be read: {DESCRIPTION} is incomplete: {error}", str(folder)
            ) from None
        model = stored.architecture.build(stored.input.shape, stored.outputs)
        for edit in stored.edits:
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
        if digest and (now := _digest(saved, tensors)) != digest:
            raise InputError(f"the twin is damaged: its digest is {now}, not {digest}", str(folder))
        return cls(model=model.eval(), **vars(stored))

    def _tensors(self) -> dict[str, torch.Tensor]:
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        masks = {f"mask.{k}": v for k, v in self.masks.items()}
        return state | masks | {f"grid.{k}": v.scale for k, v in self.grids.items()}

    def _description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "architecture": dataclasses.asdict(self.architecture) if self.architecture else None,
            "input": dataclasses.asdict(self.input),
            "outputs": dataclasses.asdict(self.outputs),
            "facts": dict(self.facts),
            "edits": [dataclasses.asdict(edit) for edit in self.edits],
            "chain": list(self.chain),
            "grids": {name: grid.form for name, grid in self.grids.items()},
        }


@dataclass(frozen=True, eq=False)
class _Stored:
    """The fields of a saved twin but its network."""

    input: InputSpec
    outputs: OutputSpec
    architecture: Architecture
    facts: Mapping[str, Any]
    edits: tuple[Edit, ...]
    masks: Mapping[str, torch.Tensor]
    chain: tuple[str, ...]
    grids: Mapping[str, Grid]


def _stored(saved: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> _Stored:
    """Raises KeyError or TypeError where something is missing or of another kind."""
    outputs = saved["outputs"]
    return _Stored(
        InputSpec(**{k: tuple(saved["input"][k]) for k in ("shape", "mean", "std")}),
        OutputSpec(tuple(outputs["names"]), tuple(map(tuple, outputs["shapes"]))),
        Architecture(**saved["architecture"]),
        dict(saved["facts"]),
        tuple(Edit(**edit) for edit in saved["edits"]),
        {k.removeprefix("mask."): v for k, v in tensors.items() if k.startswith("mask.")},
        tuple(saved["chain"]),
        {k: Grid(form, tensors[f"grid.{k}"]) for k, form in saved.get("grids", {}).items()},
    )


def _renewed(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A description of format 1, whose networks all gave one score a class."""
    classes, architecture = saved["classes"], dict(saved["architecture"])
    architecture["arguments"] = {"num_classes": len(classes)} | architecture["arguments"]
    outputs = {"names": ["scores"], "shapes": [[len(classes)]]}
    facts = {"classes": classes}
    return {**saved, "architecture": architecture, "outputs": outputs, "facts": facts}


def _digest(description: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    sha = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


def _normalise(spec: InputSpec) -> torch.nn.Module:
    import torch

    a_channel = (1, -1, *[1] * (len(spec.shape) - 1))

    class Normalise(torch.nn.Module):
        """(x - mean) / std per channel."""

        def __init__(self) -> None:
            super().__init__()
            self.mean = torch.nn.Buffer(torch.tensor(spec.mean).view(a_channel))
            self.std = torch.nn.Buffer(torch.tensor(spec.std).view(a_channel))

        def forward(self, samples: torch.Tensor) -> torch.Tensor:
            return (samples - self.mean) / self.std

    return Normalise()


def _in_order(spec: OutputSpec) -> torch.nn.Module:
    import torch

    class InOrder(torch.nn.Module):
        """Several outputs, however a network gives them, as a tuple."""

        def forward(self, value: Any) -> tuple[torch.Tensor, ...]:
            return outputs_of(value, spec.names)

    return InOrder()


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
