"""The symbolic optimizer learner: an EQL network meta-trained on a task and read out as an update rule."""

from sol_learner.task import SPLITS, Batch, Purpose, Task, build_seeded, generator_for

__version__ = "0.1.0"

__all__ = ["SPLITS", "Batch", "Purpose", "Task", "build_seeded", "generator_for"]
