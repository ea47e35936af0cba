from __future__ import annotations

import pytest

from netzip_mlflow.report.caveats import doubts
from netzip_mlflow.report.ranking import arrange
from netzip_mlflow.scoring import Choice


def told(frame, choice, terms="P,S,C", noisy=()):
    parts = arrange(frame)
    return "\n".join(doubts(parts, parts.find(choice.named), choice, terms, noisy))


def test_what_is_always_uncertain(frame, choice):
    said = told(frame, choice)
    assert "another training seed" in said
    assert "Energy was not measured: the E term is left out of every score." in said
    assert "Energy" not in told(frame, choice, terms="P,S,C,E")


def test_noise_and_flags(frame, choice):
    frame["flags"] = ["", "", "", "calibration was cut short", "", "", ""]
    said = told(frame, choice, noisy=["A/A ratio 1.07 [1.03, 1.11] does not contain 1"])
    assert "Timing is flagged noisy: A/A ratio 1.07 [1.03, 1.11] does not contain 1." in said
    assert "int8: calibration was cut short." in said


def test_a_drop_that_may_be_none(frame, choice):
    assert "four_bit: the drop's interval, 0.16 [−0.14, 0.46] points, contains 0." in told(
        frame, choice
    )
    worse = Choice(None, "half_macs", "")
    assert "the drop would lie between 2.00 and 2.60 points" in told(frame, worse)


def test_latencies_that_did_not_change_are_named(frame, choice):
    assert "No measurable change of latency: half, dead." in told(frame, choice)


def test_a_clear_winner(frame, choice):
    assert "The second, int8, has OCS 5.92 on validation against 9.56: more than the noise" in told(
        frame, choice
    )


@pytest.mark.parametrize(("ocs", "settled"), [(9.52, False), (9.46, False), (9.44, True)])
def test_the_order_of_the_first_two(frame, choice, ocs, settled):
    """0.5 points of 88.75 % are 0.00563 of P: OCS 9.56 moves by 0.054, the other by as much."""
    frame.loc[frame["name"] == "int8", "validation/score/ocs"] = ocs
    assert ("is not settled" not in told(frame, choice)) is settled


def test_a_flag_that_many_share_is_said_once(frame, choice):
    frame = frame.loc[frame.index.repeat(4)].reset_index(drop=True)
    frame["name"] = [f"{name}-{n}" if n % 4 else name for n, name in enumerate(frame["name"])]
    frame["flags"] = "macs-differ"
    (said,) = (line for line in told(frame, choice).splitlines() if "macs-differ" in line)
    assert said.startswith("baseline, ")
    assert said.endswith(" and 14 more: macs-differ.")
