from __future__ import annotations

import gc

import numpy as np
import pytest

from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.metrics import latency
from netzip_mlflow.metrics.latency import Latency, Timing, interleave
from netzip_mlflow.metrics.throughput import throughput
from netzip_mlflow.statistics import Interval, bootstrap_median_ratio

MS = 1_000_000


class FakeMachine:
    """Time that passes only inside calls; `busy` cores work while one runs."""

    def __init__(self):
        self.now = 0
        self.cpu = 0.0
        self.order = []

    def clock(self):
        return self.now

    def cpu_clock(self):
        return int(self.cpu)

    def call(self, name, durations_ms, busy=1.0):
        """A call whose time is what the generator or the figure says."""

        def run():
            step = durations_ms if isinstance(durations_ms, float) else next(durations_ms)
            self.now += int(step * MS)
            self.cpu += step * MS * busy
            self.order.append(name)

        return run


def noisy_ms(mean, share, seed):
    rng = np.random.default_rng(seed)
    while True:
        yield mean * (1 + share * rng.normal())


def measure(machine, calls, again, **options):
    return interleave(
        calls,
        baseline="baseline",
        again=again,
        clock=machine.clock,
        cpu_clock=machine.cpu_clock,
        **options,
    )


@pytest.fixture
def machine():
    return FakeMachine()


def test_constant_times_are_found_exactly(machine, monkeypatch):
    monkeypatch.setattr(latency, "cores", lambda: 4)
    calls = {
        "baseline": machine.call("baseline", 8.0),
        "int8": machine.call("int8", 2.0, busy=2.0),
    }
    found = measure(machine, calls, machine.call("again", 8.0), min_rounds=20)
    assert found.rounds == 20
    assert found.stopped == "target"
    assert (found.noisy, found.reasons) == (False, ())
    assert found.aa == Interval(1.0, 1.0, 1.0)
    assert found.keys("int8") == pytest.approx(
        {
            "speed/latency_ms": 2.0,
            "speed/latency_ms_low": 2.0,
            "speed/latency_ms_high": 2.0,
            "speed/latency_ms_p95": 2.0,
            "speed/rounds": 20,
            "ratio/its": 4.0,
            "ratio/its_low": 4.0,
            "ratio/its_high": 4.0,
            "size/cpu_percent": 50.0,  # two of four cores
        }
    )
    baseline = found.keys("baseline")
    assert (baseline["ratio/its"], baseline["ratio/its_low"], baseline["ratio/its_high"]) == (
        1,
    ) * 3
    assert baseline["size/cpu_percent"] == pytest.approx(25.0)


def test_every_round_runs_one_block_of_each_model_in_an_order_of_its_own(machine):
    calls = {
        "baseline": machine.call("o", 8.0),
        "slow": machine.call("s", 50.0),
        "fast": machine.call("f", 3.0),
    }
    found = measure(machine, calls, machine.call("a", 8.0), block_ns=20 * MS, min_rounds=12)
    # 20 ms hold 3 calls of 8 ms and 7 of 3 ms, rounded up; a slower call is a block of its own.
    blocks = {"o": 3, "a": 3, "s": 1, "f": 7}
    timed = machine.order[-12 * sum(blocks.values()) :]
    orders = []
    for start in range(0, len(timed), sum(blocks.values())):
        part = timed[start : start + sum(blocks.values())]
        order = list(dict.fromkeys(part))
        assert part == [name for name in order for _ in range(blocks[name])]
        orders.append(tuple(order))
    assert found.rounds == len(orders) == 12
    assert len(set(orders)) > 3
    assert len({order.index("o") for order in orders}) > 1


def test_warm_up_lasts_until_call_times_settle_and_is_not_counted(machine):
    def settling():
        yield from np.linspace(90, 31, 60)  # falls for 60 calls
        while True:
            yield 30.0

    calls = {"baseline": machine.call("o", settling())}
    found = measure(machine, calls, machine.call("a", 30.0), min_rounds=5)
    warm = machine.order.count("o") - found.rounds
    assert warm < 60  # the limit of 2 s ends it, not the settling
    steady = FakeMachine()
    measure(steady, {"baseline": steady.call("o", 1.0)}, steady.call("a", 1.0), min_rounds=5)
    assert steady.order.index("a") == 200  # 0.2 s of 1 ms
    slow = FakeMachine()
    measure(slow, {"baseline": slow.call("o", 900.0)}, slow.call("a", 900.0), min_rounds=5)
    assert slow.order.index("a") == 10  # ten calls, whatever they take


def test_the_round_time_is_the_blocks_median_and_p95_is_over_calls(machine):
    def spiky():  # one call in ten takes 100 times as long
        while True:
            yield from [1.0] * 9 + [100.0]

    calls = {"baseline": machine.call("o", spiky())}
    found = measure(machine, calls, machine.call("a", 1.0), block_ns=10 * MS, max_rounds=10)
    timing = found.timings["baseline"]
    assert timing.latency_ms == Interval(1.0, 1.0, 1.0)
    assert timing.p95_ms == pytest.approx(100.0)
    assert timing.rounds_ms.shape == (10,)
    assert timing.calls_ms.shape == (100,)


def test_the_ratio_is_the_median_of_per_round_ratios(machine):
    # Warm-up takes 20 calls of 10 ms; then the machine slows down, for the baseline twice.
    def slowing():
        yield from [10.0] * 20
        yield from [20.0] * 10
        while True:
            yield 60.0

    calls = {"baseline": machine.call("o", slowing()), "c": machine.call("c", noisy_ms(10, 0.1, 1))}
    found = measure(machine, calls, machine.call("a", slowing()), block_ns=1, max_rounds=19, seed=9)
    o, c = (found.timings[n].rounds_ms for n in ("baseline", "c"))
    assert list(o) == [20.0] * 10 + [60.0] * 9
    ratio, expected = found.timings["c"].ratio, bootstrap_median_ratio(o, c, seed=9)
    assert ratio.value == pytest.approx(np.median(o / c))
    assert ratio.value != pytest.approx(np.median(o) / np.median(c), rel=1e-3)
    assert (ratio.low, ratio.high) == pytest.approx((expected.low, expected.high))
    assert found.aa == Interval(1.0, 1.0, 1.0)


def test_rounds_go_on_until_every_ratio_is_known_well_enough(machine):
    calls = {
        "baseline": machine.call("o", noisy_ms(20, 0.03, 0)),
        "c": machine.call("c", noisy_ms(20, 0.03, 1)),
    }
    seen = []
    found = measure(
        machine,
        calls,
        machine.call("a", noisy_ms(20, 0.03, 2)),
        target=0.01,
        max_seconds=1e6,
        min_rounds=10,
        progress=lambda rounds, width: seen.append((rounds, width)),
    )
    assert found.stopped == "target"
    assert found.rounds > 10
    assert max(found.aa.half_width, found.timings["c"].ratio.half_width) <= 0.01
    assert [rounds for rounds, _ in seen] == sorted({rounds for rounds, _ in seen})
    assert all(width > 0.01 for _, width in seen[:-1])
    assert seen[-1] == (found.rounds, pytest.approx(seen[-1][1]))


@pytest.mark.parametrize(
    ("limits", "rounds", "stopped"),
    [
        ({"max_rounds": 7, "min_rounds": 20}, 7, "rounds"),
        # a round takes 3 x 20 ms
        ({"max_seconds": 0.6, "min_rounds": 20}, 10, "seconds"),
        ({"max_seconds": 0.001, "min_rounds": 20}, 5, "seconds"),
    ],
)
def test_a_spent_budget_ends_the_rounds(machine, limits, rounds, stopped):
    calls = {"baseline": machine.call("o", 20.0), "c": machine.call("c", noisy_ms(20, 1e-4, 1))}
    found = measure(machine, calls, machine.call("a", 20.0), target=1e-9, **limits)
    assert found.rounds == pytest.approx(rounds, abs=1 if stopped == "seconds" else 0)
    assert found.stopped == stopped


def test_a_baseline_that_differs_from_itself_is_noisy(machine):
    calls = {"baseline": machine.call("o", 10.0)}
    found = measure(machine, calls, machine.call("a", 11.0))
    assert found.noisy
    assert found.reasons == (
        "the baseline differs from itself: 0.909 [0.909, 0.909] does not contain 1",
    )


def test_a_baseline_that_is_poorly_known_is_noisy(machine):
    calls = {"baseline": machine.call("o", noisy_ms(20, 0.3, 0))}
    found = measure(machine, calls, machine.call("a", noisy_ms(20, 0.3, 1)), max_rounds=10)
    assert found.aa.contains(1.0)
    assert found.aa.half_width > 0.05
    assert found.noisy
    (reason,) = found.reasons
    assert "only known to" in reason


def test_the_seed_decides_the_order(machine):
    def order(seed):
        m = FakeMachine()
        calls = {name: m.call(name, 20.0) for name in ("baseline", "b", "c")}
        measure(m, calls, m.call("a", 20.0), min_rounds=10, seed=seed)
        return m.order

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_baseline_that_is_not_measured_is_refused(machine):
    with pytest.raises(InputError, match="'baseline' is not measured; allowed: other"):
        measure(machine, {"other": machine.call("o", 1.0)}, machine.call("a", 1.0))


def test_garbage_is_not_collected_while_timing_and_is_afterwards(machine):
    seen = []
    call = machine.call("o", 20.0)

    def watched():
        seen.append(gc.isenabled())
        call()

    measure(machine, {"baseline": watched}, machine.call("a", 20.0))
    assert not any(seen)
    assert gc.isenabled()

    def failing():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        measure(machine, {"baseline": failing}, machine.call("a", 20.0))
    assert gc.isenabled()


def test_throughput_is_samples_over_the_median_call(machine):
    times = iter([500.0, 10.0, 10.0, 10.0, 90.0, 10.0] + [10.0] * 1000)
    assert throughput(machine.call("o", times), 32, 0.2, machine.clock) == pytest.approx(3200)
    assert len(machine.order) == pytest.approx(1 + 12, abs=1)  # one to warm up, then 0.2 s
    slow = FakeMachine()
    assert throughput(slow.call("o", 4000.0), 8, 0.1, slow.clock) == pytest.approx(2.0)
    assert len(slow.order) == 4


def test_a_latency_is_a_plain_value():
    one = Interval(1.0, 1.0, 1.0)
    timing = Timing(one, 1.0, one, 50.0, np.ones(5), np.ones(50))
    found = Latency("baseline", {"baseline": timing}, 5, one, False, (), "target")
    with pytest.raises(KeyError):
        found.keys("unknown")


def failing(call, after, error):
    """A call that raises from its n-th time on."""
    left = iter(range(after))

    def run():
        if next(left, None) is None:
            raise error
        call()

    return run


@pytest.mark.parametrize("after", [0, 3, 40])
@pytest.mark.parametrize("error", [NetzipError("the lamp is out"), MemoryError()])
def test_a_model_that_cannot_be_run_is_left_out_and_the_others_are_timed(machine, after, error):
    calls = {
        "baseline": machine.call("o", noisy_ms(10.0, 0.02, 1)),
        "broken": failing(machine.call("x", 5.0), after, error),
        "b": machine.call("b", noisy_ms(5.0, 0.02, 2)),
    }
    found = measure(machine, calls, machine.call("a", noisy_ms(10.0, 0.02, 3)))
    assert set(found.timings) == {"baseline", "b"}
    assert found.faults == {"broken": str(error) or "MemoryError"}
    assert found.timings["b"].ratio.value == pytest.approx(2.0, rel=0.02)
    assert len(found.timings["b"].rounds_ms) == found.rounds >= 20


def test_what_is_no_fault_of_a_model_ends_the_timing(machine):
    calls = {
        "baseline": machine.call("o", 10.0),
        "b": failing(machine.call("b", 5.0), 3, KeyboardInterrupt()),
    }
    with pytest.raises(KeyboardInterrupt):
        measure(machine, calls, machine.call("a", 10.0))


@pytest.mark.parametrize("after", [0, 40])
def test_the_baselines_fault_is_raised(machine, after):
    broken = failing(machine.call("o", 10.0), after, NetzipError("the lamp is out"))
    with pytest.raises(NetzipError, match="the lamp is out"):
        measure(machine, {"baseline": broken, "b": machine.call("b", 5.0)}, machine.call("a", 10.0))
    with pytest.raises(NetzipError, match="the lamp is out"):
        measure(machine, {"baseline": machine.call("o", 10.0)}, broken)
