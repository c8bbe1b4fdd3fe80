"""A loss that stays far above where it began has diverged; one that only jumps has not."""

import math

import pytest

from repro.config.errors import Diverged
from repro.train.failures import LossBound


@pytest.fixture
def bound_of(make_spec):
    return lambda **values: LossBound(make_spec(batch_size=64, **values))


def see(bound: LossBound, *losses: float) -> None:
    for step, loss in enumerate(losses, 1):
        bound.update(loss, step)


def test_a_loss_above_the_bound_for_twenty_steps_in_a_row_has_diverged(bound_of):
    bound = bound_of()
    see(bound, 10.0, *[40.1] * 19)
    with pytest.raises(Diverged) as error:
        bound.update(55.0, 21)
    assert str(error.value) == (
        "the loss is 55 at step 21, 1,280 examples, and was above 40 for 20 steps in a row "
        "(max_loss_ratio 4; it began at 10)"
    )


def test_one_step_below_the_bound_begins_the_count_anew(bound_of):
    bound = bound_of()
    see(bound, 10.0, *[50.0] * 19, 39.0, *[50.0] * 19)
    assert bound.above == 19


def test_long_runs_wait_for_their_share_of_steps(bound_of):
    bound = bound_of(examples_seen=64 * 10_000, max_loss_share=0.01)
    see(bound, 10.0, *[50.0] * 99)
    with pytest.raises(Diverged, match="for 100 steps in a row"):
        bound.update(50.0, 101)


def test_a_loss_that_begins_at_hundreds_and_falls_is_fine(bound_of):
    see(bound_of(), *[400.0 * 0.9**step for step in range(100)])


def test_a_first_loss_near_zero_is_no_measure_but_that_of_knowing_nothing_is(bound_of):
    nothing_known = 1 + math.log(64)
    see(bound_of(), 0.001, *[3.9 * nothing_known] * 100)
    with pytest.raises(Diverged, match=r"it began at 0\.001"):
        see(bound_of(), 0.001, *[4.1 * nothing_known] * 100)


def test_a_loss_that_is_not_finite_has_diverged_at_once(bound_of):
    with pytest.raises(Diverged, match="the loss is nan at step 2, 64 examples"):
        see(bound_of(), 10.0, math.nan)


def test_without_a_ratio_only_a_loss_that_is_not_finite_has_diverged(bound_of):
    see(bound_of(max_loss_ratio=None), 1.0, *[1e30] * 100)


def test_the_count_goes_on_over_a_resume(bound_of):
    first, second = bound_of(), bound_of()
    see(first, 10.0, *[50.0] * 12)
    second.restore(first.state())
    with pytest.raises(Diverged, match="above 40 for 20 steps"):
        see(second, *[50.0] * 8)
