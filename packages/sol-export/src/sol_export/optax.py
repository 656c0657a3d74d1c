"""JAX source: one self-contained file with an Optax gradient transformation and its alias."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
import sympy

from sol_export.averaging import Averaging
from sol_export.file_header import described_formula, provenance
from sol_export.signature import NO_HORIZON, Argument, arguments, checked_name, checked_names, off_statement, renamed
from sol_export.source import ArrayPrinter, helpers, indented, listed, reductions, rounds, statement
from sol_export.verification import Trajectory, imported
from sol_symbols import Assignment, Kind, UpdateRule, lower
from sol_symbols.operators import TINY, kind_of

__all__ = ["OptaxExporter"]

# Names that the emitted code uses; a rule's constants and definitions must have other names.
_RESERVED = frozenset(
    (
        *("learning_rate", "mask", "params", "updates", "state", "count", "numbers", "results", "init", "update"),
        *("p", "w", "g", "t", "x", "i", "r", "lr", "phi", "horizon", "weight_decay", "momentum", "given"),
        *("jax", "jnp", "optax", "NamedTuple", "totals", "running", "schedule", "clock"),
        *("states", "average", "weights", "loss", "value", "output_last", "math", "low", "high", "name"),
    )
)


class OptaxExporter:
    """Source of ``scale_by_NAME`` and ``NAME``, the alias with learning rate and weight decay."""

    filename = "optimizer_optax.py"
    description = "Optax transformation, for JAX"
    dtypes = ("float64", "float32", "bfloat16")

    def export(self, rule: UpdateRule, name: str) -> str:
        """Return the source text; see :class:`sol_export.Exporter`."""
        alias, state_class = checked_name(function_name(name), "optax"), f"ScaleBy{name[0].upper()}{name[1:]}State"
        used = {alias, f"scale_by_{alias}", f"{alias}_weights", state_class}
        numbered = checked_names(rule.with_numbered_constants(), _RESERVED | used, "optax")
        everything = arguments(numbered, betas=False)
        given = [a for a in everything if a.name != "lr"]
        decays = "wd" not in rule.values  # in addition to the formula
        own = [a for a in given if not (decays and a.name == "weight_decay")]  # the arguments of scale_by_NAME
        writer = _Writer(numbered, own, state_class)
        rate = "" if rule.lr is None else f"={rule.lr!r}"
        averaging = None if rule.evaluation is None else Averaging(numbered, everything, _printer)
        weights = averaging.optax_function(alias, writer.state_class, rate) if averaging else ""
        names = sorted([alias, f"scale_by_{alias}", *([f"{alias}_weights"] if averaging else [])])
        checks = writer.checks() + writer.schedule()
        passed = [a.name for a in own] + ["output_last"] * writer.oriented
        call = indented(8, listed(f"scale_by_{alias}(", [f"{name}={name}" for name in passed], "),", 8, brackets=True))
        decay = "        optax.add_decayed_weights(weight_decay, mask),"
        template = resources.files("sol_export").joinpath("templates/optax.txt").read_text(encoding="utf-8")
        return Template(template).substitute(
            alias=alias,
            public="\n".join(
                listed("__all__ = [", [f'"{public}"' for public in (writer.state_class, *names)], "]", 0, brackets=True)
            ),
            formula=described_formula(rule, decays),
            provenance=provenance(rule, "optax", name),
            state_class=writer.state_class,
            in_float32="; float32 for parameters of lower precision" if writer.states else "",
            fields="".join(f"\n    {line}" if line else "\n" for line in writer.fields()),
            scale_signature=writer.signature(),
            scale_documentation=_documentation([a.documentation for a in own] + [_OUTPUT_LAST] * writer.oriented),
            checks=indented(4, checks) + "\n" * bool(checks),
            init=indented(8, writer.init()),
            update=indented(8, writer.update()),
            transformation="GradientTransformation" + "ExtraArgs" * writer.needs_loss,
            given_loss=", *, value, **_" if writer.needs_loss else "",
            returns=_WITH_LOSS if writer.needs_loss else _PLAIN,
            weights=weights,
            advance="\n".join(writer.advance()),
            learning_rate_default=rate,
            signature=indented(4, writer.own_signature(given) + ["mask=None,"] * decays),
            documentation=indented(
                8, [a.documentation for a in given] + [_OUTPUT_LAST] * writer.oriented + [_MASK] * decays
            ),
            alias_checks='    _check("weight_decay", weight_decay, 0)\n' * decays,
            chain=call + (f"\n{decay}" if decays else ""),
        )

    def load(self, path: Path, name: str) -> Callable[[Trajectory], np.ndarray]:
        """Run the emitted file; see :class:`sol_export.Executable`."""
        import jax
        import optax

        module = imported(path)
        alias, weights = getattr(module, function_name(name)), getattr(module, f"{function_name(name)}_weights", None)
        rated = weights is not None and "learning_rate" in inspect.signature(weights).parameters

        def run(trajectory: Trajectory) -> np.ndarray:
            given = {} if trajectory.horizon is None else {"horizon": trajectory.horizon}
            given |= {"output_last": False} if "output_last" in inspect.signature(alias).parameters else {}
            optimizer = alias(trajectory.lr, **given)
            with jax.enable_x64(trajectory.dtype == "float64"):

                def tensors(values: np.ndarray) -> list[jax.Array]:
                    return [jax.numpy.asarray(value, trajectory.dtype) for value in trajectory.layout.split(values)]

                state = optimizer.init(tensors(trajectory.parameters[0]))
                update, found = jax.jit(optimizer.update), []
                for t, (value, gradient) in enumerate(zip(trajectory.parameters, trajectory.gradients)):
                    params = tensors(value)
                    loss = {} if trajectory.losses is None else {"value": trajectory.losses[t]}
                    updates, state = update(tensors(gradient), state, params, **loss)
                    moved = optax.apply_updates(params, updates)
                    if trajectory.averages and weights is not None:
                        moved += weights(state, moved, **({"learning_rate": trajectory.lr} if rated else {}))
                    found.append(np.concatenate([np.asarray(p).astype(np.float64).ravel() for p in moved]))
            return np.array(found)

        return run


_PLAIN = "The gradient transformation. Pass the parameters to ``update`` as its third argument."
_WITH_LOSS = (
    "The gradient transformation. Pass to ``update`` the parameters as its third argument, and ``value``, the loss."
)
_OUTPUT_LAST = "output_last: Whether a kernel's last axis is its output, as in Flax; False: the first, as in Equinox."
_MASK = "mask: Tree of booleans that selects the parameters to decay, or a function from parameters to such a tree."


def function_name(name: str) -> str:
    """Convert ``MnistnetOptimizer`` to ``mnistnet_optimizer``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()


def _documentation(lines: list[str]) -> str:
    return "\n\n    Args:\n" + indented(8, lines) + "\n    " if lines else ""


class _Writer:
    """The parts of the file that depend on the rule's program."""

    def __init__(self, rule: UpdateRule, own: list[Argument], state_class: str) -> None:
        self.program, self.own, self.state_class = lower(rule, expand=False, clock="clock"), own, state_class
        self.scheduled, self.off = self.program.uses("clock"), off_statement(rule)
        reductions = [a.reduction for a in self.program.body if a.reduction]
        self.totals = any(reduction.gives is Kind.RUN for reduction in reductions)
        self.orthogonal = any(reduction.name == "orth" for reduction in reductions)
        self.oriented = self.orthogonal or self.program.uses("fan_in")
        self.descriptions = {name: rule.vocabulary.recurrences[name].description for name in self.program.states}
        self.states = tuple(self.program.states)
        self.timed = self.program.uses("t") or self.scheduled or rule.evaluation is not None
        self.needs_loss = self.program.uses("loss")
        code = [*(a.value for a in self.program.body), *self.program.outputs]
        used = {free.name for value in code for free in renamed(value).free_symbols}
        scalars = [a.name for a in self.program.scalars]
        self.passed = [name for name in ("t", "clock", "loss", *(a.name for a in own), *scalars) if name in used]
        self.passed += ["output_last"] * self.oriented
        self.inputs = ["g", *(f"{name}_prev" for name in self.states), *(["w"] if self.program.uses("w") else [])]

    def fields(self) -> list[str]:
        """The state's fields."""
        lines = ["", "count: jax.Array  # steps completed"] if self.timed else []
        lines += [""] if self.states and not lines else []
        for name in self.states:
            description = self.descriptions[name]
            lines.append(f"{name}: optax.Updates" + (f"  # {description}" if description else ""))
        return lines

    def signature(self) -> str:
        """Arguments of ``scale_by_NAME``."""
        if not (self.own or self.oriented):
            return ""
        return "\n    *,\n" + indented(4, self.own_signature(self.own)) + "\n"

    def own_signature(self, given: list[Argument]) -> list[str]:
        """The arguments, one a line."""
        return [f"{a.signature}," for a in given] + ["output_last=True,"] * self.oriented

    def checks(self) -> list[str]:
        """The statements that refuse hyperparameters out of range."""
        return [line for a in self.own for line in _checks(a)]

    def schedule(self) -> list[str]:
        """The statements that switch the schedule off, or ask for the horizon."""
        lines = ["if not schedule:", f"    {self.off}"] if self.off else []
        if any(a.optional for a in self.own):
            lines += ["elif horizon is None:", f"    {NO_HORIZON}"]
        return lines

    def init(self) -> list[str]:
        """The statements that create the initial state."""
        values = ["count=jnp.zeros([], jnp.int32)"] if self.timed else []
        one = dict.fromkeys(self.program.state_kinds, ", one=True")
        values += [f"{name}=start({init!r}{one.get(name, '')})" for name, init in self.program.states.items()]
        lines = listed(f"return {self.state_class}(", values, ")", 8, brackets=True)
        if not self.states:
            return ["del params", *lines]
        ones = [
            "def start(value, one=False):",
            "    shape = () if one else None  # one number per tensor, or one per element",
            "    return jax.tree.map(lambda p: jnp.full_like(p, value, dtype=_precision(p), shape=shape), params)",
        ]
        all_ = [
            "def start(value):",
            "    return jax.tree.map(lambda p: jnp.full_like(p, value, dtype=_precision(p)), params)",
        ]
        return [
            *(ones if one else all_),
            "",
            *lines,
        ]

    def update(self) -> list[str]:
        """The statements of one step."""
        scalars = {a.name: renamed(a.value) for a in self.program.scalars}
        printer = _printer({"t", "clock", *scalars})
        lines = []
        if "w" in self.inputs:
            lines += [
                "if params is None:",
                '    raise ValueError("the formula depends on the parameters; call update(updates, state, params)")',
            ]
        else:
            lines.append("del params")
        if self.timed:
            lines += ["count = optax.safe_increment(state.count)", "t = jnp.asarray(count, dtype=float)"]
        if self.scheduled:
            lines.append("clock = t if schedule else 0 * t")
        if self.needs_loss:
            lines += [
                "if value is None or jnp.size(value) != 1:",
                '    raise ValueError(f"value must be the loss, one number, got {value!r:.200}")',
                "loss = jnp.asarray(value, dtype=float).reshape(())",
            ]
        lines += [line for name, value in scalars.items() for line in statement(name, printer.doprint(value), 8)]
        lines += listed("numbers = (", self.passed, ",)" if len(self.passed) == 1 else ")", 8, brackets=True)
        trees = ["updates", *(f"state.{name}" for name in self.states), *(["params"] if "w" in self.inputs else [])]
        call = ["_run(", "numbers"] if self.totals else ["jax.tree.map(", "lambda *x: _advance(*x, numbers)"]
        lines += listed(f"results = {call[0]}", [call[1], *trees], ")", 8, brackets=True)
        count = ["count=count"] if self.timed else []
        if not self.states:
            return [*lines, *listed(f"return results, {self.state_class}(", count, ")", 8, brackets=True)]
        outputs = f"(jax.tree.map(lambda _, r, i=i: r[i], updates, results) for i in range({len(self.states) + 1}))"
        return [
            *lines,
            *listed("", ["phi", *self.states], f" = {outputs}", 8),
            *listed(
                f"return phi, {self.state_class}(",
                [*count, *(f"{name}={name}" for name in self.states)],
                ")",
                8,
                brackets=True,
            ),
        ]

    def advance(self) -> list[str]:
        """The elementwise function."""
        body = [(a.name, renamed(a.value)) for a in self.program.body]
        phi = renamed(self.program.outputs[0])
        printer = _printer({*self.program.elementwise, *(name for name, _ in body), "x", "y"})
        what = "phi and the new states" if self.states else "phi"
        lines = ["given, dtype = jnp.result_type(g), _precision(g)"]
        if self.passed:
            lines.append("numbers = [x.astype(dtype) if isinstance(x, jax.Array) else x for x in numbers]")
            lines += listed("", self.passed, " = numbers")
        lines += ["g = jnp.asarray(g, dtype)", *(["w = jnp.asarray(w, dtype)"] if self.program.uses("w") else [])]
        lines += [f"{name} = {value}" for name, value in _INPUTS.items() if self.program.uses(name)]
        for group in rounds(self.program):
            lines += (
                reductions(group, _OWN, _TOTALS, ("jnp.stack([", "])"))
                if group[0].reduction
                else self._statements(group, printer)
            )
        text = printer.doprint(phi)
        if not printer.is_array(phi):
            text = f"jnp.full_like(g, {text}, dtype=dtype)"
        elif kind_of(phi, self.program.kinds) is not Kind.COORDINATE:
            text = f"jnp.broadcast_to({text}, g.shape)"
        lines += statement("phi", text)
        lines += (
            listed("return ", ["phi.astype(given)", *self.states], "") if self.states else ["return phi.astype(given)"]
        )
        how = "for one tensor" if self.program.reduces else "elementwise"
        how += "; see ``_run`` for what it yields" if self.totals else ""
        helped = helpers(self.program, printer, _ORTH)
        return [
            *listed("def _advance(", [*self.inputs, "numbers"], "):", 0, brackets=True),
            f'    """Compute {what}, {how}."""',
            *(f"    {line}" for line in lines),
            *(["", "", *helped[:-2]] if helped else []),
            *(["", "", *_ORIENTED_ORTH.strip().splitlines()] if self.orthogonal else []),
            *(["", "", *_RUN.strip().splitlines()] if self.totals else []),
        ]

    def _statements(self, group: list[Assignment], printer: ArrayPrinter) -> list[str]:
        lines = []
        for name, value in ((a.name, renamed(a.value)) for a in group):
            text = printer.doprint(value)
            found = kind_of(value, self.program.kinds)
            if self.program.reduces and name in self.states and found < self.program.kinds[name]:
                shape = "g.shape" if self.program.kinds[name] is Kind.COORDINATE else "()"
                text = f"jnp.broadcast_to({text}, {shape})"
            lines += statement(name, text)
        return lines


_INPUTS = {
    "fan_in": "jnp.asarray(max(g.size // max(g.shape[-1 if output_last else 0], 1), 1) if g.ndim > 1 else 1, dtype)",
    "is_vector": "jnp.asarray(g.ndim < 2, dtype)",
}

_RUN = '''
def _run(numbers, updates, *others):
    """Run the formula on all tensors side by side; where it yields a vector, answer with the sum over the tensors."""
    leaves, structure = jax.tree.flatten(updates)
    running = [_advance(*x, numbers) for x in zip(leaves, *(structure.flatten_up_to(tree) for tree in others))]
    results, answers = [], [None] * len(running)
    while not results and running:
        asked = []
        for code, answer in zip(running, answers):
            try:
                asked.append(code.send(answer))
            except StopIteration as end:
                results.append(end.value)
        answers = [sum(asked).astype(x.dtype) for x in asked]
    return jax.tree.unflatten(structure, results)
'''


_ORIENTED_ORTH = '''
def _oriented_orth(x, output_last):
    """Return ``_orth`` of x, whose rows are the last axis or the first."""
    if x.ndim < 2 or not output_last:
        return _orth(x)
    return jnp.moveaxis(_orth(jnp.moveaxis(x, -1, 0)), 0, -1)
'''


def _checks(argument: Argument) -> list[str]:
    if not argument.bounds:
        return []  # a constant of the formula can be any number
    check = f'_check("{argument.name}", {argument.name}, {argument.bounds})'
    return [f"if {argument.name} is not None:", f"    {check}"] if argument.optional else [check]


class _JaxPrinter(ArrayPrinter):
    """Code for JAX; Python's power of a negative number would be complex."""

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        base, exponent = expr.args
        if self.is_array(expr) or exponent.is_Integer or exponent == sympy.S.Half:
            return super()._print_Pow(expr, rational)
        return f"jnp.power({self._print(base)}, {self._print(exponent)})"


def _printer(arrays: Collection[str]) -> ArrayPrinter:
    return _JaxPrinter("jnp.", arrays, {"min": "jnp.minimum", "max": "jnp.maximum"})


_ORTH = {
    "count": "x.size",
    "dimensions": "x.ndim",
    "root": "x.size**0.5",
    "largest": f"jnp.maximum(jnp.max(jnp.abs(x)), {TINY})",
    "norm": "jnp.maximum(jnp.sqrt(jnp.sum(x * x)), 1)",
    "matrix": "x.reshape(x.shape[0], -1)",
    "one": "jnp.eye(matrix.shape[0], dtype=x.dtype)",
}
"""See :func:`~sol_export.source.helpers`."""

_OWN = {
    "orth": "_oriented_orth({x}, output_last)",
    "matrices": "{x} if g.ndim > 1 else jnp.zeros_like({x})",
    "vectors": "{x} if g.ndim < 2 else jnp.zeros_like({x})",
    "norm": "jnp.sqrt(jnp.sum({x} * {x}))",
    "rms": "jnp.sqrt(jnp.sum({x} * {x}) / max({x}.size, 1))",
    "mean": "jnp.sum({x}) / max({x}.size, 1)",
    "dot": "jnp.sum({x} * {y})",
}
_TOTALS = {
    "all_dot": ("{0}", ("jnp.sum({x} * {y})",)),
    "all_rms": ("jnp.sqrt({0} / jnp.maximum({1}, 1))", ("jnp.sum({x} * {x})", "{x}.size")),
    "gmean": ("jnp.exp({0} / jnp.maximum({1}, 1)) * ({1} > 0)", ("jnp.log(jnp.where({x} > 0, {x}, 1))", "{x} > 0")),
}
"""See :func:`~sol_export.source.reductions`."""
