"""The one training loop: baseline, fine-tuning and distillation all pass through `fit`."""

from __future__ import annotations

import contextlib
import copy
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow.data import augmentation
from netzip_mlflow.distillation import Teacher
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.signature import outputs_of

if TYPE_CHECKING:
    import torch

    from netzip_mlflow.data import Changes, Split
    from netzip_mlflow.distillation import Lesson
    from netzip_mlflow.recipe import TrainSpec
    from netzip_mlflow.tasks import Task
    from netzip_mlflow.twin import Twin

__all__ = ["Epoch", "Fitted", "Teacher", "choose_device", "cores", "fit", "seeded"]

VECTOR = 16  # float32 numbers in the widest vector register, AVX-512's
LOGGED = ("training/loss", "training/validation")  # by epoch


@dataclass(frozen=True)
class Epoch:
    """One pass: mean training loss, accuracy on validation (fraction), learning rate at its end."""

    number: int
    loss: float
    validation: float
    lr: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """The twin of the best epoch (0: as it came) and the history."""

    twin: Twin
    best: int
    history: tuple[Epoch, ...]


def fit(
    twin: Twin,
    split: Split,
    task: Task,
    *,
    spec: TrainSpec,
    teacher: Teacher | None = None,
    keep_start: bool = False,
    views: int = 0,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    progress: Callable[[str, float], None] = lambda _what, _done: None,
    log: Callable[[str, float, int], None] = lambda _key, _value, _step: None,
) -> Fitted:
    """Train a copy of the twin; weights under a mask that is False stay zero.

    Args:
        split: what is trained on.
        task: whose loss is lowered, and on whose validation split the best epoch is chosen.
        spec: epochs, optimiser, schedule, augmentation, precision.
        keep_start: whether the twin as it came competes as epoch 0.
        views: 0 augments every image anew each time; N makes N augmented views of each once, of
            which epoch e shows number (e - 1) mod N. A teacher is asked once about each view (and
            once about each image where nothing is augmented).

    Raises:
        NetzipError: the loss became NaN or infinite, or the teacher does not fit the student.
    """
    import torch

    if not (spec.augment.flip or spec.augment.crop):
        views = 1  # each view is the image as it is
    with seeded(seed, threads), contextlib.ExitStack() as stack:
        student = twin.copy()
        network = _placed(student.network(), device, torch.channels_last)
        stack.enter_context(_pointwise_subsampled(network))
        lesson = None
        if teacher is not None:
            _placed(teacher.network, device, torch.channels_last)
            again = views if views < spec.epochs else 0
            lesson = stack.enter_context(
                teacher.lesson(network, twin.input.shape, images=len(split), views=again)
            )
        course = _Course(student, network, split, task, spec, lesson, views, seed, device)
        best = (0, task.validate(network) if keep_start else -1.0)
        best_state = copy.deepcopy(network.state_dict())
        history: list[Epoch] = []
        for number in range(1, spec.epochs + 1):
            loss = course.epoch(number, progress)
            epoch = Epoch(number, loss, task.validate(network), course.rate)
            history.append(epoch)
            for key, value in zip(LOGGED, (epoch.loss, epoch.validation), strict=True):
                log(key, value, number)
            if epoch.validation > best[1]:
                best, best_state = (number, epoch.validation), copy.deepcopy(network.state_dict())
        network.load_state_dict(best_state)
        course.end()
        _placed(network, "cpu", torch.contiguous_format).eval()
    return Fitted(student, best[0], tuple(history))


class _Course:
    """What stays the same from epoch to epoch: optimiser, schedule, order, fixed views, masks."""

    def __init__(
        self,
        student: Twin,
        network: torch.nn.Module,
        split: Split,
        task: Task,
        spec: TrainSpec,
        lesson: Lesson | None,
        views: int,
        seed: int,
        device: str,
    ) -> None:
        import torch

        self._network, self._split, self._task, self._spec = network, split, task, spec
        self._lesson, self._masks = lesson, _masks(student, device)
        self._device, self._precision = device, _precision(spec, device)
        self._steps = len(_chunks(len(split), spec.batch, torch.Generator()))
        self._optimizer, self._schedule = _optimizer(network, spec, self._steps)
        self._order = torch.Generator().manual_seed(seed)
        self._draw = partial(
            augmentation.draw,
            axes=len(split.shape) - 1,
            augment=spec.augment,
            order=self._order,
        )
        self._views = [self._draw(len(split)) for _ in range(views)]

    @property
    def rate(self) -> float:
        """The learning rate as it stands."""
        return float(self._schedule.get_last_lr()[0])

    def epoch(self, number: int, progress: Callable[[str, float], None]) -> float:
        """One pass, after which the network is in eval mode: the mean loss.

        Raises:
            NetzipError: the loss became NaN or infinite.
        """
        network, spec, total = self._network, self._spec, 0.0
        view = (number - 1) % max(len(self._views), 1)
        shown = self._views[view] if self._views else None
        network.train()
        for step, batch in enumerate(self._batches(shown)):
            outputs = _outputs(network, batch.samples, self._precision)
            value = self._task.loss(outputs, batch.targets, spec.label_smoothing)
            if self._lesson is not None:
                value = self._lesson.loss(outputs, batch.samples, value, batch.positions, view)
            self._optimizer.zero_grad(set_to_none=True)
            value.backward()
            self._optimizer.step()
            self._schedule.step()
            _apply_masks(self._masks)
            total += float(value.detach()) * len(batch.positions)
            done = (number - 1 + (step + 1) / self._steps) / spec.epochs
            progress(f"epoch {number}/{spec.epochs}", done)
        network.eval()
        if not math.isfinite(total):
            raise NetzipError(
                f"training diverged in epoch {number}: the loss is {total}; "
                f"lower lr (it is {spec.lr:g})"
            )
        return total / len(self._split)

    def _batches(self, view: Changes | None) -> Iterator[_Batch]:
        """The split in a new order, on the device; changed by the `view` of it, else by new
        draws."""
        import torch

        from netzip_mlflow.data import to_input

        split, task, device = self._split, self._task, self._device
        augmented = self._spec.augment.flip or self._spec.augment.crop
        for positions in _chunks(len(split), self._spec.batch, self._order):
            indices = positions.numpy()
            samples = torch.from_numpy(to_input(split.images[indices]))
            targets = split.targets[indices]
            changes = view.of(positions) if view else self._draw(len(positions))
            if augmented:
                samples, targets = task.augment(samples, targets, changes)
            samples = samples.to(device)
            if samples.ndim == 4:
                samples = samples.contiguous(memory_format=torch.channels_last)
            yield _Batch(samples, task.collate(targets, device), positions.to(device))

    def end(self) -> None:
        """No gradients are left: they would double every copy of the twin."""
        self._optimizer.zero_grad(set_to_none=True)


@contextlib.contextmanager
def seeded(seed: int, threads: int | None = None) -> Iterator[None]:
    """torch's global generator seeded and its thread count set, both put back afterwards."""
    import torch

    before = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(threads or cores())
        try:
            yield
        finally:
            torch.set_num_threads(before)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(wanted: str) -> str:
    """`auto` is cuda where there is one.

    Raises:
        InputError: cuda is wanted and there is none.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "train.device: 'cuda' given, and torch sees no such device; allowed: auto, cpu"
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _placed(network: torch.nn.Module, device: str, layout: torch.memory_format) -> torch.nn.Module:
    """On the device, weights in a memory layout (a plain Module's `to` is not typed for it)."""
    return network.to(device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]


@contextlib.contextmanager
def _pointwise_subsampled(network: torch.nn.Module) -> Iterator[None]:
    """Convolutions of 1x1 with a stride and few inputs: the same, as subsampling and stride 1.

    oneDNN's gradient of such weights in channels_last writes past its workspace where a group has
    fewer inputs than a vector register (uxlfoundation/oneDNN#6035; torch 2.14 has it): with AVX2
    the gradients are wrong or it hangs, with AVX-512 in bfloat16 the process dies.
    """
    from torch import nn

    def subsample(stride: tuple[int, ...]) -> Callable[..., tuple[torch.Tensor]]:
        rows, columns = stride
        return lambda _module, inputs: (inputs[0][..., ::rows, ::columns],)

    found = [
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.padding in ((0, 0), "valid")
        and module.in_channels // module.groups < VECTOR
    ]
    strides = [module.stride for module in found]
    hooks = [m.register_forward_pre_hook(subsample(m.stride)) for m in found]
    for module in found:
        module.stride = (1, 1)
    try:
        yield
    finally:
        for module, stride, hook in zip(found, strides, hooks, strict=True):
            module.stride = stride
            hook.remove()


def _optimizer(
    network: torch.nn.Module, spec: TrainSpec, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    from torch import optim

    # scales, shifts and biases are not penalised: decaying them only costs accuracy
    weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": spec.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if spec.optimizer == "sgd":
        chosen: optim.Optimizer = optim.SGD(
            groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.momentum > 0
        )
    else:
        chosen = optim.AdamW(groups, lr=spec.lr)
    total = steps * spec.epochs
    if spec.schedule == "cosine":
        return chosen, optim.lr_scheduler.CosineAnnealingLR(chosen, T_max=total)
    if spec.schedule == "onecycle":
        return chosen, optim.lr_scheduler.OneCycleLR(chosen, max_lr=spec.lr, total_steps=total + 1)
    return chosen, optim.lr_scheduler.ConstantLR(chosen, factor=1.0)


@dataclass(frozen=True, eq=False)
class _Batch:
    """float32 (n, C, ...) in [0, 1], targets as the task collates them, and where in the split they
    stand, int64 (n,)."""

    samples: torch.Tensor
    targets: Any
    positions: torch.Tensor


def _chunks(count: int, batch: int, order: torch.Generator) -> list[torch.Tensor]:
    """Shuffled positions by batch; a single one left over joins its neighbour, since BatchNorm
    refuses a batch of one where its features are 1x1."""
    import torch

    chunks = [*torch.randperm(count, generator=order).split(batch)]
    if batch > 1 and len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [torch.cat(chunks[-2:])]
    return chunks


def _precision(spec: TrainSpec, device: str) -> contextlib.AbstractContextManager[object]:
    import torch

    wanted = spec.precision == "bfloat16" or (spec.precision == "auto" and _fast_bfloat16(device))
    return torch.autocast(device, dtype=torch.bfloat16) if wanted else contextlib.nullcontext()


def _fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is arithmetic here and not an emulation, which would be slower."""
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(
        name in flags.read_text(encoding="utf-8", errors="replace")
        for name in ("avx512_bf16", "amx_bf16", " bf16 ")
    )


def _outputs(
    network: torch.nn.Module,
    samples: torch.Tensor,
    precision: contextlib.AbstractContextManager[object],
) -> tuple[torch.Tensor, ...]:
    with precision:
        outputs = outputs_of(network(samples))
    return tuple(each.float() for each in outputs)


def _masks(twin: Twin, device: str) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
    parameters = dict(twin.model.named_parameters())
    return [(parameters[name], mask.to(device)) for name, mask in twin.masks.items()]


def _apply_masks(masks: list[tuple[torch.nn.Parameter, torch.Tensor]]) -> None:
    for weight, mask in masks:
        weight.data.mul_(mask)
