"""From a readout to a short rule: library, CMA-ES, pruning, the front."""

from sol_learner.search.candidates import CandidateEvaluator
from sol_learner.search.front import FrontPoint, measured_front
from sol_learner.search.polishing import Polished, polish
from sol_learner.search.pruning import prune
from sol_learner.search.samples import Samples, Trajectories, record
from sol_learner.search.terms import DECAYS, DIRECTIONS, Fit, combine, fit_library, leading_terms, split

__all__ = [
    "DECAYS",
    "DIRECTIONS",
    "CandidateEvaluator",
    "Fit",
    "FrontPoint",
    "Polished",
    "Samples",
    "Trajectories",
    "combine",
    "fit_library",
    "leading_terms",
    "measured_front",
    "polish",
    "prune",
    "record",
    "split",
]
