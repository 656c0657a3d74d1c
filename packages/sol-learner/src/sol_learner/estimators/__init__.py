"""Meta-gradient estimators: how the loss of optimizees depends on the network that moves them.

================  ====================================================================================
``first-order``   gradients are constants; closed form, no graph over the window, sampled coordinates
``exact``         second-order terms too, by the adjoint method; memory of one inner step
``pes``           persistent evolution strategies: unbiased over the whole horizon, no derivatives
================  ====================================================================================
"""

from collections.abc import Mapping
from types import MappingProxyType

from sol_learner.estimators.base import META_LOSSES, Estimator, Window
from sol_learner.estimators.exact import Exact
from sol_learner.estimators.first_order import FirstOrder
from sol_learner.estimators.pes import PersistentEvolution

__all__ = ["ESTIMATORS", "META_LOSSES", "Estimator", "Exact", "FirstOrder", "PersistentEvolution", "Window"]

ESTIMATORS: Mapping[str, type[Estimator]] = MappingProxyType(
    {"first-order": FirstOrder, "exact": Exact, "pes": PersistentEvolution}
)
"""Every estimator by name."""
