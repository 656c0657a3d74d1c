"""Budgets of time and Ctrl-C."""

import math
import os
import signal
from datetime import timedelta

import pytest

from sol_learner import Clock
from sol_learner.runtime.clock import parse_duration
from sol_symbols import SolError


@pytest.fixture
def usual_interrupts():
    """Ctrl-C raises KeyboardInterrupt, also in a process of tests that was told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_interrupts")
def test_control_c_cancels_once_and_interrupts_twice(capsys):
    clock = Clock()
    with clock.catching_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        assert clock.cancelled
        assert clock.over
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert "Ctrl-C again" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5min", 300), ("2m", 120), ("1.5h", 5400)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "abc", "5 years", "-3s", "90", "1e3"])
def test_wrong_durations(text):
    with pytest.raises(SolError, match="not a time"):
        parse_duration(text)


@pytest.mark.parametrize("budget", [True, [60], b"60", timedelta(seconds=3)], ids=str)
def test_a_budget_of_another_type_is_refused(budget):
    with pytest.raises(SolError, match="budget must be seconds or text such as '5min', got "):
        Clock(budget)


@pytest.mark.parametrize("budget", [0, -1, float("nan"), "0s", "soon", "5"])
def test_a_budget_is_a_time(budget):
    with pytest.raises(SolError, match=r"is not a time|must be more than 0"):
        Clock(budget)


def test_a_reserve_ends_a_phase_earlier_and_may_lift_its_end():
    clock = Clock(1000)
    clock.allow(0.5)
    with clock.reserving(400):
        assert not clock.over
    with clock.reserving(600):
        assert clock.over
    clock.allow(0.0)
    assert clock.over
    with clock.reserving(-math.inf):
        assert not clock.over
        clock.cancel()
        assert clock.over
    assert clock.over
