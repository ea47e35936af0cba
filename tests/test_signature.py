"""What networks take and answer: one comparison for all who ask."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netzip_mlflow.errors import InputError
from netzip_mlflow.signature import OutputSpec, check, outputs_of

BOTH = OutputSpec.of(digit=(10,), centre=(2,))


class Answers(nn.Module):
    """A network that gives what a function makes of a batch."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor):
        return self.answer(len(x))


def test_outputs_come_as_a_tuple_in_the_specs_order() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert outputs_of(a) == (a,)
    assert outputs_of([a, b]) == outputs_of((a, b)) == (a, b)
    assert outputs_of({"y": b, "x": a}, ("x", "y")) == (a, b)
    assert outputs_of({"y": b, "x": a}) == (b, a)
    assert outputs_of({"y": b, "x": a}, ("x", "z")) == (b, a), "names of something else"


@pytest.mark.parametrize(
    "answer",
    [
        lambda n: (torch.zeros(n, 10), torch.zeros(n, 2)),
        lambda n: [torch.zeros(n, 10), torch.zeros(n, 2)],
        lambda n: {"centre": torch.zeros(n, 2), "digit": torch.zeros(n, 10)},
    ],
)
def test_a_network_that_fits(answer) -> None:
    check(Answers(answer), (1, 4, 4), BOTH, "model")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda n: torch.zeros(n, 10), r"model: answers 2 samples with \(2, 10\); allowed: for"),
        (lambda n: (torch.zeros(n, 2), torch.zeros(n, 10)), r"with \(2, 2\), \(2, 10\); allowed"),
        (lambda n: (torch.zeros(n, 10), torch.zeros(1, 2)), r"\(1, 2\); .* centre \(2,\)"),
        (lambda n: (), "with nothing; allowed: for each sample digit"),
        (lambda n: "ten", r"with \(\); allowed"),
    ],
)
def test_a_network_that_answers_otherwise(answer, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check(Answers(answer), (1, 4, 4), BOTH, "model")


def test_a_network_that_cannot_take_the_samples() -> None:
    with pytest.raises(InputError, match=r"model: does not take samples of 1x4x4: .*shapes"):
        check(nn.Linear(3, 10), (1, 4, 4), BOTH, "model")


def test_a_network_is_asked_what_it_answers() -> None:
    def asked(answer) -> OutputSpec:
        return OutputSpec.asked(Answers(answer), (1, 4, 4), "model")

    assert asked(lambda n: torch.zeros(n, 3)) == OutputSpec.of(output=(3,))
    assert asked(lambda n: (torch.zeros(n), torch.zeros(n, 2, 5))) == OutputSpec.of(
        output0=(), output1=(2, 5)
    )
    assert asked(lambda n: {"b": torch.zeros(n, 1)}) == OutputSpec.of(b=(1,))
