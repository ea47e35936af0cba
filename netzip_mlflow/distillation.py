"""What a teacher adds to the training loop: soft targets, attention maps, and their memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.signature import outputs_of

if TYPE_CHECKING:
    import torch

__all__ = ["Lesson", "Teacher", "attention", "matched"]

Outputs = tuple["torch.Tensor", ...]
Imitation = Callable[[Outputs, Outputs, float], "torch.Tensor"]
MEMORY = 2**30  # bytes of a teacher's answers that are kept; more are computed anew each time


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network on the deployable's input, and how its answers are imitated: by the task's
    `imitate`, at a temperature, with a weight (alpha), and by attention transfer with another
    (`features`, 0 is off)."""

    network: torch.nn.Module
    imitate: Imitation
    temperature: float
    alpha: float
    features: float = 0.0

    def soft(self, outputs: Outputs, wanted: Outputs, hard: torch.Tensor) -> torch.Tensor:
        """alpha x imitation + (1 - alpha) x hard."""
        imitation = self.imitate(outputs, wanted, self.temperature)
        return self.alpha * imitation + (1 - self.alpha) * hard

    @contextlib.contextmanager
    def lesson(
        self, student: torch.nn.Module, shape: tuple[int, ...], *, images: int, views: int
    ) -> Iterator[Lesson]:
        """A training run of a student, both networks in eval mode as they come.

        Args:
            shape: of a sample, channels first.
            images: of the training split.
            views: how many versions of each image there are and come again; 0 where none does.

        Raises:
            NetzipError: features are wanted, and the networks have no stage in common.
        """
        lesson = Lesson(self, images, views)
        hooks = []
        try:
            if self.features:
                names = matched(student, self.network, shape)
                for network, maps in ((student, lesson.given), (self.network, lesson.wanted)):
                    hooks += [
                        network.get_submodule(name).register_forward_hook(_kept(maps, name))
                        for name in names
                    ]
            yield lesson
        finally:
            for hook in hooks:
                hook.remove()
            lesson.given.clear()
            lesson.wanted.clear()


class Lesson:
    """One student's training with a teacher, which is asked once about each view of an image.

    The teacher is in eval mode, so what it says of an image depends on nothing but its pixels.
    """

    def __init__(self, teacher: Teacher, images: int, views: int) -> None:
        self.teacher = teacher
        self.given: dict[str, torch.Tensor] = {}  # maps of the student's last forward pass, by name
        self.wanted: dict[str, torch.Tensor] = {}
        self._images, self._views = images, views
        self._known: dict[int, tuple[torch.Tensor, list[torch.Tensor]]] = {}

    def loss(
        self,
        outputs: Outputs,
        pixels: torch.Tensor,
        hard: torch.Tensor,
        positions: torch.Tensor,
        view: int,
    ) -> torch.Tensor:
        """The student's loss on a batch that its network has just seen.

        Args:
            outputs: of the student, float32 (n, ...) each.
            pixels: the batch, float32 (n, C, ...) in [0, 1].
            hard: the loss by the targets.
            positions: of the images in the split, int64 (n,).
            view: which version of them it is.
        """
        answers = self._answers(pixels, positions, view)
        count = len(answers) - len(self.given)
        value = self.teacher.soft(outputs, tuple(answers[:count]), hard)
        for given, wanted in zip(self.given.values(), answers[count:], strict=True):
            distance = (attention(given) - wanted).pow(2).sum(1).mean()
            value = value + self.teacher.features / 2 * distance
        return value

    def _answers(
        self, pixels: torch.Tensor, positions: torch.Tensor, view: int
    ) -> list[torch.Tensor]:
        """Outputs, then attention maps: remembered where all of the batch is known."""
        import torch

        if view in self._known:
            done, kept = self._known[view]
            if bool(done[positions].all()):
                return [part[positions] for part in kept]
        with torch.inference_mode():
            outputs = [each.float() for each in outputs_of(self.teacher.network(pixels))]
            found = [*outputs, *(attention(self.wanted[name]) for name in self.given)]
        answers = [part.clone() for part in found]  # autograd keeps no tensor of inference mode
        if self._fits(answers):
            if view not in self._known:
                done = torch.zeros(self._images, dtype=torch.bool, device=pixels.device)
                self._known[view] = done, [a.new_empty(self._images, *a.shape[1:]) for a in answers]
            done, kept = self._known[view]
            done[positions] = True
            for whole, part in zip(kept, answers, strict=True):
                whole[positions] = part
        return answers

    def _fits(self, answers: list[torch.Tensor]) -> bool:
        size = sum(part[0].numel() * part.element_size() for part in answers)
        return 0 < self._views * self._images * size <= MEMORY


def attention(maps: torch.Tensor) -> torch.Tensor:
    """Where a layer looks: float32 (n, H W) of norm 1, from maps (n, C, H, W).

    The sum over channels of squared activations, flattened and normalised: comparable whatever the
    number of channels. Source: Zagoruyko & Komodakis, arXiv 1612.03928, section 3.1 (p = 2).
    """
    from torch.nn import functional

    return functional.normalize(maps.float().pow(2).sum(1).flatten(1), dim=1)


def matched(
    student: torch.nn.Module, teacher: torch.nn.Module, shape: tuple[int, ...]
) -> list[str]:
    """The layers that attention transfer compares: the last one of each resolution.

    Those modules count that have one name in both networks, are called once, and give 4-d maps of
    the same height and width, more than 1x1, behind the first layer with weights.

    Raises:
        NetzipError: there is none.
    """
    mine, theirs = _sizes(student, shape), _sizes(teacher, shape)
    last = {size: name for name, size in mine.items() if theirs.get(name) == size}
    if not last:
        raise NetzipError(
            "features: teacher and student have no module of one name that gives maps of one "
            "size; allowed: 0, or a student of the teacher's architecture"
        )
    return list(last.values())


def _sizes(network: torch.nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Height and width of the maps of the modules that `matched` may take, as they finish."""
    import torch

    finished: list[tuple[str, Any]] = []

    def watch(name: str) -> Any:
        return lambda _module, _given, out: finished.append((name, out))

    hooks = [m.register_forward_hook(watch(name)) for name, m in network.named_modules() if name]
    weight = next(network.parameters())
    try:
        with torch.no_grad():
            network(torch.zeros(1, *shape, device=weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    names = [name for name, _ in finished]
    learnt = {n for n, m in network.named_modules() if next(m.parameters(), None) is not None}
    first = next((i for i, name in enumerate(names) if name in learnt), len(names))
    return {
        name: (int(out.shape[2]), int(out.shape[3]))
        for name, out in finished[first:]
        if names.count(name) == 1
        and isinstance(out, torch.Tensor)
        and out.ndim == 4
        and out[0, 0].numel() > 1
    }


def _kept(maps: dict[str, torch.Tensor], name: str) -> Any:
    def hook(_module: torch.nn.Module, _given: Any, out: torch.Tensor) -> None:
        maps[name] = out

    return hook
