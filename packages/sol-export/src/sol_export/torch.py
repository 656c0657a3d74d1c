"""PyTorch source: one self-contained file with one :class:`torch.optim.Optimizer`."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import sympy

from sol_export import torch_text as fragments
from sol_export.averaging import Averaging
from sol_export.branches import MASKS, branches_of
from sol_export.c_loop import native_source
from sol_export.file_header import described_formula, provenance
from sol_export.signature import NO_HORIZON, Argument, arguments, checked_name, checked_names, off_statement, renamed
from sol_export.source import WIDTH, helpers, indented, listed, reductions, rounds, statement
from sol_export.torch_printer import TorchPrinter, recurrence
from sol_export.verification import Trajectory, imported, stepped
from sol_symbols import Assignment, Kind, Program, UpdateRule, hoisted, lower, symbol

__all__ = ["TorchExporter"]

_HELPED = ("x", "y")  # arguments of helper functions

# Names that the emitted code uses, and those that PyTorch's schedulers write to a parameter group; a rule's constants
# and definitions must have other names.
_RESERVED = frozenset(
    (
        *("self", "params", "param_group", "values", "closure", "loss", "group", "state", "step", "rows", "numbers"),
        *("p", "w", "g", "t", "x", "lr", "phi", "new", "betas", "horizon", "weight_decay", "momentum"),
        *("maximize", "foreach", "capturable", "differentiable", "fused", "torch", "math", "warnings"),
        *("running", "chunk", "totals", "row", "clock", "rule", "schedule", "trained", "weights"),
        *("initial_lr", "max_lr", "min_lr", "base_lr", "swa_lr", "max_momentum", "base_momentum", "param_names"),
    )
)


class TorchExporter:
    """Source of a ``torch.optim.Optimizer``: live states only, with constants and hyperparameters as arguments."""

    filename = "optimizer.py"
    description = "PyTorch optimizer; needs torch only"
    dtypes = ("float64", "float32", "bfloat16")

    def export(self, rule: UpdateRule, name: str) -> str:
        """Return the source text; see :class:`sol_export.Exporter`."""
        numbered = checked_names(rule.with_numbered_constants(), _RESERVED | {name}, "torch")
        given = arguments(numbered)
        writer = _Writer(numbered, given, checked_name(name, "torch"))
        driver = _template("torch_reducing.txt" if writer.reduces else "torch_elementwise.txt")
        native = writer.native()
        if writer.reduces:
            driver = Template(driver).substitute(writer.driver())
        else:
            driver = Template(driver).substitute(native=fragments.NATIVE if native else "") + native
        text = Template(_template("torch.txt")).substitute(
            name=name,
            closure=fragments.CLOSURE_FOR_LOSS if writer.needs_loss else fragments.CLOSURE,
            formula=described_formula(rule, decays="wd" not in rule.values),
            provenance=provenance(rule, "torch", name),
            states_in_float32=", with states stored in float32" if writer.states else "",
            documentation=indented(8, [a.documentation for a in given]),
            signature=indented(8, _signature(given)),
            defaults=indented(12, [f'"{a.name}": {a.name},' for a in given] + writer.unused()),
            digest=rule.digest[:16],
            checks=indented(8, [line for a in given for line in _checks(a)]),
            foreach=fragments.FOREACH_OF_TENSORS[writer.asks] if writer.reduces else fragments.FOREACH,
            fused=fragments.FUSED_OF_TENSORS + fragments.OF_ALL_GROUPS * writer.totals
            if writer.reduces
            else fragments.FUSED,
            imports="".join(
                f"import {name}\n" for name in sorted(["math", *fragments.NATIVE_IMPORTS * bool(native), "warnings"])
            ),
            inherit=indented(8, fragments.INHERIT) + "\n" if writer.scheduled else "",
            clock=fragments.CLOCK if writer.scheduled else "",
            tick=fragments.TICK.strip("\n") if writer.scheduled else "",
            loop=indented(8, writer.loop()),
            driver=driver.rstrip("\n"),
            collect=indented(4, writer.collect()),
            load=indented(4, writer.load() + (writer.averaging.torch_methods() if writer.averaging else [])),
            numbers=indented(0, writer.numbers()),
            advance=indented(0, writer.advance() + (writer.averaging.torch_function() if writer.averaging else [])),
        )
        return re.sub(r"\n{4,}", "\n\n\n", text)

    def load(self, path: Path, name: str) -> Callable[[Trajectory], np.ndarray]:
        """Run the emitted file; see :class:`sol_export.Executable`."""
        kind = getattr(imported(path), name)
        return lambda trajectory: stepped(kind, trajectory, _resumed)


def _resumed(fresh: Any, optimizer: Any) -> Any:
    """``fresh`` with the state of ``optimizer``, which went through a file."""
    import torch

    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def _template(name: str) -> str:
    return resources.files("sol_export").joinpath("templates", name).read_text(encoding="utf-8")


def _signature(given: Sequence[Argument]) -> list[str]:
    """Arguments of the constructor after ``params``: the learning rate first, the horizon by its name only."""
    named = [a for a in given if a.name == "horizon"]
    return [*(f"{a.signature}," for a in given if a not in named), "*,", *(f"{a.signature}," for a in named)]


def _checks(argument: Argument) -> list[str]:
    value = f'values["{argument.name}"]'
    if not argument.bounds:
        return []  # a constant of the formula can be any number
    if argument.parts:
        wrong = f"not isinstance({value}, (tuple, list)) or len({value}) != {len(argument.parts)}"
        error = f'"{argument.name} must be {len(argument.parts)} numbers, got {{!r}}".format({value})'
        return [
            f"if {wrong}:",
            f"    raise ValueError({error})",
            *(f'_check("{argument.name}[{i}]", {value}[{i}], {argument.bounds})' for i, _ in enumerate(argument.parts)),
        ]
    check = f'_check("{argument.name}", {value}, {argument.bounds})'
    if not argument.optional:
        return [check]
    missing = [f'if values["schedule"] and {value} is None:', f"    {NO_HORIZON}"]
    return [*missing, f"if {value} is not None:", f"    {check}"]


class _Writer:
    """The parts of the file that depend on the rule's program."""

    def __init__(self, rule: UpdateRule, given: list[Argument], name: str) -> None:
        self.program: Program = hoisted(lower(rule, expand=False, clock="clock"))
        self.reduces = self.program.reduces
        self.orthogonal = any(a.reduction is not None and a.reduction.name == "orth" for a in self.program.body)
        groups = [group for group in rounds(self.program) if group[0].reduction is not None]
        self.totals = any(a.reduction is not None and a.reduction.gives is Kind.RUN for a, *_ in groups)
        asks = {a.reduction.name for group in groups for a in group if a.reduction and not a.reduction.local}
        self.asks, self.sums = bool(asks), bool(asks - {*_NORMS})
        self.given, self.name = given, name
        self.states = tuple(self.program.states)
        self.needs_loss = self.program.uses("loss")
        self.averaging = None if rule.evaluation is None else Averaging(rule, given, TorchPrinter)
        self.branches = None if self.averaging else branches_of(self.program)
        self.timed = self.program.uses("t") or (self.averaging is not None and self.averaging.timed)
        self.scheduled = self.program.uses("clock")
        off = off_statement(rule, "clock" if self.scheduled else "")
        self.off = ["if not schedule:", f"    {off}"] if off else []
        self.decays = "wd" not in rule.values  # in addition to the formula
        code = [*(a.value for a in self.program.body), *self.program.outputs]
        used = {free.name for value in code for free in renamed(value).free_symbols}
        scalars = [a.name for a in self.program.scalars]
        hyper = [number for a in given for number in a.numbers if number not in ("lr", "weight_decay")]
        always = ["lr", "weight_decay"] if self.decays or "weight_decay" in used else ["lr"]
        self.passed = [*always, *(number for number in ("t", "clock", *hyper, *scalars) if number in used)]

    @property
    def _names(self) -> str:
        """The names of the states as source text of a tuple."""
        return "(" + _tuple([f'"{name}"' for name in self.states]) + ")"

    # -- the optimizer's methods ---------------------------------------------------------------------------

    def unused(self) -> list[str]:
        """The lines of defaults that are not arguments."""
        cycled = {"betas", "momentum"} & {a.name for a in self.given}
        momentum = [] if cycled else ['"momentum": 0.0,  # not used; OneCycleLR and CyclicLR write to it']
        clock = ['"clock": 0,  # steps completed'] if self.scheduled else []
        return [*momentum, *clock]

    def loop(self) -> list[str]:
        """The statements for one parameter group."""
        if self.timed:
            batch, call = "rows, step", "_numbers(step, **group)"
        else:
            batch, call = "rows", "_numbers(**group)"
        check = self.averaging.torch_check() if self.averaging else []
        if self.needs_loss:
            error = f'raise RuntimeError("{self.name} needs the loss: call step(lambda: loss)")'
            wrong = 'raise ValueError(f"the loss must be one number, got {loss!r:.200}")'
            number = 'hasattr(loss, "__float__") and torch.as_tensor(loss).numel() == 1'
            check = [*check, "if loss is None:", f"    {error}", f"if not ({number}):", f"    {wrong}"]
        if not self.reduces:
            return [
                *check,
                "for group in self.param_groups:",
                *(["    _tick(group)"] if self.scheduled else []),
                '    with torch.set_grad_enabled(group["differentiable"]):',
                f"        for {batch} in self._batches(group{', loss' * self.needs_loss}):",
                f"            _advance_all(rows, {call}, group)",
            ]
        ask = ["running = []"] if self.asks else []
        return [
            *check,
            'differentiable = all(group["differentiable"] for group in self.param_groups)',
            *(fragments.FOREACH_OF_ALL if self.asks else []),
            *(fragments.FUSED_OF_ALL if self.totals else []),
            "with torch.set_grad_enabled(differentiable):",
            *(f"    {line}" for line in ask),
            "    for group in self.param_groups:",
            *(["        _tick(group)"] if self.scheduled else []),
            f"        for {batch} in self._batches(group{', loss' * self.needs_loss}):",
            f"            numbers = {call}",
            *indented(12, self._advanced()).splitlines(),
            *indented(4, self._answered()).splitlines(),
        ]

    def _advanced(self) -> list[str]:
        """The statements that start the formula on the rows of a batch."""
        floats = [
            'if not (group["capturable"] or group["differentiable"]):',
            "    numbers = [float(x) for x in numbers]",
        ]
        if self.totals:
            return [
                "if fused:",
                "    numbers = _stacked(numbers, rows[0][0])",
                f"el{floats[0]}",
                floats[1],
                'running += [advance(*row, numbers, group["maximize"]) for row in rows]',
            ]
        compiled = ['if group["fused"]:', '    rows = _advance_fused(rows, numbers, group["maximize"])', *floats]
        if not self.asks:
            return [*compiled, "for row in rows:", '    _advance(*row, numbers, group["maximize"])']
        return [
            *compiled,
            'running += [(row[0].numel(), _advance(*row, numbers, group["maximize"])) for row in rows]',
        ]

    def _answered(self) -> list[str]:
        """The statements that answer what the formula yields."""
        if self.totals:
            return ["_run(running, foreach)"]
        return ["for chunk in _chunks(running):", "    _run(chunk, foreach)"] if self.asks else []

    def driver(self) -> dict[str, str]:
        """The parts of the code that runs a formula with values per tensor."""
        parts = {
            "side_by_side": "",
            "orthogonal": fragments.POLAR if self.orthogonal else "",
            "fused": Template(_template("torch_compiled.txt")).substitute(self._fused()),
        }
        if self.asks:
            parts["side_by_side"] = Template(_template("torch_side_by_side.txt")).substitute(
                asks=(fragments.ASKS_SUMS if self.sums else fragments.ASKS_NORMS)
                + fragments.ASKS_TOTALS * bool(self.totals),
                add_up=fragments.ADD_UP if self.totals else "",
                chunks="" if self.totals else fragments.CHUNKS,
                **(fragments.ANSWERS_WITH_SUMS if self.sums else fragments.ANSWERS),
            ) + (fragments.SUM if self.sums else "")
        return parts

    def _fused(self) -> dict[str, str]:
        """The parts of the code for ``fused=True``."""
        if not self.totals:
            function = "_advance_alone" if self.asks else "_advance"
            advance = fragments.FUSED_ROWS.substitute(function=function)
            return {"advance": advance, "define": fragments.ALONE if self.asks else "", "functions": function}
        totals = sum("totals = yield" in line for line in self._body())
        stages = ["    lambda *arguments: _advance_to(*arguments)," for _ in range(totals + 1)]
        define = fragments.TO_TOTAL.substitute(totals=totals, stages="\n".join(stages))
        return {"advance": fragments.FUSED_TOTALS, "define": define, "functions": "*_stages"}

    def collect(self) -> list[str]:
        """The method that groups parameters, gradients and states."""
        tensors = ["p", "p.grad", *(f'state["{name}"]' for name in self.states), *(["loss"] * self.needs_loss)]
        what = f"parameter, gradient{', states' if self.states else ''}{', loss' * self.needs_loss}"
        keys = "device, dtype and step, and return them with the step" if self.timed else "device and dtype"
        lines = [
            f"def _batches(self, group{', loss' * self.needs_loss}):",
            f'    """Group rows ({what}) by {keys}."""',
            "    batches = {}",
            '    for p in group["params"]:',
            "        if p.grad is None:",
            "            continue",
            "        if p.grad.layout != torch.strided or p.grad.is_complex():",
            f'            raise RuntimeError("{self.name} needs dense real gradients, not sparse or complex ones")',
        ]
        if self.states or self.timed:
            lines += [f"        {line}" for line in self._read_state()]
        lines += [f"        {line}" for line in listed("row = (", tensors, ")", 12, brackets=True)]
        if not self.reduces:
            lines += ['        if hasattr(p, "to_local"):', "            row = [_local(x, p) for x in row]"]
        if self.timed:
            lines += [
                '        key = (row[0].device, p.dtype, p if group["capturable"] else state["step"])',
                '        batches.setdefault(key, ([], state["step"]))[0].append(row)',
            ]
        else:
            lines.append("        batches.setdefault((row[0].device, p.dtype), []).append(row)")
        return [*lines, "    return batches.values()"]

    def _read_state(self) -> list[str]:
        lines = ["state = self.state[p]", "if not state:"]
        if self.timed:
            lines.append('    state["step"] = torch.zeros((), device=p.device) if group["capturable"] else 0')
        for name, init in self.program.states.items():
            if name in self.program.state_kinds:
                lines.append(f'    state["{name}"] = torch.full((), {init!r}, dtype=_precision(p), device=p.device)')
                continue
            make = f"torch.full_like(p, {init!r}" if init else "torch.zeros_like(p"
            made = f'    state["{name}"] = {make}, dtype=_precision(p), memory_format=torch.preserve_format)'
            mask = self.branches.states.get(name) if self.branches else None
            if mask is None:
                lines.append(made)
                continue
            lines += [f"    if {fragments.IS[mask]}:", f"    {made}", "    else:  # not used"]
            lines.append(f'        state["{name}"] = torch.zeros(0, dtype=_precision(p), device=p.device)')
        if self.states:
            lines += [
                'elif group["differentiable"]:  # the recorded graph holds the old values',
                f"    state.update({{name: state[name].clone() for name in {self._names}}})",
            ]
        return [*lines, 'state["step"] += 1'] if self.timed else lines

    def load(self) -> list[str]:
        """The method that loads a state dict; empty if the rule has no states."""
        if not self.states:
            return []
        return [
            "",
            "def load_state_dict(self, state_dict):",
            '    """Load a state dict without rounding the float32 states of low-precision parameters."""',
            *(f"    {line}" for line in (self.averaging.torch_check() if self.averaging else [])),
            "    given = {}",
            "    # After all other hooks, and before all others.",
            "    last = self.register_load_state_dict_pre_hook(lambda _, changed: given.update(changed))",
            "    first = self.register_load_state_dict_post_hook(lambda _: self._keep_precision(given), prepend=True)",
            "    try:",
            "        super().load_state_dict(state_dict)",
            "    finally:",
            "        last.remove()",
            "        first.remove()",
            "",
            "def _keep_precision(self, given):",
            '    """Copy the states of low-precision parameters once more; PyTorch has rounded them."""',
            '    saved = [i for group in given["param_groups"] for i in group["params"]]',
            '    params = [p for group in self.param_groups for p in group["params"]]',
            "    for i, p in zip(saved, params):",
            '        if given["state"].get(i) and p.dtype != _precision(p):',
            f"            for name in {self._names}:",
            '                self.state[p][name] = given["state"][i][name].to(p.device, _precision(p))',
        ]

    # -- the formula ---------------------------------------------------------------------------------------

    def numbers(self) -> list[str]:
        """The function of the step and the hyperparameters."""
        scalars = {a.name: renamed(a.value) for a in self.program.scalars}
        needed = {free.name for value in scalars.values() for free in value.free_symbols} | {*self.passed}
        functions = (sympy.Function, sympy.Min, sympy.Max, sympy.Pow)
        calls = {call for value in scalars.values() for call in value.atoms(*functions)}
        tensors = {free.name for call in calls for free in call.free_symbols}
        for name, value in reversed(scalars.items()):
            if name in tensors:
                tensors |= {free.name for free in value.free_symbols}
        needed |= {"schedule"} if self.off else set()
        given = [a for a in self.given if not needed.isdisjoint(a.numbers)]
        converted = [a for a in given if not tensors.isdisjoint(a.numbers)]
        times = {"t": "step"} if self.timed else {}
        times |= {"clock": "clock"} if self.scheduled else {}
        names = [*times, *(number for a in converted for number in a.numbers)]
        values = [*times.values(), *(f"*{a.name}" if a.parts else a.name for a in converted)]
        printer = TorchPrinter({*needed, *times, *scalars})
        what = "Compute the scalars of the formula" + (" at this step" if times else "")
        lines = [
            *self.off,
            *(f"{_target(a.parts)} = {a.name}" for a in given if a.parts and a not in converted),
            *(["# Unlike Python floats, tensors divide by zero without an error."] if names else []),
            *self._converted(names, values),
            *(line for name, value in scalars.items() for line in statement(name, printer.doprint(value))),
            *listed("return ", self.passed, ""),
        ]
        clock = ["clock"] if self.scheduled else []
        keywords = [*(["step", "/"] if self.timed else []), "*", *clock, *(a.name for a in given), "**_"]
        return [
            *listed("def _numbers(", keywords, "):", 0, brackets=True),
            f'    """{what}."""',
            *(f"    {line}" for line in lines),
        ]

    @staticmethod
    def _converted(names: list[str], values: list[str]) -> list[str]:
        """The statements that convert numbers to float64 tensors."""
        if len(values) == 1 and values[0].startswith("*"):
            return [f"{_target(names)} = (torch.as_tensor(x, dtype=torch.float64) for x in {values[0][1:]})"]
        if len(values) == 1:
            return [f"{names[0]} = torch.as_tensor({values[0]}, dtype=torch.float64)"]
        numbers = listed("numbers = (", values, ")", brackets=len(values) > 1)
        assigned = listed("", names, " = (torch.as_tensor(x, dtype=torch.float64) for x in numbers)")
        return [*numbers, *assigned] if names else []

    def advance(self) -> list[str]:
        """The elementwise function, in place."""
        program = self.program
        lines = self._received()
        if program.uses("w") or self.decays:
            lines.append("w = p.to(_precision(p), copy=torch.is_grad_enabled())  # p changes in place below")
        if program.uses("g"):
            lines.append("g = (-g if maximize else g).to(_precision(p))")
        if self.needs_loss:
            given = "-loss if maximize else loss"
            lines.append(f"loss = torch.as_tensor({given}, dtype=_precision(p), device=p.device).reshape(())")
        lines += self._inputs()
        lines += self._body()
        lines.append("p.sub_(lr * (phi + weight_decay * w))" if self.decays else "p.sub_(lr * phi)")
        states = "".join(f", {name}" for name in self.states)
        what = "one parameter" + (" and its state" if self.states else "") + ("s" if len(self.states) > 1 else "")
        how = "in place; see ``_run`` for what it yields" if self.asks else "in place"
        how = how if self.reduces else f"elementwise and {how}"
        helped = helpers(self.program, self._printer([]), fragments.ORTH)
        return [
            f"def _advance(p, g{states}{', loss' * self.needs_loss}, numbers, maximize):",
            f'    """Update {what} by the formula, {how}."""',
            *(f"    {line}" for line in lines),
            *(["", "", *helped[:-2]] if helped else []),
        ]

    def native(self) -> str:
        """The code that runs an elementwise formula in C; empty if there is none."""
        if self.reduces or self.needs_loss:
            return ""
        try:
            source = native_source(self.program, self.passed, self.decays)
        except NotImplementedError:  # an operator that C lacks
            return ""
        return Template(_template("torch_native.txt")).substitute(source=source)

    def _freed(
        self, before: Sequence[tuple[str, sympy.Expr]], after: Sequence[tuple[str, sympy.Expr]], lines: Sequence[str]
    ) -> list[str]:
        """The statement that frees the arrays of ``before`` that are not needed any more."""
        needed = {free.name for _, value in after for free in value.free_symbols}
        arrays = [name for name, _ in before if self.program.kinds.get(name) is Kind.COORDINATE]
        freed = {name for line in lines if line.startswith("del ") for name in line[4:].split(", ")}
        unused = [name for name in arrays if name not in needed and name not in self.states and name not in freed]
        return [f"del {', '.join(unused)}"] if unused else []

    def _inputs(self) -> list[str]:
        """The statements that define the tensor's own numbers."""
        values = {"fan_in": "max(math.prod(p.shape[1:]), 1)", "is_vector": "float(p.dim() < 2)"}
        return [
            f"{name} = torch.full((), {value}, dtype=_precision(p), device=p.device)"
            for name, value in values.items()
            if self.program.uses(name)
        ]

    def _printer(self, names: Sequence[str]) -> TorchPrinter:
        return TorchPrinter({*self.program.elementwise, *names, *_HELPED})

    def _received(self) -> list[str]:
        """The statements that unpack the numbers, as many per line as fit."""
        rows: list[list[str]] = [[]]
        for name in self.passed:
            if len(", ".join([*rows[-1], name])) + len("     = numbers[00:00]") > WIDTH:
                rows.append([])
            rows[-1].append(name)
        if len(rows) == 1:
            return listed("", self.passed, " = numbers")
        ends = [*itertools.accumulate(map(len, rows[:-1]))]
        parts = zip(["", *ends], [*ends, ""], rows)
        return [line for first, last, row in parts for line in listed("", row, f" = numbers[{first}:{last}]")]

    def _body(self) -> list[str]:
        """The statements of states, features and phi. Each state's tensor holds the old value, then the new one."""
        phi = Assignment("phi", self.program.outputs[0])
        if self.branches is None:
            (lines,) = self._statements([*self.program.body, phi])
            return lines
        ends = [(*self.branches.parts[mask], Assignment("phi", self.branches.outputs[mask])) for mask in MASKS]
        lines, matrices, vectors = self._statements(self.branches.common, *ends)
        return [
            *lines,
            f"if {fragments.IS['matrices']}:",
            *(f"    {line}" for line in matrices),
            "else:",
            *(f"    {line}" for line in vectors),
        ]

    def _statements(self, *parts: Sequence[Assignment]) -> list[list[str]]:
        """The statements of consecutive parts."""
        steps = [(a.name, renamed(a.value)) for part in parts for a in part]
        printer = self._printer([name for name, _ in steps])
        split = [replace(self.program, body=tuple(part)) for part in parts]
        groups = {group[0].name: group for part in split for group in rounds(part)} if self.reduces else {}
        reduced = {a.name for group in groups.values() for a in group if a.reduction is not None}
        old = {symbol(f"{state}_prev"): symbol(state) for state in self.states}
        ends = [*itertools.accumulate(map(len, parts))]
        found: list[list[str]] = []
        lines: list[str] = []
        for i, (name, value) in enumerate(steps):
            while i in ends[len(found) : len(found) + 1]:
                found.append(lines)
                lines = []
            if name in reduced:
                group = groups.get(name, [])  # at its first name
                done = _reduced([Assignment(a.name, a.value.xreplace(old)) for a in group])
                if any("yield" in line for line in done):
                    lines += self._freed(steps[:i], steps[i:], lines)
                lines += done
                continue
            if name not in self.states:
                text = printer.doprint(value.xreplace(old))
                lines += statement(name, f"{text}.clone()" if value in old else text)  # changes in place below
                continue
            previous = symbol(f"{name}_prev")
            if any(previous in later.free_symbols for _, later in steps[i + 1 :]):
                lines.append(f"{previous} = {name}.clone()")
            lines += recurrence(name, value, previous, value.xreplace(old), printer)
            del old[previous]
        return [*found, lines]


def _reduced(group: Sequence[Assignment]) -> list[str]:
    """The statements for reductions that can be computed together."""
    asks: dict[str, str] = {}  # each once, for a tensor's norm and its rms
    order = [*_NORMS, *(a.reduction.name for a in group if a.reduction is not None)]
    for a in sorted(group, key=lambda a: order.index(a.reduction.name if a.reduction else "")):
        if ask := _ask(a):
            asks.setdefault(ask, a.name)
    asked = f"({_tuple([*asks])})" if len(asks) == 1 else _tuple([*asks])
    lines = listed("", [*asks.values()], f" = yield {asked}") if asks else []
    for a in group:
        if a.reduction is not None and (ask := _ask(a)):
            value = asks[ask] + _DIVIDED.get(a.reduction.name, "").format(x=a.value.args[0].name)
            lines += [f"{a.name} = {value}"] if value != a.name else []
    return lines + reductions(group, fragments.OWN, fragments.TOTALS, ("[", "]"))


def _ask(a: Assignment) -> str:
    """What the formula yields for the reduction over one tensor; empty if it needs no answer."""
    arguments = [x.name for x in a.value.args]
    if a.reduction is None or a.reduction.gives is Kind.RUN or a.reduction.local:
        return ""
    return arguments[0] if a.reduction.name in _NORMS else f"({_tuple(arguments)})"


_NORMS = ("norm", "rms")
_DIVIDED = {"rms": " / max({x}.numel(), 1) ** 0.5", "mean": " / max({x}.numel(), 1)"}
"""By what the answers for reductions over one tensor are divided."""


def _target(names: Sequence[str]) -> str:
    """The names as what a tuple is assigned to."""
    return f"({names[0]},)" if len(names) == 1 else ", ".join(names)


def _tuple(names: Sequence[str]) -> str:
    return ", ".join(names) + ("," if len(names) == 1 else "")
