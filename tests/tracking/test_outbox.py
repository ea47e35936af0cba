"""The outbox against a server with its own clock: order, nothing lost, nothing twice, patience."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow.tracking.outbox import Outbox


class Post:
    """Counts what arrives; a call fails while the server is away."""

    def __init__(self, server) -> None:
        self.server = server
        self.arrived: list[int] = []

    def letter(self, number: int) -> Callable[[], None]:
        def call() -> None:
            if self.server.reason is not None:
                raise ConnectionError(self.server.reason)
            self.arrived.append(number)

        return call


def outbox(server) -> Outbox:
    return Outbox("http://store", clock=server.clock, pause=server.pause, health=server.health)


def test_a_call_is_made_at_once_while_the_server_answers(server):
    post, box = Post(server), outbox(server)
    box.send(post.letter(1))
    assert post.arrived == [1]
    assert len(box) == 0
    assert server.asked == 0, "a healthy server is not asked before every call"


def test_what_was_sent_while_away_arrives_in_order_and_before_what_came_later(server):
    post, box = Post(server), outbox(server)
    server.away()
    box.send(post.letter(1))
    box.send(post.letter(2))
    assert post.arrived == []
    assert len(box) == 2
    assert box.reason == "connection refused"
    server.back()
    box.send(post.letter(3))
    assert post.arrived == [1, 2, 3]
    assert box.reason is None


def test_flush_waits_for_the_server_and_no_longer(server):
    post, box = Post(server), outbox(server)
    server.away(until=4.0)
    box.send(post.letter(1))
    assert box.flush(30.0)
    assert post.arrived == [1]
    assert 4.0 <= server.now < 6.0


def test_flush_gives_up_after_its_patience_and_keeps_everything(server):
    post, box = Post(server), outbox(server)
    server.away("no route to host")
    box.send(post.letter(1))
    box.send(post.letter(2))
    assert not box.flush(10.0)
    assert 10.0 <= server.now <= 11.0
    assert len(box) == 2
    assert box.reason == "no route to host"
    server.back()
    assert box.flush(0.0)
    assert post.arrived == [1, 2]


def test_flush_of_nothing_takes_no_time(server):
    assert outbox(server).flush(30.0)
    assert server.now == 0.0


def test_an_error_that_is_not_the_servers_absence_is_raised_and_not_repeated(server):
    post, box = Post(server), outbox(server)
    tried = []

    def refused() -> None:
        tried.append(1)
        raise ValueError("Changing param values is not allowed")

    with pytest.raises(ValueError, match="Changing param"):
        box.send(refused)
    box.send(post.letter(1))
    assert post.arrived == [1]
    assert len(tried) == 1


def test_a_refused_call_does_not_take_those_behind_it_along(server):
    """The end of a run waits behind its metrics: one refused call must not leave it RUNNING."""
    post, box = Post(server), outbox(server)

    def refused() -> None:
        if server.reason is not None:
            raise ConnectionError(server.reason)
        raise ValueError("no such key")

    server.away()
    for call in (post.letter(1), refused, post.letter(2)):
        box.send(call)
    server.back()
    with pytest.raises(ValueError, match="no such key"):
        box.flush(30.0)
    assert post.arrived == [1, 2]


def test_a_server_that_leaves_again_in_the_middle_loses_and_doubles_nothing(server):
    class Flapping(Post):
        def letter(self, number: int) -> Callable[[], None]:
            deliver = super().letter(number)

            def call() -> None:
                deliver()
                if number == 1:
                    server.away(until=server.now + 3)

            return call

    post, box = Flapping(server), outbox(server)
    server.away()
    for number in (1, 2, 3):
        box.send(post.letter(number))
    server.back()
    assert box.flush(30.0)
    assert post.arrived == [1, 2, 3]
    assert 3.0 <= server.now < 5.0


@given(st.lists(st.sampled_from(["send", "away", "back", "flush"]), max_size=40))
def test_whatever_happens_arrived_and_waiting_are_what_was_sent(steps):
    from types import SimpleNamespace

    server = SimpleNamespace(now=0.0, reason=None)
    post = Post(server)

    def pause(seconds: float) -> None:
        server.now += seconds

    box = Outbox(
        "http://store", clock=lambda: server.now, pause=pause, health=lambda _uri: server.reason
    )
    sent = 0
    for step in steps:
        if step == "send":
            sent += 1
            box.send(post.letter(sent))
        elif step == "flush":
            assert box.flush(2.0) == (server.reason is None or not len(box))
        else:
            server.reason = "gone" if step == "away" else None
        assert post.arrived == list(range(1, len(post.arrived) + 1))
        assert len(post.arrived) + len(box) == sent
    server.reason = None
    assert box.flush(0.0)
    assert post.arrived == list(range(1, sent + 1))
