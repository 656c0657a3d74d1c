"""Published optimizers as rules. Each equals its reference implementation in float64.

Where libraries define an optimizer differently, the entry says which definition it is. The important case is NAdam:
PyTorch increases the momentum factor by a schedule, mu_t = beta1 (1 - 0.96^(0.004 t)/2), and divides by the
running product of the mu_t. That product has no closed form, and as a state it would cost one more number per
parameter. ``nadam`` has the constant momentum beta1, like optax, and like PyTorch with an infinite ``momentum_decay``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sol_symbols.rule import UpdateRule

__all__ = ["ZOO"]

# name, rule, publication, equal implementation, remark
_TABLE = (
    ("sgd", "g", "Robbins and Monro 1951", "torch.optim.SGD", "gradient descent"),
    ("momentum", "b", "Polyak 1964", "torch.optim.SGD(momentum=mu)", "heavy ball"),
    ("nesterov", "g + mu*b", "Sutskever et al. 2013", "torch.optim.SGD(momentum=mu, nesterov=True)", ""),
    ("signsgd", "sign(g)", "Bernstein et al. 2018", "optax.sign_sgd", "the step of PGD attacks"),
    ("signum", "sign(m)", "Bernstein et al. 2018", "optax.signum(beta=beta1)", ""),
    (
        *("adagrad", "g/(sqrt(s) + eps) where eps = 1e-10", "Duchi et al. 2011", "torch.optim.Adagrad"),
        "eps outside of the root; optax.adagrad has it inside, and starts s at 0.1",
    ),
    (
        *("rmsprop", "g/(sqrt(v) + eps) where beta2 = 0.99", "Tieleman and Hinton 2012"),
        *("torch.optim.RMSprop(alpha=beta2)", "no bias correction; optax.rmsprop has eps inside of the root"),
    ),
    ("adam", "ad", "Kingma and Ba 2015", "torch.optim.Adam", "eps outside of the root"),
    ("adamw", "ad + wd*w where wd = 0.01", "Loshchilov and Hutter 2019", "torch.optim.AdamW(weight_decay=wd)", ""),
    (
        *("nadam", "n_hat/(sqrt(v_hat) + eps)", "Dozat 2016", "optax.nadam, torch.optim.NAdam(momentum_decay=inf)"),
        "constant momentum: PyTorch's default lets it grow from beta1/2",
    ),
    (
        *("nadamw", "n_hat/(sqrt(v_hat) + eps) + wd*w where wd = 0.01", "Dozat 2016; Loshchilov and Hutter 2019"),
        *("optax.nadamw, torch.optim.NAdam(momentum_decay=inf, decoupled_weight_decay=True)", ""),
    ),
    (
        *("adabelief", "m_hat/(sqrt(v_res_hat) + eps) where eps = 1e-16", "Zhuang et al. 2020", "optax.adabelief"),
        "deviation from the new m; eps is added to the variance at every step and to its root",
    ),
    (
        *("amsgrad", "m_hat/(sqrt(v_max/bc2) + eps)", "Reddi et al. 2018", "torch.optim.Adam(amsgrad=True)"),
        "maximum of v before its bias correction",
    ),
    (
        "adamax",
        "m_hat/g_max",
        "Kingma and Ba 2015",
        "torch.optim.Adamax",
        "infinity norm in place of the second moment",
    ),
    (
        *("yogi", "m/(sqrt(v_yogi) + eps) where eps = 0.001", "Zaheer et al. 2018", ""),
        "v changes by at most (1 - beta2)*g**2; no bias correction, as in the paper",
    ),
    (
        *("laprop", "m_rs/bc1 where eps = 1e-15", "Ziyin et al. 2020", ""),
        "momentum of normalized gradients",
    ),
    (
        *("qhadam", "(0.7*m_hat + 0.3*g)/(sqrt(v_hat) + eps)", "Ma and Yarats 2019"),
        *("", "nu1 = 0.7, nu2 = 1"),
    ),
    (
        "adan",
        "(m_hat + beta2*m_diff/bc2)/(sqrt(v_diff/(1 - beta3**t)) + eps) where beta1 = 0.98, beta2 = 0.92",
        "Xie et al. 2022",
        "pytorch_optimizer.Adan",
        "betas count as in Adam: the paper's are 1 minus these",
    ),
    (
        *("adopt", "m_adopt where beta2 = 0.9999, eps = 1e-6", "Taniguchi et al. 2024", ""),
        "converges for any beta2; the first step only starts v_first. Clipped to (t - 1)**0.25, as by the authors",
    ),
    (
        *("ademamix", "(m_hat + 5*m_long)/(sqrt(v_hat) + eps) where beta_long = 0.9999", "Pagliardini et al. 2024"),
        *("pytorch_optimizer.AdEMAMix", "alpha = 5, without warm-up of alpha and beta_long"),
    ),
    (
        "mars",
        "m_mars/bc1/(sqrt(v_mars/bc2) + eps) where beta1 = 0.95, beta2 = 0.99",
        "Yuan et al. 2024",
        "",
        "MARS-AdamW, which approximates the second gradient of a batch by the last batch's",
    ),
    (
        *("grams", "abs(ad)*sign(g) where eps = 1e-6", "Cao et al. 2024", "pytorch_optimizer.Grams"),
        "size of Adam, direction of the gradient",
    ),
    (
        *("cautious-adamw", "ad*step(ad*g)/max(mean(step(ad*g)), 0.001) + wd*w where wd = 0.01", "Liang et al. 2024"),
        *("", "drops coordinates where the step disagrees with the gradient, and rescales the others"),
    ),
    (
        "cautious-lion",
        "sign(li)*step(li*g)/max(mean(step(li*g)), 0.001) where beta2 = 0.99",
        "Liang et al. 2024",
        "",
        "Lion where it agrees with the gradient, rescaled",
    ),
    (
        "stable-adamw",
        "(ad + wd*w)/max(sqrt(mean(g**2/max(v_hat, eps**2))), 1) where beta2 = 0.99, wd = 0.01",
        "Wortsman et al. 2023",
        "",
        "smaller steps for tensors whose v lags behind their gradients",
    ),
    ("tiger", "sign(m) + wd*w where beta1 = 0.965, wd = 0.01", "Su 2023", "pytorch_optimizer.Tiger", "one state"),
    (
        *("lamb", "(ad + wd*w)*trust(norm(w), norm(ad + wd*w)) where eps = 1e-6", "You et al. 2020", "optax.lamb"),
        "large batches: steps in proportion to each tensor's norm; set wd for weight decay",
    ),
    (
        *("lars", "0.001*b_trust", "You et al. 2017", "optax.lars"),
        "large batches of SGD with momentum; 0.001 is the trust coefficient",
    ),
    (
        *("novograd", "b_norm where beta2 = 0.25, eps = 1e-6", "Ginsburg et al. 2019", "optax.novograd"),
        "one second moment per tensor",
    ),
    (
        *("adam-mini", "m_hat/(sqrt(v_mean/bc2) + eps) + wd*w where wd = 0.01", "Zhang et al. 2024", ""),
        "a tensor as block: half the memory of Adam",
    ),
    (
        *("normalized-sgd", "g*inv0(sqrt(all_dot(g, g)))", "Nesterov 1984", ""),
        "steps of length lr, whatever the size of the gradient",
    ),
    (
        *("muon", "orth(beta1*m + (1 - beta1)*g) + wd*w where beta1 = 0.95, wd = 0.1", "Jordan et al. 2024"),
        "torch.optim.Muon",
        "PyTorch's rounds to bfloat16 and takes matrices only; here, vectors step by momentum over its rms",
    ),
    ("lion", "sign(li) where beta2 = 0.99", "Chen et al. 2023", "optax.lion(weight_decay=0)", ""),
    ("powersign-ld", "exp(ld*sign(g)*sign(m))*g", "Bello et al. 2017", "", "base e, linear decay"),
    ("powersign-cd", "exp(cd*sign(g)*sign(m))*g", "Bello et al. 2017", "", "base e, cosine decay without restarts"),
    ("addsign-ld", "(1 + ld*sign(g)*sign(m))*g", "Bello et al. 2017", "", "alpha = 1, linear decay"),
    ("addsign-cd", "(1 + cd*sign(g)*sign(m))*g", "Bello et al. 2017", "", "alpha = 1, cosine decay without restarts"),
    (
        "sol-general",
        "tensor_rate*tensor_scale*wu*(ad*(4.78*ld - 5.76*pd + 0.264) + g_n*(-0.963*ld + 1.33*pd -"
        " 0.0623) + la_n*(7.07*ld - 6.49*pd - 0.313) + rs*(-1.91*ld + 1.69*pd + 1.02)) where lr ="
        " 0.00913, beta1 = 0.797, beta2 = 0.9478, rate_gain = 0.0572, rate_target = -0.0237, warmup ="
        " 4.65, decay_power = 2.25, fan_in_power = 0.352, vector_gain = -0.454",
        "learned by sol on a mixture of small trainings, seed 0",
        "",
        "for trainings that it was not learned on; set horizon, and lr to the best of lr x {1/4, 1/2, 1, 2, 4}",
    ),
    (
        "sol-mnistnet",
        "-3.894*ad*cd + 4.535*ad*ld - 92.25*cd*m_hat"
        " - 0.2131*cd*rs + 0.4088*cd*sign(g) - 0.08791*ld*rs"
        " + 0.1823*ld*sign(g) + 0.1286*ld*sign(m) + 175.8*m_hat"
        " + 0.07527*rs + 0.103*sign(g) - 0.02708*sign(m) where lr = 0.0316, T = 100",
        "learned by sol on MNISTNET, seed 0",
        "",
        "100 steps: 0.67 times the final training loss of tuned Adam on held-out seeds (benchmarks/zoo_rule.json)",
    ),
)


class _Zoo(Mapping[str, UpdateRule]):
    """The rules of the table by name; each is parsed when it is first used."""

    def __init__(self) -> None:
        self._entries = {name: facts for name, *facts in _TABLE}
        self._rules: dict[str, UpdateRule] = {}

    def __getitem__(self, name: str) -> UpdateRule:
        if name not in self._rules:
            text, source, same, remark = self._entries[name]
            facts = {"source": source, "same as": same, "remark": remark}
            provenance = {key: fact for key, fact in facts.items() if fact}
            self._rules[name] = UpdateRule.parse(text, name=name, provenance=provenance)
        return self._rules[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


ZOO: Mapping[str, UpdateRule] = _Zoo()
"""Rules by name. Learning rates of published rules, and horizons of schedules, are left to the user."""
