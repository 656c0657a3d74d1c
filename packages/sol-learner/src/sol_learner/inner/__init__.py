"""Optimizees trained in parallel, and their episodes."""

from sol_learner.inner.episodes import (
    Optimizer,
    Outcome,
    RuleOptimizer,
    objective,
    run_episodes,
    run_rule,
)
from sol_learner.inner.optimizees import PRECISIONS, Optimizees
from sol_learner.inner.rates import choose_rule, learning_rates, nearby, shipped_rules, tune_learning_rate
from sol_learner.inner.side_by_side import Obstacle, obstacle, vectorizes
from sol_learner.inner.task_set import TaskSet

__all__ = [
    "PRECISIONS",
    "Obstacle",
    "Optimizees",
    "Optimizer",
    "Outcome",
    "RuleOptimizer",
    "TaskSet",
    "choose_rule",
    "learning_rates",
    "nearby",
    "objective",
    "obstacle",
    "run_episodes",
    "run_rule",
    "shipped_rules",
    "tune_learning_rate",
    "vectorizes",
]
