"""The symbolic optimizer learner: an EQL network meta-trained on a task and read out as an update rule."""

from sol_learner.candidates import Candidates
from sol_learner.checkpoints import Checkpoints
from sol_learner.comparing import compare
from sol_learner.comparison import Comparison, Contender
from sol_learner.config import LearnConfig
from sol_learner.distillation import Distilled, DistilSettings, distil, regress
from sol_learner.episodes import Outcome, run_rule, tune_learning_rate
from sol_learner.family import Family
from sol_learner.inner_loop import RuleOptimizer, run_episodes
from sol_learner.lstm import LSTMNetwork
from sol_learner.lstm_learning import learn_lstm, lstm_config
from sol_learner.lstm_optimizer import LSTMOptimizer, TrainedLSTM
from sol_learner.meta_training import MetaTraining, meta_train
from sol_learner.network import FEATURES, UNITS, SymbolicNetwork
from sol_learner.network_optimizer import NetworkOptimizer
from sol_learner.optimizees import Optimizees
from sol_learner.optimizers import OptimizerSpec, RuleSpec, TorchSpec, resolve_optimizer
from sol_learner.pipeline import Learner, LearnResult, learn, readout_error
from sol_learner.polishing import Polished, polish
from sol_learner.progress import Clock, Interrupted, Progress, Silent, open_progress
from sol_learner.pruning import Point, prune
from sol_learner.ranks import Ranks, joined_ranks
from sol_learner.run_folder import write_run
from sol_learner.samples import Samples, Trajectories, record
from sol_learner.store import Store
from sol_learner.task import SPLITS, Batch, Purpose, Task, build_seeded, generator_for, task_for
from sol_learner.tasks import find_tasks, load_task
from sol_learner.terms import DECAYS, DIRECTIONS, widen
from sol_learner.trials import Recipe
from sol_learner.update_network import NetworkRunner, UpdateNetwork
from sol_learner.workers import Workers

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
