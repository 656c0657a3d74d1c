"""Published optimizers as rules. Each equals its reference implementation over the rule's own hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sol_symbols.rule import UpdateRule

__all__ = ["ZOO"]

_TABLE = (
    ("sgd", "g", "stochastic gradient descent, Robbins and Monro 1951; torch.optim.SGD"),
    ("momentum", "b", "heavy ball, Polyak 1964; torch.optim.SGD(momentum=mu)"),
    ("nesterov", "g + mu*b", "Sutskever et al. 2013; torch.optim.SGD(momentum=mu, nesterov=True)"),
    ("adagrad", "g/(sqrt(s) + eps) where eps = 1e-10", "Duchi et al. 2011; torch.optim.Adagrad"),
    ("rmsprop", "g/(sqrt(v) + eps) where beta2 = 0.99", "Tieleman and Hinton 2012; torch.optim.RMSprop(alpha=beta2)"),
    ("adam", "ad", "Kingma and Ba 2015; torch.optim.Adam"),
    ("adamw", "ad + wd*w where wd = 0.01", "Loshchilov and Hutter 2019; torch.optim.AdamW(weight_decay=wd)"),
    ("signum", "sign(m)", "Bernstein et al. 2018"),
    ("lion", "sign(li) where beta2 = 0.99", "Chen et al. 2023; optax.lion"),
    ("powersign-ld", "exp(ld*sign(g)*sign(m))*g", "Bello et al. 2017, linear decay; optax has no twin"),
    ("powersign-cd", "exp(cd*sign(g)*sign(m))*g", "Bello et al. 2017, cosine decay"),
    ("addsign-ld", "(1 + ld*sign(g)*sign(m))*g", "Bello et al. 2017, linear decay"),
    ("addsign-cd", "(1 + cd*sign(g)*sign(m))*g", "Bello et al. 2017, cosine decay"),
)

ZOO: Mapping[str, UpdateRule] = MappingProxyType(
    {name: UpdateRule.parse(text, name=name, provenance={"source": source}) for name, text, source in _TABLE}
)
"""Rules by name. Their learning rates are left to the user; rules with decays leave the horizon open too."""
