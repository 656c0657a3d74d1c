"""Comparing optimizers: protocol, trials, tuning, statistics, verdicts, tables, several tasks."""

from sol_learner.comparing.comparison import Comparison
from sol_learner.comparing.config import CRITERIA, TUNING, CompareConfig
from sol_learner.comparing.optimizer_result import OptimizerResult
from sol_learner.comparing.optimizer_specs import PANEL, OptimizerSpec, RuleSpec, Started, TorchSpec, resolve_optimizer
from sol_learner.comparing.protocol import against_panel, compare
from sol_learner.comparing.store import Store
from sol_learner.comparing.suite import Suite, compare_tasks
from sol_learner.comparing.trials import Trial, fingerprint, run_trial
from sol_learner.comparing.verdict import Verdict

__all__ = [
    "CRITERIA",
    "PANEL",
    "TUNING",
    "CompareConfig",
    "Comparison",
    "OptimizerResult",
    "OptimizerSpec",
    "RuleSpec",
    "Started",
    "Store",
    "Suite",
    "TorchSpec",
    "Trial",
    "Verdict",
    "against_panel",
    "compare",
    "compare_tasks",
    "fingerprint",
    "resolve_optimizer",
    "run_trial",
]
