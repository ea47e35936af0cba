"""An experiment's description: whatever a user wrote stays, ours is there once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow.tracking.description import BEGIN, END, LIMIT, described

# texts in which markers stand anywhere, whole blocks too
PIECES = st.sampled_from(["a", "\n", "\n\n", "# Signs", BEGIN, END, f"{BEGIN}\n\nold\n\n{END}"])
TEXTS = st.lists(PIECES, max_size=6).map("".join)


def test_ours_stands_below_and_is_replaced_there():
    first = described("# Signs\n\nOf roads.", "one")
    assert first == f"# Signs\n\nOf roads.\n\n{BEGIN}\n\none\n\n{END}"
    between = f"{first}\n\nSee also the *other* one.\n"
    assert described(between, "two") == between.replace("one\n\n<", "two\n\n<")


def test_without_a_text_of_theirs_it_is_ours_alone():
    assert described("", "one") == f"{BEGIN}\n\none\n\n{END}"
    assert described(described("", "one"), "two") == described("", "two")


@pytest.mark.parametrize("lost", [BEGIN, END])
def test_a_marker_that_was_deleted_makes_nothing_of_theirs_ours(lost):
    theirs = described("above", "one").replace(lost, "") + "\n\nbelow"
    once = described(theirs, "two")
    assert once.startswith(theirs)
    assert described(once, "three") == once.replace("two", "three")


@pytest.mark.parametrize("length", [LIMIT - 5, LIMIT, LIMIT + 1])
def test_where_there_is_no_room_theirs_is_whole_and_ours_left_out(length):
    theirs = "x" * length
    assert described(theirs, "one") == theirs
    assert described(f"{BEGIN}old{END}{theirs}", "one") == theirs


@given(TEXTS)
def test_twice_is_once_and_nothing_of_theirs_is_lost(text):
    once = described(text, "new")
    assert described(once, "new") == once
    assert once.count("\n\nnew\n\n") == 1
    if END not in text.partition(BEGIN)[2]:  # no block is in it
        assert once.startswith(text)
