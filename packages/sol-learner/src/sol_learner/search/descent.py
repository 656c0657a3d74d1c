r"""Gradient descent on the numbers of a rule, by exact gradients over the whole horizon.

Each step takes new episodes and the gradient of the mean of log L over them, at most 1 long, and moves by Adam (Kingma,
Ba, 2015), with a rate that falls linearly from :data:`RATE` to a fifth of it. A rule near the edge of stability can
step over it, where gradients say nothing: a step that leads to five times the largest loss so far is taken back to the
mean of the path's second half, and the rate is halved.
"""

from __future__ import annotations

import math

import numpy

from sol_learner.runtime.clock import Interrupted
from sol_learner.runtime.progress import Phase, Progress
from sol_learner.search.candidates import CandidateEvaluator
from sol_learner.search.space import SearchSpace
from sol_symbols import SolError

__all__ = ["RATE", "descend"]

RATE = 0.03
"""Adam's first rate, in units of the search's coordinates."""

_MOMENTUM, _AVERAGING, _EPS = 0.9, 0.95, 1e-8
_BLOWN = 5.0


def descend(
    space: SearchSpace,
    evaluator: CandidateEvaluator,
    *,
    steps: int,
    episodes: int,
    phase: Phase,
    progress: Progress,
    reserve: float = 0.0,
) -> list[numpy.ndarray]:
    """Points after each step, from z = 0; fewer if the clock expires, none if the tasks have no gradient.

    Args:
        space: Coordinates around the rule.
        evaluator: Computes gradients.
        steps: Number of steps.
        episodes: Episodes per step.
        phase: The phase that the descent belongs to.
        progress: Progress reporter.
        reserve: Seconds of the phase that are left for what follows.
    """
    path: list[numpy.ndarray] = []
    point, mean, square = (numpy.zeros(space.size) for _ in range(3))
    largest, factor, count = -math.inf, 1.0, 0
    progress.phase(phase, f"gradient descent on {space.size} numbers", steps)
    for step in range(1, steps + 1):
        try:
            with evaluator.clock.reserving(reserve):
                loss, gradient = evaluator.gradient(space, point, episodes)
        except Interrupted:
            progress.note(f"gradient descent stopped in step {step} of {steps}")
            break
        except (SolError, RuntimeError) as error:  # of the task's code: no second derivative, out of memory
            progress.note(f"no gradient descent: {str(error).strip().partition(chr(10))[0]}")
            return []
        progress.step(step, loss=loss)
        if not math.isfinite(loss) or loss > _BLOWN * largest > 0:
            point = numpy.mean(path[len(path) // 2 :], 0) if path else point
            mean, square, count, factor = 0 * mean, 0 * square, 0, factor / 2
            continue
        largest, count = max(largest, loss), count + 1
        gradient = gradient / max(1.0, float(numpy.linalg.norm(gradient)))
        mean = _MOMENTUM * mean + (1 - _MOMENTUM) * gradient
        square = _AVERAGING * square + (1 - _AVERAGING) * gradient**2
        rate = factor * RATE * (1 - 0.8 * (step - 1) / steps)
        size = numpy.sqrt(square / (1 - _AVERAGING**count)) + _EPS
        point = point - rate * mean / (1 - _MOMENTUM**count) / size
        path.append(point)
    return path
