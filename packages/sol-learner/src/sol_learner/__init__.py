"""The symbolic optimizer learner: an EQL network meta-trained on a task and read out as an update rule.

These are the names that most users need. The rest is in the wings: ``runtime``, ``inner``, ``networks``,
``estimators``, ``search``, ``comparing``, ``baselines`` and ``report``. A name is loaded when it is first used, so that
``import sol_learner`` does not load PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sol_symbols.lazy import lazy_names

if TYPE_CHECKING:
    from sol_learner.comparing.comparison import Comparison
    from sol_learner.comparing.config import CompareConfig
    from sol_learner.comparing.optimizer_specs import resolve_optimizer
    from sol_learner.comparing.protocol import compare
    from sol_learner.comparing.store import Store
    from sol_learner.comparing.suite import Suite, compare_tasks
    from sol_learner.config import LearnConfig
    from sol_learner.front_door import LearnedOptimizer, learn_optimizer
    from sol_learner.inner.episodes import run_rule
    from sol_learner.loaders import from_loaders
    from sol_learner.mixture import TaskMixture, augmented
    from sol_learner.pipeline import Learner, LearnResult, learn
    from sol_learner.run_folder import write_run
    from sol_learner.runtime.checkpoints import Checkpoints
    from sol_learner.runtime.clock import Clock
    from sol_learner.runtime.progress import Progress, open_progress
    from sol_learner.runtime.workers import Workers
    from sol_learner.task import SPLITS, Batch, Purpose, Stream, Task, build_seeded
    from sol_learner.task_registry import Recipe, find_tasks, load_task

__version__ = "0.1.0"

__all__ = [
    "SPLITS",
    "Batch",
    "Checkpoints",
    "Clock",
    "CompareConfig",
    "Comparison",
    "LearnConfig",
    "LearnResult",
    "LearnedOptimizer",
    "Learner",
    "Progress",
    "Purpose",
    "Recipe",
    "Store",
    "Stream",
    "Suite",
    "Task",
    "TaskMixture",
    "Workers",
    "augmented",
    "build_seeded",
    "compare",
    "compare_tasks",
    "find_tasks",
    "from_loaders",
    "learn",
    "learn_optimizer",
    "load_task",
    "open_progress",
    "resolve_optimizer",
    "run_rule",
    "write_run",
]

_HOME = {
    "Batch": "task",
    "Checkpoints": "runtime.checkpoints",
    "Clock": "runtime.clock",
    "CompareConfig": "comparing.config",
    "Comparison": "comparing.comparison",
    "LearnConfig": "config",
    "LearnResult": "pipeline",
    "LearnedOptimizer": "front_door",
    "Learner": "pipeline",
    "Progress": "runtime.progress",
    "Purpose": "task",
    "Recipe": "task_registry",
    "SPLITS": "task",
    "Store": "comparing.store",
    "Stream": "task",
    "Suite": "comparing.suite",
    "Task": "task",
    "TaskMixture": "mixture",
    "Workers": "runtime.workers",
    "augmented": "mixture",
    "build_seeded": "task",
    "compare": "comparing.protocol",
    "compare_tasks": "comparing.suite",
    "find_tasks": "task_registry",
    "from_loaders": "loaders",
    "learn": "pipeline",
    "learn_optimizer": "front_door",
    "load_task": "task_registry",
    "open_progress": "runtime.progress",
    "resolve_optimizer": "comparing.optimizer_specs",
    "run_rule": "inner.episodes",
    "write_run": "run_folder",
}
"""The module of each name."""

if not TYPE_CHECKING:  # otherwise every name would exist for type checkers
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
