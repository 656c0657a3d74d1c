"""Mutated texts of the whole grammar: reductions, ``orth``, values per tensor and run, evaluation weights.

    python benchmarks/fuzz_grammar.py --cases 1000000 --json benchmarks/fuzz_grammar.json

The other half of ``fuzz_rules.py``, whose laws and watch hold here: each text is read or refused with a RuleError
within a second, and nothing is executed. Half of the texts are mutations of rules, half are grown with kinds that fit
or, one call in eight, do not. With ``--json``, the run continues after the cases that the file already has.
"""

from __future__ import annotations

import random
import sys

import fuzz_rules as fuzz

from sol_symbols import INPUTS, OPERATORS, REDUCTIONS, STANDARD, ZOO, Kind

FUNCTIONS = {**OPERATORS, **REDUCTIONS}
NAMES = {kind: sorted(name for name, known in STANDARD.kinds.items() if known is kind) for kind in Kind}
TEXTS = [
    *(str(rule) for rule in ZOO.values() if rule.evaluation is not None or any(o.schema > 1 for o in rule.calls)),
    "g*inv0(rms(g))*tensor_scale + 0.1*orth(la)*min(1, norm(w)) where lr = 0.1",
    "orth(m)*max(rms(w), 0.001) - gmean(rms(g))*sign(g)*fan_in**(-0.5)",
    "clip(dot(g, m_prev)*inv0(all_rms(g)), 3)*step(t - 2)*(1 - is_vector)*trust(norm(w), norm(m))",
    "all_dot(g, m)*mean(abs(w))*log_rate where rate_gain = 0.2, T = 10",
    "ad evaluate 0.5*ema_weights + 0.5*mean_weights where beta_avg = 0.9, lr = 0.01",
    "c*m*ld evaluate w - c*lr*m_hat + max(ema_weights - w, 0)*min(1, t/7) where c = 0.25, T = 20",
]
PIECES = [
    *fuzz.PIECES, *REDUCTIONS, *(f"{name}(" for name in REDUCTIONS), *(f"{name}(g)" for name in REDUCTIONS), *INPUTS,
    *(" evaluate ", "evaluate", " evaluate w where ", "lr", "ema_weights", "orth(orth(", "rms(rms(g))"),
    *("norm(1)", "dot(g)", "gmean(norm(", "mean(t)", "fan_in**", "max(", "clip(", "step("),
    *("trust(", "inv0(0)", "inv0(", "orth(g)**2"),
]  # fmt: skip


def grown(rng: random.Random, depth: int, kind: Kind) -> str:
    """An expression of the kind, or of a lower one; one call in eight has an argument of any kind."""
    if depth == 0 or rng.random() < 0.1:
        return rng.choice([*NAMES[kind], "2", "0.5", "1e-8", "1/3"])
    fitting = [o for o in REDUCTIONS.values() if o.gives is kind]
    if fitting and rng.random() < 0.3:
        reduction = rng.choice(fitting)
        wanted = reduction.takes if rng.random() < 0.875 else rng.choice(list(Kind))
        return f"{reduction.name}({', '.join(grown(rng, depth - 1, wanted) for _ in range(reduction.arity))})"
    lower = rng.choice([other for other in Kind if other <= kind])
    parts = [grown(rng, depth - 1, kind), grown(rng, depth - 1, lower)]
    rng.shuffle(parts)
    if rng.random() < 0.6:
        return f"({parts[0]} {rng.choice(['+', '-', '*', '*', '/', '**'])} {parts[1]})"
    operator = OPERATORS[rng.choice(list(OPERATORS))]
    return f"{operator.name}({', '.join(parts[: operator.arity])})"


def case(index: int) -> tuple[str, str]:
    """``("text", a mutated or grown rule)``."""
    rng = random.Random(index)
    kind = rng.randrange(8)
    if kind < 4:
        return "text", fuzz.mutated_text(rng.choice(TEXTS), rng, PIECES, TEXTS)
    if kind == 4:
        return "text", fuzz.grown_text(rng, rng.randrange(1, 5), FUNCTIONS)
    text = grown(rng, rng.randrange(1, 5), rng.choice(list(Kind)))
    if kind == 7:
        text += f" evaluate {grown(rng, rng.randrange(1, 3), Kind.COORDINATE)}"
    if kind == 6:
        text = fuzz.mutated_text(text, rng, PIECES, TEXTS)
    return "text", text


if __name__ == "__main__":
    sys.exit(fuzz.main(__doc__, case))
