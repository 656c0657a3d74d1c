"""The symbolic optimizer learner: an EQL network meta-trained on a task and read out as an update rule."""

from sol_learner.baselines.distillation import Distilled, DistilSettings, distil, regress
from sol_learner.baselines.lstm_learning import learn_lstm, lstm_config
from sol_learner.comparing.comparison import Comparison, Contender
from sol_learner.comparing.optimizer_specs import OptimizerSpec, RuleSpec, TorchSpec, resolve_optimizer
from sol_learner.comparing.protocol import compare
from sol_learner.comparing.store import Store
from sol_learner.config import LearnConfig
from sol_learner.inner.episodes import Outcome, RuleOptimizer, run_episodes, run_rule, tune_learning_rate
from sol_learner.inner.optimizees import Optimizees
from sol_learner.inner.task_set import Family
from sol_learner.meta_training import MetaTraining, meta_train
from sol_learner.networks.base import NetworkRunner, UpdateNetwork
from sol_learner.networks.eql import FEATURES, UNITS, NetworkOptimizer, SymbolicNetwork
from sol_learner.networks.lstm import LSTMNetwork
from sol_learner.networks.trained_lstm import LSTMOptimizer, TrainedLSTM
from sol_learner.pipeline import Learner, LearnResult, learn, readout_error
from sol_learner.run_folder import write_run
from sol_learner.runtime.checkpoints import Checkpoints
from sol_learner.runtime.clock import Clock, Interrupted
from sol_learner.runtime.progress import Progress, Silent, open_progress
from sol_learner.runtime.ranks import Ranks, joined_ranks
from sol_learner.runtime.workers import Workers
from sol_learner.search.candidates import Candidates
from sol_learner.search.front import Point
from sol_learner.search.polishing import Polished, polish
from sol_learner.search.pruning import prune
from sol_learner.search.samples import Samples, Trajectories, record
from sol_learner.search.terms import DECAYS, DIRECTIONS, widen
from sol_learner.task import SPLITS, Batch, Purpose, Task, build_seeded, generator_for, task_for
from sol_learner.task_registry import Recipe, find_tasks, load_task

__version__ = "0.1.0"

__all__ = [
    "DECAYS",
    "DIRECTIONS",
    "FEATURES",
    "SPLITS",
    "UNITS",
    "Batch",
    "Candidates",
    "Checkpoints",
    "Clock",
    "Comparison",
    "Contender",
    "DistilSettings",
    "Distilled",
    "Family",
    "Interrupted",
    "LSTMNetwork",
    "LSTMOptimizer",
    "LearnConfig",
    "LearnResult",
    "Learner",
    "MetaTraining",
    "NetworkOptimizer",
    "NetworkRunner",
    "Optimizees",
    "OptimizerSpec",
    "Outcome",
    "Point",
    "Polished",
    "Progress",
    "Purpose",
    "Ranks",
    "Recipe",
    "RuleOptimizer",
    "RuleSpec",
    "Samples",
    "Silent",
    "Store",
    "SymbolicNetwork",
    "Task",
    "TorchSpec",
    "TrainedLSTM",
    "Trajectories",
    "UpdateNetwork",
    "Workers",
    "build_seeded",
    "compare",
    "distil",
    "find_tasks",
    "generator_for",
    "joined_ranks",
    "learn",
    "learn_lstm",
    "load_task",
    "lstm_config",
    "meta_train",
    "open_progress",
    "polish",
    "prune",
    "readout_error",
    "record",
    "regress",
    "resolve_optimizer",
    "run_episodes",
    "run_rule",
    "task_for",
    "tune_learning_rate",
    "widen",
    "write_run",
]
