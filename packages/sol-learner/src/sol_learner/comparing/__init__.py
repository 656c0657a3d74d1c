"""Comparing optimizers: protocol, trials, tuning, statistics, verdicts, tables, several tasks."""

from sol_learner.comparing.comparison import Comparison
from sol_learner.comparing.config import TUNING, TUNING_SPLITS, CompareConfig
from sol_learner.comparing.optimizer_result import OptimizerResult
from sol_learner.comparing.optimizer_specs import OptimizerSpec, RuleSpec, TorchSpec, resolve_optimizer
from sol_learner.comparing.protocol import compare
from sol_learner.comparing.store import Store
from sol_learner.comparing.suite import Suite, compare_tasks
from sol_learner.comparing.trials import Trial, fingerprint, run_trial
from sol_learner.comparing.verdict import Verdict

__all__ = [
    "TUNING",
    "TUNING_SPLITS",
    "CompareConfig",
    "Comparison",
    "OptimizerResult",
    "OptimizerSpec",
    "RuleSpec",
    "Store",
    "Suite",
    "TorchSpec",
    "Trial",
    "Verdict",
    "compare",
    "compare_tasks",
    "fingerprint",
    "resolve_optimizer",
    "run_trial",
]
