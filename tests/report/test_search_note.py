from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from netzip_mlflow.report.search_note import About, Winner, resume, running, summary
from netzip_mlflow.report.trials import read

ABOUT = About("digits", "mine", "tpe", "drop at most 1 point", "netzip search r.yaml --study mine")
BASIS = {"basis": "accuracy=top1 speed=chats", "terms": "P,S,C"}


@pytest.fixture
def compared():
    """The baseline, trial-1 (the winner), and the recipe's `int8`, the same chain as trial 0."""

    def row(name, chain, ocs, drop, **more):
        return {
            "name": name,
            "chain": chain,
            "validation/score/ocs": ocs,
            "validation/score/feasible": 1.0,
            "validation/accuracy/top1": 0.8 - drop / 100,
            "validation/accuracy/drop_points": drop,
            "validation/accuracy/drop_points_low": drop - 0.4,
            "validation/accuracy/drop_points_high": drop + 0.4,
            "validation/ratio/P": 1 - drop / 80,
            "accuracy/top1": 0.79 - drop / 100,
            "accuracy/drop_points": drop + 0.1,
            "accuracy/drop_points_low": drop - 0.3,
            "accuracy/drop_points_high": drop + 0.5,
            "score/ocs": ocs - 0.2,
            "score/feasible": 1.0,
            "ratio/P": 0.99,
            "ratio/S": 4.0,
            "ratio/C": 7.5,
            "size/disk_bytes": 143323.0,
            **more,
        }

    base = row("baseline", "", 0.0, 0.0, kind="baseline")
    return pd.DataFrame(
        [base, row("int8", "chain-0", 5.9, 0.2), row("trial-1", "chain-1", 9.5, 0.5)]
    )


def lines_of(text: str) -> list[str]:
    return text.splitlines()


def test_running(trials):
    lines = lines_of(running(ABOUT, trials))
    # 131 s for 8 trials, 4 to come
    assert lines[0] == (
        "**Searching**: 8 of 12 trials have ended; 2.2 min at work so far, about 66 s left."
    )
    assert lines[2] == (
        "Best so far: trial-1, OCS 9.50 on validation (drop 0.50 points), `chain-1`."
    )
    assert lines[4] == (
        "Of 12 planned trials: 3 within the constraint, 1 outside the constraint, 1 the same chain "
        "again, 1 skipped by the bound, 1 stopped early, 1 failed. Besides, 1 broken off "
        "by the end of a process or of the time: what was so is tried again with the same "
        "parameters."
    )
    assert lines[-2] == "netzip search r.yaml --study mine"


def test_the_time_that_is_left_is_no_more_than_the_search_has(trials):
    assert "about 30 s left" in running(ABOUT, trials, 30.0)
    assert "about 66 s left" in running(ABOUT, trials, 1000.0)
    assert "about 0 s left" in running(ABOUT, trials, -3.0)


def test_before_anything_has_ended():
    text = running(ABOUT, read([], [], {}, 5))
    assert "0 of 5 trials have ended; 0 s at work so far." in text
    assert "No trial has been judged yet." in text
    assert "Of 5 planned trials: none has ended." in text


def test_nothing_feasible_so_far_says_what_violates_least(hopeless):
    assert (
        "Nothing is within the constraint yet; trial-0, `chain-0`, violates it least and has a "
        "drop of 2.00 points: max_drop_points by 1.00 (excess / limit, on validation)."
    ) in running(ABOUT, hopeless)


def test_summary_of_a_winner(trials, compared):
    winner = Winner("trial-1", "highest OCS", "models:/digits@best-ocs")
    lines = lines_of(summary(ABOUT, trials, compared, winner, **BASIS))
    assert lines[0] == (
        "**Winner: trial-1**, `chain-1`: highest OCS. Registered as `models:/digits@best-ocs`."
    )
    assert lines[2:8] == [
        "| | validation (chosen by) | test |",
        "|---|---|---|",
        "| OCS | 9.50 | 9.30 |",
        "| top1 | 79.50 % | 78.50 % |",
        "| drop, points | 0.50 [0.10, 0.90] | 0.60 [0.20, 1.00] |",
        "| P | 0.9938 | 0.9900 |",
    ]
    assert "S 4.00, C 7.50, 143.3 kB on disk." in lines
    assert (
        "Basis of the score: `accuracy=top1 speed=chats`; terms P,S,C. Constraint: drop at most "
        "1 point."
    ) in lines
    assert any(
        line.startswith("**What was searched**: study `mine`, 2.2 min at work, sampler `tpe`.")
        and line.endswith("4 had not ended when its time was over.")
        for line in lines
    )
    assert "- 1 failed; the first, trial-6: rank 0 at layer1" in [
        line.replace("\\n", " ") for line in lines
    ]
    assert any("`qat.lr`: 0.001 to 0.1, log" in line for line in lines)
    assert sum(line.startswith("- 1 ") for line in lines) == 4, "same, skipped, stopped, failed"


def test_the_runner_up_is_a_trial_that_was_not_compared(trials, compared):
    """dOCS = OCS / P x 0.4 / 80 for each: 9.5 / 0.99375 x 0.005 + 9.1 / 0.98875 x 0.005 = 0.094."""
    text = summary(ABOUT, trials, compared, Winner("trial-1", "why"), **BASIS)
    assert (
        "The second, trial-7, has OCS 9.10 on validation against 9.50: more than the noise of "
        "validation accuracy (about 0.09) explains."
    ) in text


def test_two_that_noise_may_have_ordered(trials, compared):
    """trial-7 at 9.45: a difference of 0.05 against 0.0478 + 0.0478."""
    near = tuple(dataclasses.replace(t, ocs=9.45) if t.number == 7 else t for t in trials.trials)
    text = summary(
        ABOUT, dataclasses.replace(trials, trials=near), compared, Winner("trial-1", "why"), **BASIS
    )
    assert "is within the noise of validation accuracy (about 0.10), so the order" in text


def test_the_same_chain_is_no_runner_up(written, compared):
    """int8 and trial 0 are one; nothing else was feasible."""
    only = read(written.rows[:1], [0], {}, 1)
    frame = compared[compared["name"] != "trial-1"]
    text = summary(ABOUT, only, frame, Winner("int8", "why"), **BASIS)
    assert "Nothing else is within the constraint: there is no runner-up." in text


def test_another_trial_under_the_same_label_may_be_second(trials, compared):
    """Labels leave out learning rates: trial 7 differs from the winner by its figures."""
    named = tuple(
        dataclasses.replace(t, chain="chain-1") if t.number == 7 else t for t in trials.trials
    )
    text = summary(
        ABOUT,
        dataclasses.replace(trials, trials=named),
        compared,
        Winner("trial-1", "why"),
        **BASIS,
    )
    assert "The second, trial-7, has OCS 9.10" in text


def test_a_candidate_of_the_recipe_stands_second_where_it_keeps_the_limits(written, compared):
    compared.loc[compared["name"] == "int8", "validation/score/ocs"] = 9.4
    few = read(written.rows[:2], [1, 0], {}, 2)
    kept = summary(ABOUT, few, compared, Winner("trial-1", "why"), **BASIS)
    assert "The second, int8," in kept
    compared.loc[compared["name"] == "int8", "validation/score/feasible"] = 0.0
    broken = summary(ABOUT, few, compared, Winner("trial-1", "why"), **BASIS)
    assert "The second, trial-0," in broken


def test_a_winner_that_test_does_not_confirm(trials, compared):
    compared.loc[compared["name"] == "trial-1", "score/feasible"] = 0.0
    text = summary(ABOUT, trials, compared, Winner("trial-1", "why"), **BASIS)
    assert "On test it is outside the constraint; the choice was made on validation." in text


def test_nothing_feasible(hopeless, compared):
    why = "int8 violates least (max_disk_mib by 1.19 of the limit)"
    first = lines_of(summary(ABOUT, hopeless, compared, None, reason=why, **BASIS))[0]
    assert first.startswith("**Nothing is within the constraint**, and nothing was registered")
    assert why in first


def test_a_long_search_fits_into_a_tag(written, compared):
    varied = {f"technique_{n}.parameter": ["a long value of it"] * 9 for n in range(60)}
    rows = [dict(written.rows[6], trial=n, reason="x" * 5000) for n in range(300)]
    rows.append(written.judged(300, "feasible", 0, 1, 9.5, 0.5, 4.0, 7.5, {}))
    text = summary(
        ABOUT, read(rows, [300], varied, 301), compared, Winner("trial-1", "why"), **BASIS
    )
    assert len(text) < 6000
    assert "60 parameters were varied" in text
    assert "and 48 more" in text


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("netzip search r.yaml", "netzip search r.yaml --study s --storage sqlite:///x.db"),
        (
            "netzip search --study old r.yaml --storage postgresql://me:secret@h/d --workers 2",
            "netzip search r.yaml --workers 2 --study s --storage sqlite:///x.db",
        ),
        (
            "netzip search r.yaml --study=",
            "netzip search r.yaml --study s --storage sqlite:///x.db",
        ),
        ("", "netzip search RECIPE --study s --storage sqlite:///x.db"),
    ],
)
def test_how_to_go_on(command, said):
    assert resume(command, "s", "sqlite:///x.db") == said


def test_a_password_that_is_hidden_is_asked_for(trials):
    about = dataclasses.replace(ABOUT, resume="netzip search --storage 'postgresql://me:***@h/d'")
    assert "the database's password in place of `***`" in running(about, trials)
    assert "password" not in running(ABOUT, trials)
