"""Evaluation weights in emitted source: the function that computes them, and PyTorch's ``train`` and ``eval``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sol_export.signature import Argument, renamed
from sol_export.source import ArrayPrinter, indented, listed, statement
from sol_symbols import UpdateRule, hoisted, lower_evaluation, symbol

__all__ = ["Averaging"]

_METHODS = '''
@torch.no_grad()
def eval(self):
    """Put the weights to evaluate with in place of the parameters. Call ``train`` before the next step."""
    for group in self.param_groups:
        for p in group["params"]:
            state = self.state.get(p)
            if state and "trained" not in state:
                state["trained"] = p.detach().clone()
                p.copy_(_weights($arguments, **group))

@torch.no_grad()
def train(self):
    """Put the parameters back in place of the weights to evaluate with."""
    for state, p in [(self.state.get(p), p) for group in self.param_groups for p in group["params"]]:
        if state and "trained" in state:
            p.copy_(state.pop("trained"))
'''

_NO_SCHEDULE = [
    "if callable(learning_rate):",
    '    raise TypeError("learning_rate must be a number, that of the last step, not a schedule")',
]

_CHECK = [
    'if any("trained" in state for state in self.state.values()):',
    '    raise RuntimeError("the parameters are replaced by the weights to evaluate with: call train() first")',
]


class Averaging:
    """The evaluation weights of a rule in the languages of arrays.

    Args:
        rule: The rule, with named constants; it has evaluation weights.
        given: The arguments of the optimizer.
        printer: Makes a printer from the names that are arrays.
    """

    def __init__(
        self, rule: UpdateRule, given: Sequence[Argument], printer: Callable[[Collection[str]], ArrayPrinter]
    ) -> None:
        self._program, self._printer = hoisted(lower_evaluation(rule)), printer
        self.states = tuple(self._program.states)
        old = {symbol(f"{name}_prev"): symbol(name) for name in self.states}
        self._scalars = {a.name: renamed(a.value) for a in self._program.scalars}
        body = [(a.name, a.value) for a in self._program.body if a.name not in self.states]
        self._body = [(n, renamed(v.xreplace(old))) for n, v in (*body, ("weights", self._program.outputs[0]))]
        used = {
            free.name for value in (*self._scalars.values(), *(v for _, v in self._body)) for free in value.free_symbols
        }
        self.timed = "t" in used
        self.given = [a for a in given if not used.isdisjoint(a.numbers)]
        self._numbers = ["t"] * self.timed + [x for a in self.given for x in a.numbers if x in used]
        self._elementwise = {*self.states, "w", *(name for name, _ in self._body)}
        inside = {free.name for _, value in self._body for free in value.free_symbols}
        self._passed = [name for name in (*self._numbers, *self._scalars) if name in inside]

    def _calculated(self, arrays: bool, indent: int = 4) -> list[str]:
        """The statements of numbers, or of arrays."""
        printer = self._printer(self._elementwise if arrays else {*self._numbers, *self._scalars})
        values = self._body if arrays else [*self._scalars.items()]
        return [line for name, value in values for line in statement(name, printer.doprint(value), indent)]

    # -- PyTorch -------------------------------------------------------------------------------------------

    def torch_check(self) -> list[str]:
        """The statements ahead of a step."""
        return _CHECK

    def torch_methods(self) -> list[str]:
        """The methods ``eval`` and ``train``."""
        arguments = ["p", *(f'state["{name}"]' for name in self.states), *(['state["step"]'] if self.timed else [])]
        return _METHODS.rstrip().replace("$arguments", ", ".join(arguments)).splitlines()

    def torch_function(self) -> list[str]:
        """The function of a parameter and its state."""
        own = ["*", *(a.name for a in self.given)] if self.given else []
        keywords = ["p", *self.states, *(["step"] if self.timed else []), "/", *own, "**_"]
        parts = [(x, f"{a.name}[{i}]") for a in self.given for i, x in enumerate(a.parts)]
        lines = [f"{name} = {value}" for name, value in parts if name in self._numbers]
        if self._scalars:
            numbers = ["step" if name == "t" else name for name in self._numbers]
            lines += _converted(self._numbers, numbers, "torch.as_tensor(float({x}), dtype=torch.float64)")
            lines += self._calculated(arrays=False)
        elif self.timed:
            lines += ["t = step"]
        lines += _converted(self._passed, self._passed, "float({x})")
        return [
            "",
            "",
            *listed("def _weights(", keywords, "):", 0, brackets=True),
            '    """Return the weights to evaluate with."""',
            *(f"    {line}" for line in lines),
            "    w = p.to(_precision(p))",
            *(f"    {line}" for line in self._calculated(arrays=True)),
            "    return weights",
        ]

    # -- Optax ---------------------------------------------------------------------------------------------

    def optax_function(self, alias: str, state_class: str, rate: str) -> str:
        """The function of the state and the parameters.

        Args:
            alias: Name of the optimizer.
            state_class: Name of its state.
            rate: Default of the learning rate, as in ``=0.1``; empty if it has none.
        """
        own = [f"learning_rate{rate}" if a.name == "lr" else a.signature for a in self.given]
        words = [
            f"    {'learning_rate: A number' if a.name == 'lr' else a.documentation[:-1]}, as for ``{alias}``."
            for a in self.given
        ]
        renames = ["lr = learning_rate"] if any(a.name == "lr" for a in self.given) else []
        trees = ["params", *(f"state.{name}" for name in self.states)]
        lines = [
            '"""Return the weights to evaluate with, a tree like the parameters.',
            "",
            "Args:",
            f"    state: State of ``{alias}`` or ``scale_by_{alias}`` after the last step.",
            "    params: Parameters after the last step.",
            *words,
            '"""',
            f"states = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, {state_class}))",
            f"states = [x for x in states if isinstance(x, {state_class})]",
            "if len(states) != 1:",
            f'    raise ValueError(f"expected a state that contains one {state_class}, not {{len(states)}}")',
            "(state,) = states",
            *_NO_SCHEDULE * any(a.name == "lr" for a in self.given),
            *(["t = jnp.asarray(jnp.maximum(state.count, 1), dtype=float)"] if self.timed else []),
            *renames,
            *self._calculated(arrays=False),
            *listed("numbers = (", self._passed, ",)" if len(self._passed) == 1 else ")", 4, brackets=True),
            "",
            f"def average({', '.join(['p', *self.states])}):",
            f"    if isinstance({self.states[0]}, optax.MaskedNode):",
            "        return p",
            "    w = jnp.asarray(p, _precision(p))",
            *(f"    {line}" for line in _converted(self._passed, None, "jnp.asarray({x}, w.dtype)", 8)),
            *(f"    {line}" for line in self._calculated(arrays=True, indent=8)),
            "    return jnp.where(state.count == 0, p, weights.astype(jnp.result_type(p)))",
            "",
            *listed("return jax.tree.map(", ["average", *trees], ")", 4, brackets=True),
        ]
        head = listed(
            f"def {alias}_weights(", ["state", "params", *(["*", *own] if own else [])], "):", 0, brackets=True
        )
        return "\n".join(["", "", *head, indented(4, lines), ""])


def _converted(names: Sequence[str], values: Sequence[str] | None, form: str, indent: int = 4) -> list[str]:
    """The statements that convert ``values``, by default ``numbers``, and name them; ``form`` converts ``{x}``."""
    if values is not None and len(names) == 1:
        return [f"{names[0]} = {form.format(x=values[0])}"]
    given = [] if values is None else listed("numbers = (", values, ")", indent, brackets=True)
    return [*given, *listed("", names, f" = ({form.format(x='x')} for x in numbers)", indent)] if names else []
