"""The symbolic optimizer learner: an EQL network meta-trained on a task and read out as an update rule."""

from sol_learner.comparison import Comparison, Contender, compare
from sol_learner.episodes import Outcome, run_rule, tune_learning_rate
from sol_learner.meta_gradient import FirstOrder
from sol_learner.meta_training import MetaTraining, NetworkOptimizer, meta_train
from sol_learner.network import FEATURES, UNITS, SymbolicNetwork
from sol_learner.optimizees import Optimizees
from sol_learner.pipeline import LearnConfig, LearnResult, learn, readout_error
from sol_learner.polishing import Polished, polish
from sol_learner.progress import Clock, Interrupted, Progress, Silent, open_progress
from sol_learner.pruning import Point, Samples, backward_elimination, record
from sol_learner.run_folder import write_run
from sol_learner.task import SPLITS, Batch, Purpose, Task, build_seeded, generator_for
from sol_learner.tasks import find_tasks, load_task

__version__ = "0.1.0"

__all__ = [
    "FEATURES",
    "SPLITS",
    "UNITS",
    "Batch",
    "Clock",
    "Comparison",
    "Contender",
    "FirstOrder",
    "Interrupted",
    "LearnConfig",
    "LearnResult",
    "MetaTraining",
    "NetworkOptimizer",
    "Optimizees",
    "Outcome",
    "Point",
    "Polished",
    "Progress",
    "Purpose",
    "Samples",
    "Silent",
    "SymbolicNetwork",
    "Task",
    "backward_elimination",
    "build_seeded",
    "compare",
    "find_tasks",
    "generator_for",
    "learn",
    "load_task",
    "meta_train",
    "open_progress",
    "polish",
    "readout_error",
    "record",
    "run_rule",
    "tune_learning_rate",
    "write_run",
]
