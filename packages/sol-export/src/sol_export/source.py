"""Expressions as source text in Python's syntax, laid out as a formatter would."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from string import Template

import sympy
from sympy.printing.precedence import PRECEDENCE, precedence

from sol_symbols import OPERATORS, Assignment, ExpressionPrinter, Kind, Operator, Program, Reduction, symbol
from sol_symbols.operators import ORTH_POLYNOMIAL, ORTH_STEPS

__all__ = ["WIDTH", "ArrayPrinter", "defined", "helpers", "indented", "listed", "reductions", "rounds", "statement"]

WIDTH = 120

_NUMBERED = re.compile(r"[ck](\d+)")
_SIMPLE = re.compile(r"-?[\w.]+")


class ArrayPrinter(ExpressionPrinter):
    """Source text for arrays.

    In products, numbers come first, as in ``lr * decay * x``, to minimize the number of elementwise operations. Arrays
    are divided by numbers, but never a number by a number, because Python's floats raise an error where arrays return
    infinity.

    Args:
        prefix: Prefix of every function's name, such as ``"torch."``.
        elementwise: Names of arrays; all other names are numbers.
        functions: Function names that replace the names of operators.
    """

    def __init__(self, prefix: str, elementwise: Collection[str], functions: dict[str, str] | None = None) -> None:
        super().__init__(prefix, functions)
        self._elementwise = frozenset(elementwise)

    def _print_Function(self, expr: sympy.Function) -> str:
        operator = defined(type(expr))
        if operator is None:
            return super()._print_Function(expr)
        return f"_{operator.name}({', '.join(self._arguments(expr))})"

    def _arguments(self, call: sympy.Function) -> list[str]:
        """The arguments of a call of a helper function."""
        return [*map(self._print, call.args)]

    def _print_Integer(self, expr: sympy.Integer) -> str:
        return repr(float(expr)) if abs(expr) >= 2**31 else str(super()._print_Integer(expr))  # beyond int32

    def is_array(self, value: sympy.Expr) -> bool:
        """Whether the value is an array, not a number."""
        return not self._elementwise.isdisjoint(free.name for free in value.free_symbols)

    def _as_ordered_terms(self, expr: sympy.Expr, order: str | None = None) -> list[sympy.Expr]:
        """Order terms by the number in their constants and coefficients: c2 before c10."""

        def number(term: sympy.Expr) -> int:
            names = (_NUMBERED.fullmatch(free.name) for free in term.free_symbols)
            return min((int(name[1]) for name in names if name), default=0)

        terms: list[sympy.Expr] = super()._as_ordered_terms(expr, order)
        return sorted(terms, key=number)

    def doprint(self, expr: sympy.Expr) -> str:
        """Source text of the value."""
        return self._leading(expr, super().doprint(expr))

    def _print_Add(self, expr: sympy.Add, order: str | None = None) -> str:
        return self._leading(self._as_ordered_terms(expr)[0], super()._print_Add(expr, order))

    def _leading(self, term: sympy.Expr, text: str) -> str:
        """``text``, which begins with ``term``, with parentheses in ``-(x**2)`` as formatters have them."""
        power = self._print(-term) if (-term).is_Pow else ""
        return f"-({power}){text[len(power) + 1 :]}" if "**" in power and text.startswith(f"-{power}") else text

    def _print_Mul(self, expr: sympy.Mul) -> str:
        above: list[sympy.Expr] = []
        below: list[sympy.Expr] = []
        sign = ""
        for factor in expr.args:
            if factor.is_Rational:
                sign = "-" if factor < 0 else ""
                above += [sympy.Integer(abs(factor.p))] if abs(factor.p) != 1 else []
                below += [sympy.Integer(factor.q)] if factor.q != 1 else []
            elif factor.is_Float and factor < 0:
                sign = "-"
                above.append(-factor)
            elif factor.is_Pow and factor.exp.is_Number and factor.exp < 0:
                below.append(factor.base if factor.exp == -1 else factor.base**-factor.exp)
            else:
                above.append(factor)
        product = " * ".join(self.parenthesize(x, PRECEDENCE["Mul"]) for x in sorted(above, key=self.is_array)) or "1"
        if not below:
            return sign + product
        if len(below) == 1:
            return f"{sign}{product} / {self.parenthesize(below[0], PRECEDENCE['Mul'], strict=True)}"
        return f"{sign}{product} / ({self._print(sympy.Mul(*below, evaluate=False))})"

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        base, exponent = expr.args
        if exponent is sympy.S.Half:
            return f"{self.function_name('sqrt')}({self._print(base)})"
        if exponent.is_Number and exponent < 0:
            return (
                f"1 / {self.parenthesize(base**-exponent if exponent != -1 else base, PRECEDENCE['Mul'], strict=True)}"
            )
        power = self._print(exponent)
        if precedence(exponent) < PRECEDENCE["Atom"] or not (exponent.is_Integer or exponent.is_Symbol):
            power = f"({power})"
        text = self.parenthesize(base, PRECEDENCE["Pow"])  # ** groups from the right
        hug = _SIMPLE.fullmatch(text) and _SIMPLE.fullmatch(power)
        return f"{text}**{power}" if hug else f"{text} ** {power}"

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return f"{expr.p} / {expr.q}"


def defined(function: type[sympy.Basic]) -> Operator | None:
    """The operator with a definition whose calls are of this class."""
    return next((o for o in OPERATORS.values() if o.definition is not None and o.function is function), None)


_ORTH = Template(
    '''
def _orth(x):
    """Return the polar factor of a matrix (rows by all other dimensions), by Newton-Schulz steps as in Muon.

    It is multiplied by sqrt(max(1, rows/columns)). A vector is divided by its root mean square.
    """
    if $count == 0:
        return x
    x = x / $largest  # squares of small numbers would be 0
    x = x / $norm
    if $dimensions < 2:
        return x * $root
    matrix = $matrix
    rows, columns = matrix.shape
    matrix = matrix.T if rows > columns else matrix
    one = $one
    gram = matrix @ matrix.T  # the steps need the small Gram matrix only
    factor = step = $a * one - $b * gram + $c * (gram @ gram)
    for _ in range($steps):
        gram = step @ gram @ step
        step = $a * one - $b * gram + $c * (gram @ gram)
        factor = step @ factor
    matrix = factor @ matrix * max(1, rows / columns) ** 0.5
    return (matrix.T if rows > columns else matrix).reshape(x.shape)
'''.strip()
)


def helpers(program: Program, printer: ArrayPrinter, orth: Mapping[str, str]) -> list[str]:
    """Return the lines of the functions that the code calls: operators with a definition, and ``orth``.

    Args:
        program: The code.
        printer: Prints it.
        orth: What ``orth`` is made of, in the language: ``count``, ``dimensions`` and ``root`` (of the count) of x, its
            ``largest`` value, at least :data:`~sol_symbols.operators.TINY`, its ``norm``, at least 1, the ``matrix`` of
            its rows, and the identity ``one`` of ``matrix``.
    """
    values = [*(a.value for a in (*program.scalars, *program.body)), *program.outputs]
    lines: list[str] = []
    for operator in reversed([*OPERATORS.values()]):  # definitions use earlier operators
        called = {call.func for value in values for call in value.atoms(sympy.Function)}
        if operator.function in called and operator.definition is not None:
            names = ["x", "y"][: operator.arity]
            value = operator.definition(*map(symbol, names))
            values.append(value)
            lines += [
                f"def _{operator.name}({', '.join(names)}):",
                f'    """Return {operator.description}."""',
                f"    return {printer.doprint(value)}",
                "",
                "",
            ]
    if any(a.reduction and a.reduction.name == "orth" for a in program.body):
        a, b, c = ORTH_POLYNOMIAL
        lines += [*_ORTH.substitute(orth, a=a, b=abs(b), c=c, steps=ORTH_STEPS - 1).splitlines(), "", ""]
    return lines


def rounds(program: Program) -> list[list[Assignment]]:
    """Return the body, split between code without reductions and reductions that can be computed together."""
    groups: list[list[Assignment]] = []
    for assignment in program.body:
        reduces = isinstance(assignment.reduction, Reduction)
        run = reduces and assignment.reduction.gives is Kind.RUN  # type: ignore[union-attr]
        last = groups[-1][-1].reduction if groups else None
        same = groups and (last is not None) == reduces
        inner = reduces and groups and {a.name for a in groups[-1]} & {*assignment.needs}  # as in norm(orth(x))
        if same and not inner and (not reduces or (last is not None and (last.gives is Kind.RUN) == run)):
            groups[-1].append(assignment)
        else:
            groups.append([assignment])
    return groups


def statement(name: str, text: str, indent: int = 4) -> list[str]:
    """Return the lines of ``name = text``, broken between terms if longer than ``WIDTH``."""
    line = f"{name} = {text}"
    if indent + len(line) <= WIDTH:
        return [line]
    head, inner = _last_brackets(text)
    return [f"{name} = {head}(", *(f"    {part}" for part in _broken(inner, WIDTH - indent - 4)), ")"]


def _last_brackets(text: str) -> tuple[str, str]:
    """Return what is before and inside of the brackets at the end of ``text``, where a formatter breaks the line.

    These are ``text``'s own if it ends with brackets that at most one factor precedes, else brackets around all of it.
    """
    depth = 0
    for i in range(len(text) - 1, -1, -1):
        depth += (text[i] == ")") - (text[i] == "(")
        if depth == 0:
            break
    head = text[:i]
    if not text.endswith(")") or len(_terms(text)) > 1 or len(_parts(head, (" * ", " / ", " ** "))) > 2:
        return "", text
    return head, text[i + 1 : -1]


def listed(before: str, names: Sequence[str], after: str, indent: int = 4, brackets: bool = False) -> list[str]:
    """Return the lines of ``before``, the comma-separated names, ``after``; one name per line if one line is too long.

    Args:
        before: Text before the names.
        names: The names.
        after: Text after the names.
        indent: Number of columns by which the lines will be indented.
        brackets: Whether ``before`` opens and ``after`` closes brackets around the names.
    """
    joined = f"({names[0]},)" if len(names) == 1 and not brackets else ", ".join(names)
    line = f"{before}{joined}{after}"
    if indent + len(line) <= WIDTH:
        return [line]
    opened, closed = (before, after) if brackets else (f"{before}(", f"){after}")
    return [opened, *(f"    {name}," for name in names), closed]


def indented(columns: int, lines: Sequence[str]) -> str:
    """Join the lines into one text, indented by ``columns``."""
    return textwrap.indent("\n".join(lines), " " * columns)


def _broken(text: str, width: int) -> list[str]:
    """Break ``text`` into lines of at most ``width`` characters, if possible, between terms or inside parentheses."""
    if len(text) <= width:
        return [text]
    lines: list[str] = []
    for term in _terms(text):
        opening, closing = term.find("("), term.rfind(")")
        if len(term) <= width or opening < 0:
            lines.append(term)
        else:
            inner = _broken(term[opening + 1 : closing], width - 4)
            lines += [term[: opening + 1], *(f"    {line}" for line in inner), term[closing:]]
    return lines


def _terms(text: str) -> list[str]:
    """Split ``a + b - c`` into ``a``, ``+ b``, ``- c``."""
    return _parts(text, (" + ", " - "))


def _parts(text: str, operators: Sequence[str]) -> list[str]:
    """Split ``text`` before the operators that are outside of brackets."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if depth == 0 and text.startswith(tuple(operators), i):
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def reductions(
    group: Sequence[Assignment],
    own: Mapping[str, str],
    totals: Mapping[str, tuple[str, Sequence[str]]],
    around: tuple[str, str],
) -> list[str]:
    """Statements for reductions that can be computed together.

    Args:
        group: Assignments of one reduction each.
        own: Value of each reduction over one tensor by name, in terms of ``{x}`` and ``{y}``, its arguments.
        totals: For each reduction over all tensors, its value in terms of sums ``{0}``, ``{1}``, ..., and the part of
            each sum that one tensor contributes.
        around: What is before and after these parts in what the statements yield.
    """
    lines, sums, after = list[str](), list[str](), list[str]()
    for a in group:
        known = {"x": a.value.args[0].name, "y": a.value.args[-1].name}
        reduction = a.reduction.name if a.reduction else ""
        if reduction in own:
            lines.append(f"{a.name} = {own[reduction].format(**known)}")
        elif reduction in totals:
            value, parts = totals[reduction]
            after.append(f"{a.name} = {value.format(*(f'totals[{len(sums) + i}]' for i in range(len(parts))))}")
            sums += [part.format(**known) for part in parts]
    if sums:
        lines += listed(f"totals = yield {around[0]}", sums, around[1], 4, brackets=True)
    return lines + after
