"""C code of an EQL network: one function computes a step, one accumulates a window's meta-gradient.

It is printed from the same SymPy expressions as everything else: the features' program, the operator table, and the
derivatives of its operators. Coordinates are processed in blocks whose features, units and derivatives stay in the
processor's first cache; within a block, every loop goes over coordinates, so the compiler can vectorize it.

Arrays of a block, in order of computation: features x, and for each layer l the rows z_l of
weights times inputs and the units h_l = f(z_l). Backwards: e_l = dL/dh_l and d_l = dL/dz_l.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import final

import sympy

from sol_learner.networks.base import EQLLayers
from sol_symbols import Evaluator, symbol
from sol_symbols.c_printer import C_INCLUDES, c_functions, format_c

__all__ = ["native_source", "scalar_names"]

_AT_ONCE = 12  # sums that fit into a processor's vector registers together


def native_source(network: EQLLayers, features: Evaluator, real: str) -> str:
    """The code, with ``real`` for numbers: ``float`` or ``double``.

    Args:
        network: phi.
        features: Its features; elementwise code of their program must refer to numbers only by name.
        real: C's name of the type of coordinates.

    Returns:
        C99 with two functions. They process coordinates start <= i < stop; n is the number of all; g, w, state and
        old are gradients, parameters (unless unused) and states before; W the network's weights, all the scalars of
        every step::

            forward(start, stop, g, w, state, W, all, phi)
            vjp(start, stop, n, steps, g[], w[], old, W, all, cotangents, out)

        The first writes new states over the old ones. The second adds sum_t <cotangent_t, d phi_t/dW> to out,
        double, for all weights one after the other.
    """
    return _Code(network, features).text(real)


def scalar_names(features: Evaluator) -> list[str]:
    """Names of the numbers that are the same for all coordinates, in the order in which the code receives them."""
    program = features.program
    needs = {n for a in program.body for n in a.needs} | {f.name for o in program.outputs for f in o.free_symbols}
    return sorted(needs - program.elementwise)


def _loop(*body: str) -> list[str]:
    return ["#pragma omp simd", "for (long i = 0; i < m; ++i) {", *_inner(body), "}"]


def _inner(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _function(head: str, *body: str) -> list[str]:
    return [head + " {", *_inner(body), "}"]


def _sums(factor: str, products: Sequence[tuple[str, str]]) -> list[str]:
    """target += sum_i factor[i] * value, for each (target, value); some at a time, as each is a chain of additions."""
    lines = []
    for start in range(0, len(products), _AT_ONCE):
        part = [(f"s{k}", *product) for k, product in enumerate(products[start : start + _AT_ONCE])]
        lines += ["{", f"  real {', '.join(f'{name} = 0' for name, _, _ in part)};"]
        lines += [f"#pragma omp simd reduction(+ : {', '.join(name for name, _, _ in part)})"]
        lines += ["  for (long i = 0; i < m; ++i) {", f"    const real f = {factor}[i];"]
        lines += [f"    {name} += f * {value};" for name, _, value in part] + ["  }"]
        lines += [f"  {target} += {name};" for name, target, _ in part] + ["}"]
    return lines


def _derivative(value: sympy.Expr, by: sympy.Symbol) -> sympy.Expr:
    """As automatic differentiation has it: that of sign is 0 at 0, too."""
    return sympy.diff(value, by).replace(sympy.DiracDelta, lambda *_: sympy.S.Zero)


@final
class _Code:
    def __init__(self, network: EQLLayers, features: Evaluator) -> None:
        self.program, self.varying = features.program, features.varying
        self.operators = network.operators
        self.uniform = [i for i in range(len(self.program.outputs)) if i not in self.varying]
        self.scalars, self.states = scalar_names(features), list(self.program.states)
        self.units = [len(layer) for layer in network.operators]
        self.rows = [sum(operator.arity for operator in layer) for layer in network.operators]
        self.inputs = [len(self.program.outputs), *self.units[:-1]]  # columns of each layer's weights
        self.last = len(self.units) - 1

    def text(self, real: str) -> str:
        prelude = f"{C_INCLUDES}enum {{ BLOCK = 128 }};\n{c_functions()}"
        lines = [f"typedef {real} real;", prelude, *self.features(), *self.bias()]
        for layer in range(len(self.units)):
            lines += self.layer(layer)
        return "\n".join([*lines, *self.forward(), *self.vjp(), ""])

    def known(self, kind: str) -> list[str]:
        """Scalars by their names."""
        return [f"const {kind} v_{name} = ({kind})s[{place}];" for place, name in enumerate(self.scalars)]

    def columns(self, layer: int) -> list[tuple[int, str]]:
        """Column of a layer's weights and the array that it is multiplied by, for inputs that vary in a block."""
        if layer:
            return [(j, f"h{layer - 1}[{j}]") for j in range(self.inputs[layer])]
        return [(i, f"x[{place}]") for place, i in enumerate(self.varying)]

    def features(self) -> list[str]:
        program = self.program
        states = "".join(f", const real *o_{s}, real *n_{s}" for s in self.states)  # may be one array
        return _function(
            "INLINE void features(long m, const double *restrict s, const real *restrict g, const real *restrict w"
            f"{states}, real (*restrict x)[BLOCK])",
            *self.known("real"),
            *_loop(
                "const real v_g = g[i];",
                *(["const real v_w = w[i];"] if program.uses("w") else []),
                *(f"const real v_{s}_prev = o_{s}[i];" for s in self.states),
                *(f"const real v_{a.name} = {format_c(a.value)};" for a in program.body),
                *(f"x[{place}][i] = {format_c(program.outputs[i])};" for place, i in enumerate(self.varying)),
                *(f"n_{s}[i] = v_{s};" for s in self.states),
            ),
        )

    def bias(self) -> list[str]:
        """The contribution of features u that are the same for all coordinates to each row of the first layer."""
        products = (f"q[{i}] * u[{place}]" for place, i in enumerate(self.uniform))
        return _function(
            "static void uniform(const double *restrict s, const real *restrict W, double *restrict u,"
            " real *restrict b)",
            *self.known("double"),
            *(f"u[{place}] = {format_c(self.program.outputs[i])};" for place, i in enumerate(self.uniform)),
            f"for (int r = 0; r < {self.rows[0]}; ++r) {{",
            f"  const real *q = W + r * {self.inputs[0]};",
            f"  b[r] = (real)({' + '.join(products) or '0'});",
            "}",
        )

    def layer(self, layer: int) -> list[str]:
        """Rows, units, and the way back from dL/dh to dL/dz."""
        columns = self.columns(layer)
        source = f"const real (*restrict {'x' if layer == 0 else f'h{layer - 1}'})[BLOCK]"
        terms = [*(["b[r]"] if layer == 0 else []), *(f"c{k} * {array}[i]" for k, (_, array) in enumerate(columns))]
        lines = _function(
            f"INLINE void rows{layer}(long m, const real *restrict W, const real *restrict b, {source},"
            " real (*restrict z)[BLOCK])",
            f"for (int r = 0; r < {self.rows[layer]}; ++r) {{",
            f"  const real *restrict q = W + r * {self.inputs[layer]};",
            *(f"  const real c{k} = q[{j}];" for k, (j, _) in enumerate(columns)),
            *_inner(_loop(f"z[r][i] = {' + '.join(terms)};")),
            "}",
        )
        values, slopes, row = [], [], 0
        for unit, operator in enumerate(self.operators[layer]):
            arguments = [symbol(f"x{k}") for k in range(operator.arity)]
            value = operator(*arguments)
            fetch = [f"const real v_x{k} = z[{row + k}][i];" for k in range(operator.arity)]
            parts = [format_c(_derivative(value, argument)) for argument in arguments]
            values += _loop(*fetch, f"h[{unit}][i] = {format_c(value)};")
            slopes += _loop(*fetch, *(f"d[{row + k}][i] = e[{unit}][i] * ({part});" for k, part in enumerate(parts)))
            row += operator.arity
        z, h, e, d = (
            f"{kind}real (*restrict {name})[BLOCK]" for name, kind in zip("zhed", ("const ", "", "const ", ""))
        )
        lines += _function(f"INLINE void units{layer}(long m, {z}, {h})", *values)
        return lines + _function(f"INLINE void slopes{layer}(long m, {z}, {e}, {d})", *slopes)

    def arrays(self) -> list[str]:
        shapes = zip(itertools.count(), self.rows, self.units)
        return [
            f"real b[{self.rows[0]}], x[{max(len(self.varying), 1)}][BLOCK];",
            f"double u[{max(len(self.uniform), 1)}];",
            *(f"real z{layer}[{rows}][BLOCK], h{layer}[{units}][BLOCK];" for layer, rows, units in shapes),
        ]

    def layers(self) -> list[str]:
        lines = []
        for layer in range(len(self.units)):
            source = "x" if layer == 0 else f"h{layer - 1}"
            lines += [f"rows{layer}(m, W[{layer}], b, (void *){source}, z{layer});"]
            lines += [f"units{layer}(m, (void *)z{layer}, h{layer});"]
        return lines

    def forward(self) -> list[str]:
        states = "".join(f", state[{k}] + at, state[{k}] + at" for k in range(len(self.states)))
        phi = " + ".join(f"W[{self.last + 1}][{unit}] * h{self.last}[{unit}][i]" for unit in range(self.units[-1]))
        return _function(
            "void forward(long start, long stop, const real *g, const real *w, real *const *state,"
            " const real *const *W, const double *s, real *phi)",
            *self.arrays(),
            "uniform(s, W[0], u, b);",
            *self.blocks(
                f"features(m, s, g + at, w ? w + at : 0{states}, x);",
                *self.layers(),
                "real *restrict out = phi + at;",
                *_loop(f"out[i] = {phi};"),
            ),
        )

    def blocks(self, *body: str) -> list[str]:
        return [
            "for (long at = start; at < stop; at += BLOCK) {",
            "  const long m = stop - at < BLOCK ? stop - at : BLOCK;",
            *_inner(body),
            "}",
        ]

    def vjp(self) -> list[str]:
        count = len(self.states)
        states = "".join(f", state[t % 2][{k}], state[1 - t % 2][{k}]" for k in range(count))
        shapes = zip(itertools.count(), self.rows, self.units)
        return _function(
            "void vjp(long start, long stop, long n, long steps, const real *const *g, const real *const *w,"
            " const real *const *old, const real *const *W, const double *all, const real *cotangents, double *out)",
            *self.arrays(),
            *(f"real e{layer}[{units}][BLOCK], d{layer}[{rows}][BLOCK];" for layer, rows, units in shapes),
            f"real state[2][{max(count, 1)}][BLOCK];",
            *self.blocks(
                *(f"for (long i = 0; i < m; ++i) state[0][{k}][i] = old[{k}][at + i];" for k in range(count)),
                "for (long t = 0; t < steps; ++t) {",
                f"  const double *s = all + t * {len(self.scalars)};",
                "  const real *restrict c = cotangents + t * n + at;",
                "  uniform(s, W[0], u, b);",
                f"  features(m, s, g[t] + at, w ? w[t] + at : 0{states}, x);",
                *_inner([*self.layers(), *self.gradients()]),
                "}",
            ),
        )

    def gradients(self) -> list[str]:
        """Derivatives by the weights of each layer, the last first, added to ``out``."""
        sizes = [rows * inputs for rows, inputs in zip(self.rows, self.inputs)]
        places = [0, *itertools.accumulate(sizes)]
        last = range(self.units[-1])
        lines = _sums("c", [(f"out[{places[-1] + j}]", f"h{self.last}[{j}][i]") for j in last])
        lines += _loop(*(f"e{self.last}[{j}][i] = W[{self.last + 1}][{j}] * c[i];" for j in last))
        for layer in range(self.last, -1, -1):
            products = [(f"q[{j}]", f"{array}[i]") for j, array in self.columns(layer)]
            if layer == 0 and self.uniform:
                products.append(("sum", "1"))
            lines += [
                f"slopes{layer}(m, (void *)z{layer}, (void *)e{layer}, d{layer});",
                f"for (int r = 0; r < {self.rows[layer]}; ++r) {{",
                f"  double *restrict q = out + {places[layer]} + r * {self.inputs[layer]}, sum = 0;",
                *_inner(_sums(f"d{layer}[r]", products)),
                *(f"  q[{i}] += sum * u[{place}];" for place, i in enumerate(self.uniform) if layer == 0),
                "}",
            ]
            if layer:
                terms = (
                    f"W[{layer}][{r * self.inputs[layer]} + j] * d{layer}[{r}][i]" for r in range(self.rows[layer])
                )
                lines += [f"for (int j = 0; j < {self.inputs[layer]}; ++j) {{"]
                lines += [*_inner(_loop(f"e{layer - 1}[j][i] = {' + '.join(terms)};")), "}"]
        return lines
