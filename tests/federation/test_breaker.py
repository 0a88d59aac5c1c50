"""The circuit breaker: when it opens, when it probes, when it closes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support import values as _profile  # noqa: F401  # loads the profile

from federation.health import Breaker, BreakerState


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened() -> tuple[Breaker, Clock]:
    clock = Clock()
    breaker = Breaker(clock, failures=3, open_s=15.0)
    for _ in range(3):
        assert breaker.admit()
        breaker.failed("MemberTimeout")
    return breaker, clock


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = Breaker(Clock(), failures=3)
    for how in (breaker.failed, breaker.failed):
        assert breaker.admit()
        how("MemberTimeout")
    breaker.succeeded()
    for _ in range(2):
        breaker.failed("MemberTimeout")
        assert breaker.state is BreakerState.CLOSED
    breaker.failed("MemberTimeout")
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admit()


def test_one_probe_goes_through_when_its_time_has_come() -> None:
    breaker, clock = opened()
    clock.now += 14.9
    assert not breaker.admit()
    clock.now += 0.1
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admit()
    assert not breaker.admit()  # the others wait for its end


def test_a_probe_that_succeeds_closes() -> None:
    breaker, clock = opened()
    clock.now += 15
    assert breaker.admit()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit()
    assert breaker.health().consecutive_failures == 0


def test_a_probe_that_fails_opens_again_at_once() -> None:
    breaker, clock = opened()
    clock.now += 15
    assert breaker.admit()
    breaker.failed("MemberUnreachable")
    assert breaker.state is BreakerState.OPEN
    clock.now += 14.9
    assert not breaker.admit()
    clock.now += 0.1
    assert breaker.admit()


def test_a_probe_that_told_nothing_leaves_room_for_the_next() -> None:
    breaker, clock = opened()
    clock.now += 15
    assert breaker.admit()
    breaker.released()
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admit()


def test_health_says_what_happened() -> None:
    breaker, clock = opened()
    clock.now += 20
    breaker.succeeded()
    health = breaker.health()
    assert (health.state, health.successes, health.failures) == (BreakerState.CLOSED, 1, 3)
    assert (health.last_failure, health.last_failure_at, health.last_success_at) == ("MemberTimeout", 100.0, 120.0)


@given(st.lists(st.sampled_from(["ask", "ok", "bad", "gone", "wait"]), max_size=60))
def test_a_member_is_never_left_alone_for_good(steps: list[str]) -> None:
    clock = Clock()
    breaker = Breaker(clock, failures=3, open_s=15.0)
    under_way = 0
    for step in steps:
        if step == "ask":
            state = breaker.state
            admitted = breaker.admit()
            assert admitted is (state is not BreakerState.OPEN) or state is BreakerState.HALF_OPEN
            under_way += admitted
        elif step == "wait":
            clock.now += 6
        elif under_way:
            under_way -= 1
            if step == "ok":
                breaker.succeeded()
                assert breaker.state is BreakerState.CLOSED
            elif step == "bad":
                breaker.failed("MemberTimeout")
            else:
                breaker.released()
    for _ in range(under_way):
        breaker.released()
    clock.now += 15
    assert breaker.admit()
