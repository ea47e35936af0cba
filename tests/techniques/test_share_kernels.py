"""Kernels from code books: clustering, training, the file."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
import torch
from sklearn.cluster import KMeans

from netzip_mlflow.deployable.encodings import BOOK
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.quantisation import grids
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context, code_books
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.techniques.ptq import PTQ
from netzip_mlflow.techniques.share_kernels import ShareKernels
from netzip_mlflow.twin import Architecture, InputSpec, Twin

Optimised = Callable[[onnx.ModelProto], list[str]]


@pytest.fixture(scope="module")
def deep(task: Classification) -> Twin:
    """resnet8 with random weights: seven inner 3x3 layers, two of 1x1."""
    architecture = Architecture("name", "resnet8", task.arguments)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture.build(task.shape, task.outputs)
    spec = InputSpec(task.shape, (0.4,) * 3, (0.2,) * 3)
    return Twin(model, spec, task.outputs, architecture, task.facts)


def _kernels(weight: torch.Tensor, scale: torch.Tensor) -> set[tuple[int, ...]]:
    """The kernels that differ, up to their sign, as integers."""
    codes = torch.round(weight.detach() / scale.view(-1, 1, 1, 1)).flatten(2).flatten(0, 1).int()
    found = [tuple(row) for row in codes.tolist()]
    return {max(row, tuple(-v for v in row)) for row in found}


@pytest.mark.parametrize("books", [1, 2, 5])
def test_kernels_come_from_so_many_books(
    books: int, deep: Twin, context: Context, optimised: Optimised
) -> None:
    found = code_books.rules(deep, grids.layers(deep, context.exports), books, seed=0)
    made = grids.take(grids.put(deep, found), deep)
    shared = [name for name, grid in made.grids.items() if grid.form == "kernels"]
    assert len(shared) == 6
    rules = [found[name] for name in shared]
    assert len({id(rule.book) for rule in rules}) == books  # type: ignore[attr-defined]
    for name in shared:
        weight = made.model.get_parameter(f"{name}.weight")
        assert len(_kernels(weight, made.grids[name].scale)) <= BOOK
    others = {name: grid.form for name, grid in made.grids.items() if name not in shared}
    assert set(others.values()) == {"int8"}
    kinds = optimised(PTQ().apply(made, context).model)
    assert kinds.count("QLinearConv") == 9
    assert not {"Conv", "FusedConv", "Gather", "Neg", "Concat"} & set(kinds)


def test_a_kernel_moves_by_the_mean_gradient_of_its_users(twin: Twin, context: Context) -> None:
    found = code_books.rules(twin, grids.layers(twin, context.exports), 1, seed=0)
    (rule,) = [r for r in found.values() if isinstance(r, code_books.Shared)]
    weight = twin.model.get_parameter("conv2.weight").detach()
    with torch.no_grad():
        rule.scale.fill_(float(rule.scale.square().mean().sqrt()))
    index, sign = rule.book.nearest((weight / rule.scale.view(-1, 1, 1, 1)).reshape(-1, 9))
    pull = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    (rule(weight) * pull).sum().backward()
    total = torch.zeros_like(rule.book.kernels).index_add_(0, index, pull.reshape(-1, 9) * sign)
    users = len(index) / len(rule.book.kernels)
    assert rule.book.kernels.grad is not None
    moved = rule.book.kernels.grad * rule.scale[0].detach()  # in units of weights
    torch.testing.assert_close(moved, total / users, rtol=1e-4, atol=1e-6)


def test_training_in_bfloat16_chooses_the_kernels_that_evaluation_does() -> None:
    book = code_books.Book(torch.randn(BOOK, 9, generator=torch.Generator().manual_seed(0)) * 30)
    wanted = torch.randn(20_000, 9, generator=torch.Generator().manual_seed(1)) * 30
    plain = book.nearest(wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (wanted @ wanted[:1].T).dtype == torch.bfloat16  # autocast is on
        index, sign = book.nearest(wanted)
    assert torch.equal(index, plain[0])
    assert torch.equal(sign, plain[1])


def test_more_books_follow_the_network_closer(deep: Twin, context: Context) -> None:
    def error(books: int) -> float:
        found = code_books.rules(deep, grids.layers(deep, context.exports), books, seed=0)
        made = grids.take(grids.put(deep, found), deep)
        return sum(
            float((deep.model.get_parameter(n) - w).detach().square().sum())
            for n, w in made.model.named_parameters()
        )

    assert error(5) < 0.95 * error(1)


def test_clusters_are_as_good_as_k_means_up_to_the_sign() -> None:
    """scikit-learn's k-means of the kernels and their negatives together: as many again, so that
    256 of its centres stand for 128 of ours."""
    rows = torch.randn(3000, 9, generator=torch.Generator().manual_seed(0))
    book = code_books.Book(code_books.cluster(40 * rows, torch.ones(3000), seed=0))
    index, sign = book.nearest(40 * rows)
    ours = float((40 * rows - book.kernels.detach()[index] * sign).square().mean())
    both = torch.cat([rows, -rows]).numpy() * 40
    theirs = KMeans(2 * BOOK, n_init=1, max_iter=30, random_state=0).fit(both)
    assert ours == pytest.approx(theirs.inertia_ / both.size, rel=0.05)


def test_a_cluster_weighs_errors() -> None:
    rows = torch.tensor([[1.0, 0.0], [3.0, 0.0], [-1.0, 0.0]]).repeat(200, 1)
    rows = rows + torch.arange(600)[:, None] * 1e-9
    book = code_books.cluster(rows, torch.ones(600), seed=0)
    assert {1, 3} <= {round(abs(float(k[0]))) for k in book}


def test_training_wins_accuracy_back(twin: Twin, task: Classification, context: Context) -> None:
    rules = code_books.rules(twin, grids.layers(twin, context.exports), 1, seed=0)
    (shared,) = [r for r in rules.values() if isinstance(r, code_books.Shared)]
    shared.book.kernels.data = shared.book.kernels.data[:4].clone()  # so few that it hurts
    rough = grids.put(twin, rules)
    before = task.validate(rough.network())
    trained = ShareKernels(epochs=4, lr=0.05, batch=32).train(rough, context)
    assert task.validate(trained.network()) > before + 0.05
    assert len(_kernels(*_taken(trained, twin))) <= 4


def _taken(trained: Twin, origin: Twin) -> tuple[torch.Tensor, torch.Tensor]:
    made = grids.take(trained, origin)
    return made.model.get_parameter("conv2.weight"), made.grids["conv2"].scale


def test_what_cannot_be_shared_is_said(twin: Twin, context: Context) -> None:
    with pytest.raises(NetzipError, match=r"share_kernels.books: 2 given, and 1 inner layers"):
        ShareKernels(books=2).apply(twin, context)
    with pytest.raises(NetzipError, match="conv2 is pruned"):
        ShareKernels().apply(PruneL1(0.5).apply(twin, context), context)
