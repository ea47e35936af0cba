"""The outbox against a server with its own clock: order, nothing lost, nothing twice, patience."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.tracking.outbox import Outbox
from netzip_mlflow.tracking.writes import Write


class Post:
    """Takes writes, named by numbers; fails while the server is away."""

    def __init__(self, server) -> None:
        self.server = server
        self.arrived: list[int] = []
        self.again: list[int] = []

    def __call__(self, write: Write, again: bool) -> None:
        if again:
            self.again.append(write.at)
        if self.server.reason is not None:
            raise ConnectionError(self.server.reason)
        if error := write.what.get("error"):
            raise error
        self.arrived.append(write.at)


def letter(number: int, kind: str = "batch", *, error=None, file=None, run: str = "r") -> Write:
    return Write(kind, run, run, number, {"error": error}, file)


def outbox(server, post, **more) -> Outbox:
    return Outbox(
        "http://store",
        post,
        clock=server.clock,
        pause=server.pause,
        health=server.health,
        **more,
    )


@pytest.fixture
def post(server) -> Post:
    return Post(server)


@pytest.fixture
def box(server, post) -> Outbox:
    return outbox(server, post)


def test_a_write_is_sent_at_once_while_the_server_answers(server, post, box):
    box.send(letter(1))
    assert post.arrived == [1]
    assert len(box) == 0
    assert server.asked == 0, "a healthy server is not asked before every call"


def test_what_was_sent_while_away_arrives_in_order_and_before_what_came_later(server, post, box):
    server.away("connection refused")
    box.send(letter(1))
    box.send(letter(2))
    assert post.arrived == []
    assert len(box) == 2
    assert box.reason == "connection refused"
    server.back()
    server.now += 5
    box.send(letter(3))
    assert post.arrived == [1, 2, 3]
    assert box.reason is None
    assert post.again == [1], "only the first one was tried: the others cannot have arrived"


def test_work_is_not_held_up_by_tries(server, post, box):
    """A try may last as long as a lock or a time out: at most a third of the time is theirs."""

    def slow(write: Write, again: bool) -> None:
        server.now += 20
        post(write, again)

    box = outbox(server, slow)
    server.away()
    for number in range(30):
        box.send(letter(number))
        server.now += 2
    assert server.now < 30 * 2 + 20 + 20 * 30 * 2 / 40 + 1
    server.back()
    assert box.flush(0.0)
    assert post.arrived == list(range(30))


def test_flush_waits_for_the_server_and_no_longer(server, post, box):
    server.away(until=4.0)
    box.send(letter(1))
    assert box.flush(30.0)
    assert post.arrived == [1]
    assert 4.0 <= server.now < 6.0


def test_flush_gives_up_after_its_patience_and_keeps_everything(server, post, box):
    server.away("no route to host")
    box.send(letter(1))
    box.send(letter(2))
    assert not box.flush(10.0)
    assert 10.0 <= server.now <= 11.0
    assert [write.at for write in box.unsent] == [1, 2]
    assert box.reason == "no route to host"
    server.back()
    assert box.flush(0.0)
    assert post.arrived == [1, 2]


def test_patience_begins_again_with_each_success(server, post):
    """A server that takes one write in eight seconds is not away."""
    turns = iter(range(1000))

    def seldom(write: Write, again: bool) -> None:
        if next(turns) % 8:
            raise TimeoutError
        post(write, again)

    box = outbox(server, seldom)
    box.put(letter(number) for number in range(5))
    assert box.flush(10.0)
    assert post.arrived == [0, 1, 2, 3, 4]
    assert server.now > 20


def test_flush_of_nothing_takes_no_time(server, box):
    assert box.flush(30.0)
    assert server.now == 0.0


def test_figures_that_are_refused_are_an_error_and_not_repeated(post, box):
    with pytest.raises(NetzipError, match="Changing param"):
        box.send(letter(1, error=ValueError("Changing param values is not allowed")))
    box.send(letter(2))
    assert post.arrived == [2]
    assert [write.at for write in box.unsent] == [1], "it is kept, for the folder"


def test_a_file_that_is_refused_costs_that_file(server, post):
    said: list[str] = []
    box = outbox(server, post, say=said.append)
    file = Path("layers.csv")
    box.send(letter(1, "artifact", error=ValueError("413 too large"), file=file, run="small"))
    box.send(letter(2))
    assert len(said) == 1
    assert "layers.csv of small" in said[0]
    assert "413 too large" in said[0]
    assert box.refused[0].write.file == file
    assert box.flush(0.0), "nothing waits"
    assert post.arrived == [1, 2], "the run's tag that names the file, and what came later"


def test_a_refused_write_does_not_take_those_behind_it_along(server, post, box):
    """The end of a run waits behind its metrics: one refused call must not leave it RUNNING."""
    server.away()
    for each in (letter(1), letter(2, error=ValueError("no such key")), letter(3)):
        box.send(each)
    server.back()
    with pytest.raises(NetzipError, match="no such key"):
        box.flush(30.0)
    assert post.arrived == [1, 3]


def test_a_write_that_never_arrives_holds_up_no_other_run_for_ever(post, box):
    """A server's own fault, status 500, with one write only."""
    box.send(letter(1, error=TimeoutError()))
    box.send(letter(2))
    assert post.arrived == []
    assert not box.flush(10.0)
    assert post.arrived == [2]
    assert [write.at for write in box.unsent] == [1]


def test_whether_a_file_may_be_removed(server, post, box, tmp_path):
    file = tmp_path / "trial-1" / "model.onnx"
    assert not box.waits_for(file)
    server.away()
    box.send(letter(1, "artifact", file=file))
    assert box.waits_for(file)
    assert box.waits_for(file.parent), "the folder that holds it"
    assert not box.waits_for(tmp_path / "trial-2")
    server.back()
    assert box.flush(0.0)
    assert not box.waits_for(file.parent)


def test_a_server_that_leaves_again_in_the_middle_loses_and_doubles_nothing(server, post):
    def flapping(write: Write, again: bool) -> None:
        post(write, again)
        if write.at == 1:
            server.away(until=server.now + 3)

    box = outbox(server, flapping)
    server.away()
    for number in (1, 2, 3):
        box.send(letter(number))
    server.back()
    assert box.flush(30.0)
    assert post.arrived == [1, 2, 3]
    assert 3.0 <= server.now < 5.0


def test_a_refused_write_is_an_error_of_its_own_sender_only(server, post, box):
    """After an outage, another run's write is refused while this one's is sent."""
    server.away()
    box.send(letter(1, error=ValueError("no such key"), run="a"))
    server.back()
    server.now += 5
    box.send(letter(2, run="b"))
    box.send(letter(3, run="b"))
    assert post.arrived == [2, 3]
    with pytest.raises(NetzipError, match="batch of a"):
        box.flush(0.0)
    assert box.flush(0.0), "said once"


def test_a_file_and_the_tag_that_names_it_are_refused_and_cost_nothing_else(server, post):
    """The run was deleted meanwhile."""

    def deleted(write: Write, again: bool) -> None:
        if write.run == "a":
            raise ValueError("The run a must be in the active state")
        post(write, again)

    box = outbox(server, deleted)
    box.send(letter(1, "text", run="a"))
    box.send(letter(2, "end", run="a"))
    box.send(letter(3, run="b"))
    assert box.flush(0.0)
    assert post.arrived == [3]


def test_a_file_that_never_arrives_holds_up_what_is_sent_for_seconds_only(server, post, box):
    """Kill -9 loses what waits: 403 or 500 for one artifact must not keep all of a job waiting."""
    box.send(letter(1, "artifact", error=TimeoutError(), file=Path("a.csv")))
    for number in range(2, 8):
        server.now += 10
        box.send(letter(number))
    assert post.arrived == [2, 3, 4, 5, 6, 7]
    assert [write.at for write in box.unsent] == [1]
    assert post.again.count(1) == 2, "it was tried three times"
    assert not box.flush(3.0)
    assert post.again.count(1) > 2, "and again at last"


def test_what_is_kept_is_sent_with_the_next_one(post, box):
    box.keep(letter(1))
    assert post.arrived == []
    box.send(letter(2))
    assert post.arrived == [1, 2]


def test_a_store_that_answers_nothing_is_asked_before_a_write_waits_for_it(server):
    """Each call would last as long as its time out."""
    calls = []

    def hung(write: Write, _again: bool) -> None:
        calls.append(write.at)
        server.now += 120
        raise TimeoutError

    box = outbox(server, hung)
    server.away("timed out")
    box.keep(letter(1))
    box.keep(letter(2, "end"))
    assert not box.flush(4.0)
    assert calls == []
    assert [write.at for write in box.unsent] == [1, 2]


def test_the_end_is_tried_even_where_each_call_takes_long(server, post):
    """Health answers, the first write does not: nothing but the end is tried when time is up."""

    def slow(write: Write, again: bool) -> None:
        if write.kind != "end":
            server.now += 2
            raise TimeoutError
        post(write, again)

    box = outbox(server, slow)
    for write in (letter(1), letter(2, run="b"), letter(3, "end", run="c")):
        box.keep(write)
    assert not box.flush(4.0)
    assert post.arrived == [3]
    assert server.now < 8


def test_what_was_answered_is_remembered_no_longer(post, box):
    box.send(letter(1))
    with pytest.raises(NetzipError):
        box.send(letter(2, error=ValueError("no")))
    assert not box._tries


@given(st.lists(st.sampled_from(["send", "away", "back", "flush"]), max_size=40))
def test_whatever_happens_arrived_and_waiting_are_what_was_sent(steps):
    server = SimpleNamespace(now=0.0, reason=None)
    server.clock = lambda: server.now
    server.health = lambda _uri: server.reason

    def pause(seconds: float) -> None:
        server.now += seconds

    server.pause = pause
    post = Post(server)
    box, sent = outbox(server, post), 0
    for step in steps:
        if step == "send":
            sent += 1
            box.send(letter(sent))
        elif step == "flush":
            assert box.flush(2.0) == (server.reason is None or not len(box))
        else:
            server.reason = "gone" if step == "away" else None
        assert post.arrived == list(range(1, len(post.arrived) + 1))
        assert len(post.arrived) + len(box) == sent
    server.reason = None
    assert box.flush(0.0)
    assert post.arrived == list(range(1, sent + 1))
