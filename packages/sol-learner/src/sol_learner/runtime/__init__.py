"""Processes, checkpoints, progress and time, independent of tasks and rules."""

from sol_learner.runtime.checkpoints import CHECKPOINTS, Checkpoints, checkpoints_in
from sol_learner.runtime.clock import Clock, Interrupted, parse_duration
from sol_learner.runtime.progress import MetricsFile, MultiProgress, NullProgress, Progress, TensorBoard, open_progress
from sol_learner.runtime.ranks import Ranks, joined_ranks
from sol_learner.runtime.workers import Constant, Workers, shared_threads, threads

__all__ = [
    "CHECKPOINTS",
    "Checkpoints",
    "Clock",
    "Constant",
    "Interrupted",
    "MetricsFile",
    "MultiProgress",
    "NullProgress",
    "Progress",
    "Ranks",
    "TensorBoard",
    "Workers",
    "checkpoints_in",
    "joined_ranks",
    "open_progress",
    "parse_duration",
    "shared_threads",
    "threads",
]
