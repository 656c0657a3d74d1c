"""Published optimizers as rules. Each equals its reference implementation in float64.

Where libraries define an optimizer differently, the entry says which definition it is. The important case is NAdam:
PyTorch increases the momentum factor by a schedule, mu_t = beta1 (1 - 0.96^(0.004 t)/2), and divides by the
running product of the mu_t. That product has no closed form, and as a state it would cost one more number per
parameter. ``nadam`` has the constant momentum beta1, like optax, and like PyTorch with an infinite ``momentum_decay``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sol_symbols.rule import UpdateRule

__all__ = ["ZOO"]


class _Entry(NamedTuple):
    """A rule: text, publication, when to use it, an equal implementation, and what else a person should know."""

    name: str
    rule: str
    source: str
    use: str
    same: str = ""
    remark: str = ""


_TABLE = (
    _Entry(
        "sgd",
        "g",
        "Robbins and Monro 1951",
        use="convex problems, and as a baseline; the rate must fit the size of the gradients",
        same="torch.optim.SGD",
        remark="gradient descent",
    ),
    _Entry(
        "momentum",
        "b",
        "Polyak 1964",
        use="image networks with normalization layers and a decayed rate",
        same="torch.optim.SGD(momentum=mu)",
        remark="heavy ball",
    ),
    _Entry(
        "nesterov",
        "g + mu*b",
        "Sutskever et al. 2013",
        use="in place of momentum: looks a step ahead",
        same="torch.optim.SGD(momentum=mu, nesterov=True)",
    ),
    _Entry(
        "signsgd",
        "sign(g)",
        "Bernstein et al. 2018",
        use="attacks, and gradients that are sent as one bit per parameter",
        same="optax.sign_sgd",
        remark="the step of PGD attacks",
    ),
    _Entry(
        "signum",
        "sign(m)",
        "Bernstein et al. 2018",
        use="in place of signsgd, with less noise from small batches",
        same="optax.signum(beta=beta1)",
    ),
    _Entry(
        "adagrad",
        "g/(sqrt(s) + eps) where eps = 1e-10",
        "Duchi et al. 2011",
        use="sparse gradients and convex problems; its steps only get smaller",
        same="torch.optim.Adagrad",
        remark="eps outside of the root; optax.adagrad has it inside, and starts s at 0.1",
    ),
    _Entry(
        "rmsprop",
        "g/(sqrt(v) + eps) where beta2 = 0.99",
        "Tieleman and Hinton 2012",
        use="recurrent networks and reinforcement learning",
        same="torch.optim.RMSprop(alpha=beta2)",
        remark="no bias correction; optax.rmsprop has eps inside of the root",
    ),
    _Entry(
        "adam",
        "ad",
        "Kingma and Ba 2015",
        use="the default where nothing is known about a network",
        same="torch.optim.Adam",
        remark="eps outside of the root",
    ),
    _Entry(
        "adamw",
        "ad + wd*w where wd = 0.01",
        "Loshchilov and Hutter 2019",
        use="the default with weight decay: transformers and most other networks",
        same="torch.optim.AdamW(weight_decay=wd)",
    ),
    _Entry(
        "nadam",
        "n_hat/(sqrt(v_hat) + eps)",
        "Dozat 2016",
        use="in place of Adam: looks a step ahead",
        same="optax.nadam, torch.optim.NAdam(momentum_decay=inf)",
        remark="constant momentum: PyTorch's default lets it grow from beta1/2",
    ),
    _Entry(
        "nadamw",
        "n_hat/(sqrt(v_hat) + eps) + wd*w where wd = 0.01",
        "Dozat 2016; Loshchilov and Hutter 2019",
        use="in place of AdamW; a strong baseline once it is tuned",
        same="optax.nadamw, torch.optim.NAdam(momentum_decay=inf, decoupled_weight_decay=True)",
    ),
    _Entry(
        "adabelief",
        "m_hat/(sqrt(v_res_hat) + eps) where eps = 1e-16",
        "Zhuang et al. 2020",
        use="gradients with little noise: the less they deviate from m, the larger the steps",
        same="optax.adabelief",
        remark="deviation from the new m; eps is added to the variance at every step and to its root",
    ),
    _Entry(
        "amsgrad",
        "m_hat/(sqrt(v_max/bc2) + eps)",
        "Reddi et al. 2018",
        use="where Adam fails to converge, because v forgets large gradients",
        same="torch.optim.Adam(amsgrad=True)",
        remark="maximum of v before its bias correction",
    ),
    _Entry(
        "adamax",
        "m_hat/g_max",
        "Kingma and Ba 2015",
        use="gradients that are mostly zero, as those of embeddings",
        same="torch.optim.Adamax",
        remark="infinity norm in place of the second moment",
    ),
    _Entry(
        "radam",
        "m_hat*(rectify*sqrt(bc2)/(sqrt(v) + eps) + 1 - step(sma - 5))",
        "Liu et al. 2019",
        use="in place of Adam with a warm-up",
        same="torch.optim.RAdam",
        remark="steps of momentum until v averages more than 5 gradients; optax.radam adds eps to sqrt(v_hat)",
    ),
    _Entry(
        "yogi",
        "m/(sqrt(v_yogi) + eps) where eps = 0.001",
        "Zaheer et al. 2018",
        use="sparse gradients: v falls slowly, so that steps do not jump up",
        remark="v changes by at most (1 - beta2)*g**2; no bias correction, as in the paper",
    ),
    _Entry(
        "laprop",
        "m_rs/bc1 where eps = 1e-15",
        "Ziyin et al. 2020",
        use="a beta2 that is small, or below beta1, where Adam is unstable",
        remark="momentum of normalized gradients",
    ),
    _Entry(
        "qhadam",
        "(0.7*m_hat + 0.3*g)/(sqrt(v_hat) + eps)",
        "Ma and Yarats 2019",
        use="in place of Adam, with a weight between momentum and gradient to tune",
        remark="nu1 = 0.7, nu2 = 1",
    ),
    _Entry(
        "adan",
        ("(m_hat + beta2*m_diff/bc2)/(sqrt(v_diff/(1 - beta3**t)) + eps) where beta1 = 0.98, beta2 = 0.92"),
        "Xie et al. 2022",
        use="large batches and large rates",
        same="pytorch_optimizer.Adan",
        remark="betas count as in Adam: the paper's are 1 minus these",
    ),
    _Entry(
        "adopt",
        "m_adopt where beta2 = 0.9999, eps = 1e-6",
        "Taniguchi et al. 2024",
        use="where Adam converges only with a carefully chosen beta2",
        remark=(
            "converges for any beta2; the first step only starts v_first. Clipped to (t - 1)**0.25, as by the authors"
        ),
    ),
    _Entry(
        "ademamix",
        "(m_hat + 5*m_long)/(sqrt(v_hat) + eps) where beta_long = 0.9999",
        "Pagliardini et al. 2024",
        use="long runs, in which gradients of thousands of steps ago still count",
        same="pytorch_optimizer.AdEMAMix",
        remark="alpha = 5, without warm-up of alpha and beta_long",
    ),
    _Entry(
        "mars",
        "m_mars/bc1/(sqrt(v_mars/bc2) + eps) where beta1 = 0.95, beta2 = 0.99",
        "Yuan et al. 2024",
        use="noisy gradients, as of language models",
        remark="MARS-AdamW, which approximates the second gradient of a batch by the last batch's",
    ),
    _Entry(
        "grams",
        "abs(ad)*sign(g) where eps = 1e-6",
        "Cao et al. 2024",
        use="in place of AdamW: no step goes against the gradient's sign",
        same="pytorch_optimizer.Grams",
        remark="size of Adam, direction of the gradient",
    ),
    _Entry(
        "cautious-adamw",
        "ad*step(ad*g)/max(mean(step(ad*g)), 0.001) + wd*w where wd = 0.01",
        "Liang et al. 2024",
        use="in place of AdamW, with its settings",
        remark="drops coordinates where the step disagrees with the gradient, and rescales the others",
    ),
    _Entry(
        "cautious-lion",
        "sign(li)*step(li*g)/max(mean(step(li*g)), 0.001) where beta2 = 0.99",
        "Liang et al. 2024",
        use="in place of Lion, with its settings",
        remark="Lion where it agrees with the gradient, rescaled",
    ),
    _Entry(
        "stable-adamw",
        "(ad + wd*w)/max(sqrt(mean(g**2/max(v_hat, eps**2))), 1) where beta2 = 0.99, wd = 0.01",
        "Wortsman et al. 2023",
        use="training with spikes of the loss: large models, low precision",
        remark="smaller steps for tensors whose v lags behind their gradients",
    ),
    _Entry(
        "tiger",
        "sign(m) + wd*w where beta1 = 0.965, wd = 0.01",
        "Su 2023",
        use="in place of Lion, where memory is short",
        same="pytorch_optimizer.Tiger",
    ),
    _Entry(
        "lamb",
        "(ad + wd*w)*trust(norm(w), norm(ad + wd*w)) where eps = 1e-6",
        "You et al. 2020",
        use="large batches of a transformer",
        same="optax.lamb",
        remark="steps in proportion to each tensor's norm; set wd for weight decay",
    ),
    _Entry(
        "lars",
        "0.001*b_trust",
        "You et al. 2017",
        use="large batches of an image network",
        same="optax.lars",
        remark="0.001 is the trust coefficient",
    ),
    _Entry(
        "novograd",
        "b_norm where beta2 = 0.25, eps = 1e-6",
        "Ginsburg et al. 2019",
        use="in place of Adam with half its memory; speech models",
        same="optax.novograd",
        remark="one second moment per tensor",
    ),
    _Entry(
        "adam-mini",
        "m_hat/(sqrt(v_mean/bc2) + eps) + wd*w where wd = 0.01",
        "Zhang et al. 2024",
        use="in place of AdamW with half its memory; large models",
        remark="a tensor as block",
    ),
    _Entry(
        "normalized-sgd",
        "g*inv0(sqrt(all_dot(g, g)))",
        "Nesterov 1984",
        use="plateaus and exploding gradients",
        remark="steps of length lr, whatever the size of the gradient",
    ),
    _Entry(
        "muon",
        "orth(g + mu*b) + wd*w where mu = 0.95, wd = 0.1",
        "Jordan et al. 2024",
        use="hidden matrices and convolutions; the fewest steps, at some matrix products a step",
        same="torch.optim.Muon",
        remark="PyTorch's rounds to bfloat16 and takes matrices only; here, vectors step by momentum over its rms",
    ),
    _Entry(
        "lion",
        "sign(li) where beta2 = 0.99",
        "Chen et al. 2023",
        use="large models and batches, with a third to a tenth of Adam's rate and half its memory",
        same="optax.lion(weight_decay=0)",
    ),
    _Entry(
        "schedule-free-adamw",
        "ds*(1 - beta1 + beta1/t) + w_gap_prev/t evaluate w + lr*(1 - beta1)/beta1*w_gap",
        "Defazio et al. 2024",
        use="in place of AdamW with a decay, where the number of steps is not known",
        same="optax.contrib.schedule_free_adamw",
        remark="evaluate with its averaged weights; lr must be constant. Set wd for weight decay",
    ),
    _Entry(
        "powersign-ld",
        "exp(ld*sign(g)*sign(m))*g",
        "Bello et al. 2017",
        use="image networks, if the number of steps is known",
        remark="base e, linear decay",
    ),
    _Entry(
        "powersign-cd",
        "exp(cd*sign(g)*sign(m))*g",
        "Bello et al. 2017",
        use="image networks, if the number of steps is known",
        remark="base e, cosine decay without restarts",
    ),
    _Entry(
        "addsign-ld",
        "(1 + ld*sign(g)*sign(m))*g",
        "Bello et al. 2017",
        use="image networks, if the number of steps is known",
        remark="alpha = 1, linear decay",
    ),
    _Entry(
        "addsign-cd",
        "(1 + cd*sign(g)*sign(m))*g",
        "Bello et al. 2017",
        use="image networks, if the number of steps is known",
        remark="alpha = 1, cosine decay without restarts",
    ),
    _Entry(
        "sol-general",
        (
            "calm*tensor_pace*tensor_scale*wu*(ad*(2.27*ld - 3.5*pd + 0.615) + la_n*(-2.51*ld + 2.13*pd + 0.665) "
            "+ la_o*(4.17*ld - 2.92*pd + 0.168) + rs*(0.196*ld + 0.577*pd - 0.604)) where lr = 0.008, beta1 "
            "= 0.64, beta2 = 0.9791, rate_gain = 0.108, rate_target = 0.0628, warmup = 0.876, decay_power = "
            "2.4, fan_in_power = 0.273, vector_gain = -0.716"
        ),
        "learned by sol on a mixture of small trainings, seeds 1 and 6",
        use="trainings that it was not learned on; set horizon, and lr to the best of lr x {1/4, 1/2, 1, 2, 4}",
        remark="12 terms, among them Muon's direction; see docs/sol-general.md",
    ),
    _Entry(
        "sol-fits",
        (
            "tensor_pace*tensor_scale*wu*(ad*(8.33*ld - 11.5*pd - 0.0913) + la_n*(-8.49*ld + 8.04*pd + 2.87)"
            " + la_o*(1.83*ld - 4.99*pd + 3.23) + rs*(-0.253*ld + 3.48*pd - 0.568)) where lr = 0.00476, beta1 = 0.9217,"
            " beta2 = 0.9827, rate_gain = 0.112, rate_target = 0.0268, warmup = 0.446, decay_power = 2.77,"
            " fan_in_power = 0.239, vector_gain = -1.63"
        ),
        "learned by sol on a mixture of small fits of functions, from sol-general, seed 3",
        use="fits of functions (pictures, equations): gradients with little noise; chooses its rate as sol-general",
        remark="the terms of sol-general with other numbers; see docs/sol-general.md",
    ),
    _Entry(
        "sol-elementwise",
        (
            "tensor_rate*tensor_scale*wu*(ad*(4.78*ld - 5.76*pd + 0.264) + g_n*(-0.963*ld + 1.33*pd -"
            " 0.0623) + la_n*(7.07*ld - 6.49*pd - 0.313) + rs*(-1.91*ld + 1.69*pd + 1.02)) where lr ="
            " 0.00913, beta1 = 0.797, beta2 = 0.9478, rate_gain = 0.0572, rate_target = -0.0237,"
            " warmup = 4.65, decay_power = 2.25, fan_in_power = 0.352, vector_gain = -0.454"
        ),
        "learned by sol on a mixture of small trainings, seeds 0 and 5",
        use="as sol-general, where its matrix products cost too much",
        remark="sol-general without Muon's direction; chooses its rate in the same way",
    ),
    _Entry(
        "sol-attack",
        (
            "153.9*ad*ld**8 - 15.09*ad*ld + 9.27*ad - 76.1*ld**8*sign(m) + 16.93*ld**3*rs - 16.38*ld**3*sign(g)"
            " + 9.899*ld*rs where lr = 0.487, beta1 = 0.7681, beta2 = 0.05"
        ),
        "learned by sol on attacks of a robust CIFAR-10 model in 10 to 100 steps, seed 0",
        use="attacks in the maximum norm, with RuleAttack of sol-tasks; its rate is in units of the radius",
        remark="not for the Euclidean norm; see studies/attack.py",
    ),
    _Entry(
        "sol-mnistnet",
        (
            "-3.894*ad*cd + 4.535*ad*ld - 92.25*cd*m_hat - 0.2131*cd*rs + 0.4088*cd*sign(g) -"
            " 0.08791*ld*rs + 0.1823*ld*sign(g) + 0.1286*ld*sign(m) + 175.8*m_hat + 0.07527*rs +"
            " 0.103*sign(g) - 0.02708*sign(m) where lr = 0.0316, T = 100"
        ),
        "learned by sol on MNISTNET, seed 0",
        use="small networks over about 100 steps",
        remark=(
            "100 steps: 0.67 times the final training loss of tuned Adam on held-out seeds (benchmarks/zoo_rule.json)"
        ),
    ),
)


class _Zoo(Mapping[str, UpdateRule]):
    """The rules of the table by name; each is parsed when it is first used."""

    def __init__(self) -> None:
        self._entries = {entry.name: entry for entry in _TABLE}
        self._rules: dict[str, UpdateRule] = {}

    def __getitem__(self, name: str) -> UpdateRule:
        if name not in self._rules:
            entry = self._entries[name]
            facts = {"source": entry.source, "use": entry.use, "same as": entry.same, "remark": entry.remark}
            provenance = {key: fact for key, fact in facts.items() if fact}
            self._rules[name] = UpdateRule.parse(entry.rule, name=name, provenance=provenance)
        return self._rules[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


ZOO: Mapping[str, UpdateRule] = _Zoo()
"""Rules by name. Learning rates of published rules, and horizons of schedules, are left to the user."""
