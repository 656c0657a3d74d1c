"""The text form of expressions: a lossless printer, and a parser that executes nothing.

Grammar (a subset of Python's expression grammar, with Python's precedences)::

    expression  = expression ("+" | "-" | "*" | "/" | "**") expression
                | ("-" | "+") expression
                | operator "(" expression ("," expression)* ")"
                | "(" expression ")"
                | name | number

``name`` is one of the names that the caller allows, ``operator`` one of :data:`sol_symbols.OPERATORS` or
:data:`sol_symbols.REDUCTIONS`, ``number`` a Python integer or float literal. :func:`ast.parse`, which runs nothing,
turns the text into a tree. The tree is walked with a whitelist of node types; an error shows the place of anything
that is not in the grammar.
"""

from __future__ import annotations

import ast
import difflib
import functools
import math
import re
import threading
import warnings
from collections.abc import Callable, Collection, Mapping

import sympy
from sympy.printing.precedence import PRECEDENCE, precedence
from sympy.printing.str import StrPrinter

from sol_symbols.errors import RuleError, quoted
from sol_symbols.kinds import Kind
from sol_symbols.operators import Reduction, calls, kind_of, operator_of

__all__ = [
    "ExpressionPrinter",
    "canonical",
    "count_terms",
    "expand_terms",
    "format_expression",
    "format_number",
    "parse_expression",
    "symbol",
    "tidy",
]

MAX_CHARACTERS = 200_000
MAX_DEPTH = 100
MAX_FACTORS = 100
MAX_MINIMA = 8
MAX_TERMS = 2_000
MAX_BITS = 1_024
MAX_EXPONENT = 64

_BINARY: dict[type[ast.operator], Callable[[sympy.Expr, sympy.Expr], sympy.Expr]] = {
    ast.Add: lambda x, y: x + y,
    ast.Sub: lambda x, y: x - y,
    ast.Mult: lambda x, y: x * y,
    ast.Div: lambda x, y: x / y,
    ast.Pow: lambda x, y: x**y,
}


def symbol(name: str) -> sympy.Symbol:
    """The SymPy symbol that stands for ``name`` everywhere in this project (real, commutative)."""
    return sympy.Symbol(name, real=True)


def parse_expression(text: str, names: Collection[str]) -> sympy.Expr:
    """Read an expression.

    Args:
        text: The expression's text form.
        names: The names that it can use; if it maps them to kinds, arguments of reductions must be of the right kind.

    Returns:
        The SymPy expression. Integer literals become exact integers, float literals 53-bit floats.

    Raises:
        RuleError: The text is not in the grammar, uses an unknown name, has more than 200,000 characters, is nested
            deeper than 100 levels, contains a constant beyond float64, or reduces a value of another kind. The message
            shows where.
    """
    if len(text) > MAX_CHARACTERS:
        raise RuleError(f"an expression can have at most {MAX_CHARACTERS:,} characters, got {len(text):,}")
    # Leading white space would be an indentation error. It is replaced by spaces, which keeps the offsets.
    body = text.replace("\n", " ").replace("\r", " ").replace("\t", " ").replace("\f", " ")
    lead = len(body) - len(body.lstrip())
    if lead == len(body):
        raise RuleError("empty expression", text, 0)
    if "#" in body:
        raise RuleError("comments are not allowed in an expression", text, body.index("#"))
    try:
        with _PARSING, warnings.catch_warnings():  # on words such as 1if: of no use to a person who reads a rule
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(body[lead:], mode="eval")
    except SyntaxError as error:
        offset = lead + min(max((error.offset or 1) - 1, 0), len(body) - lead)
        raise RuleError(f"not an expression: {error.msg}", text, offset) from None
    except (RecursionError, MemoryError):
        raise RuleError(
            "expression cannot be read: nested too deeply, or a sum of too many terms", text, lead
        ) from None
    except ValueError as error:  # null characters, lone surrogates
        raise RuleError(f"expression cannot be read: {error}", text, lead) from None
    try:
        return _Reader(text, body, lead, names).read(tree.body, 0)
    except RecursionError:  # an operator's meaning can be deeper than its text
        raise RuleError("the expression is nested too deeply", text, lead) from None


_PARSING = threading.Lock()  # warning filters, and the parser of Python 3.11, are not thread-safe


_OF_THE_PAPER = {
    "sg": "sign(g) here; its m and v are m_hat and sqrt(v_hat)",
    "sm": "sign(m_hat) here; its m and v are m_hat and sqrt(v_hat)",
}
"""Names that the paper's code has and formulas here lack."""


class _Reader:
    """Walks a syntax tree; anything outside the grammar is an error that shows its place."""

    def __init__(self, text: str, body: str, lead: int, names: Collection[str]) -> None:
        self.text, self.names, self.lead = text, names, lead
        self.kinds: Mapping[str, Kind] | None = names if isinstance(names, Mapping) else None
        self.ascii = body.isascii()
        self.encoded = body[lead:].encode()  # the syntax tree counts UTF-8 bytes
        self.known: dict[bytes, sympy.Expr] = {}  # by text: formulas of networks repeat themselves

    def fail(self, message: str, node: ast.expr) -> RuleError:
        column = node.col_offset
        if not self.ascii:  # carets count characters
            column = len(self.encoded[:column].decode(errors="ignore"))
        return RuleError(message, self.text, self.lead + column)

    def read(self, node: ast.expr, depth: int) -> sympy.Expr:
        if depth > MAX_DEPTH:
            raise self.fail(f"nested deeper than {MAX_DEPTH} levels", node)
        if isinstance(node, ast.BinOp | ast.Call):
            words = self.encoded[node.col_offset : node.end_col_offset]
            if words not in self.known:
                read = self.read_sum if isinstance(node, ast.BinOp) else self.read_call
                self.known[words] = read(node, depth)  # type: ignore[arg-type]
            return self.known[words]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self.read(node.operand, depth + 1)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.Name):
            return self.read_name(node)
        if isinstance(node, ast.Constant):
            return self.read_number(node)
        raise self.fail(
            f"{type(node).__name__.lower()} is not allowed; an expression consists of names, numbers, + - * / **, "
            f"parentheses and operators",
            node,
        )

    def read_sum(self, node: ast.BinOp, depth: int) -> sympy.Expr:
        """A chain ``a + b + c`` leans left and can be long: a loop walks it, without recursion."""
        chain: list[ast.BinOp] = []
        first: ast.expr = node
        while isinstance(first, ast.BinOp):
            chain.append(first)
            first = first.left
        value = self.read(first, depth + 1)
        terms, factors = [value], 0
        for link in reversed(chain):
            if isinstance(link.op, ast.BitXor):
                raise self.fail("^ is not allowed: write ** for powers, as in g**2", link)
            if type(link.op) not in _BINARY:
                raise self.fail(f"operator {type(link.op).__name__} is not allowed; use + - * / **", link)
            right = self.read(link.right, depth + 1)
            if isinstance(link.op, ast.Add | ast.Sub):  # collected: adding one by one is quadratic
                terms.append(right if isinstance(link.op, ast.Add) else -right)
                factors = 0
                continue
            factors += 1
            if factors > MAX_FACTORS:
                raise self.fail(f"product of more than {MAX_FACTORS} factors", link)
            left = self.checked(sympy.Add(*terms), link)
            terms = [self.combine(link, left, right)]
        return self.checked(sympy.Add(*terms), node)

    def combine(self, node: ast.BinOp, left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
        if isinstance(node.op, ast.Div) and right.is_zero:
            raise self.fail("division by zero", node.right)
        if isinstance(node.op, ast.Pow) and right.is_number and abs(right) > MAX_EXPONENT:
            raise self.fail(f"exponent beyond {MAX_EXPONENT}", node.right)
        value = _BINARY[type(node.op)](left, right)
        irrational = value.is_number and value.is_real and not value.is_Rational  # 2**(1/2)
        return self.checked(sympy.Float(float(value.evalf(20))) if irrational else value, node)

    def checked(self, value: sympy.Expr, node: ast.expr) -> sympy.Expr:
        """``value``, after checks of it and its numeric arguments; deeper parts were checked before."""
        if value.is_Float:
            value = sympy.Float(float(value))  # float64, like every float of this project
        for number in (value, *value.args):
            if number.is_Rational and max(number.p.bit_length(), number.q.bit_length()) > MAX_BITS:
                raise self.fail("constant beyond the range of float64", node)
            if number.is_number and not (number.is_Rational or (number.is_Float and math.isfinite(float(number)))):
                raise self.fail("constant is not a finite real number", node)
        return value

    def read_name(self, node: ast.Name) -> sympy.Expr:
        if node.id in self.names:
            return symbol(node.id)
        if node.id in calls():
            raise self.fail(f"{quoted(node.id)} is an operator: write its argument(s) in parentheses", node)
        if node.id == "lr":
            raise self.fail(
                "lr multiplies the whole formula: leave it out here, and state it as in 'g where lr = 0.1'", node
            )
        if node.id in _OF_THE_PAPER:
            raise self.fail(f"{node.id!r} of the SOL paper is {_OF_THE_PAPER[node.id]}", node)
        near = difflib.get_close_matches(node.id, [*self.names, *calls()], n=1)
        known = f"known: {', '.join(sorted(self.names))}"
        known = known if len(known) < 200 else "`sol glossary` lists the known names"
        hint = f"did you mean {near[0]!r}?" if near else known
        raise self.fail(f"unknown name {quoted(node.id)}; {hint}", node)

    def read_number(self, node: ast.Constant) -> sympy.Expr:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(f"{type(value).__name__} literal is not allowed; only numbers are", node)
        if (isinstance(value, int) and value.bit_length() > MAX_BITS) or not math.isfinite(value):
            raise self.fail("number beyond the range of float64", node)
        written = self.encoded[node.col_offset : node.end_col_offset].lower().partition(b"e")[0]
        if value == 0 and re.search(rb"[1-9]", written):
            raise self.fail("number too small for float64", node)
        return sympy.Integer(value) if isinstance(value, int) else sympy.Float(value)

    def read_call(self, node: ast.Call, depth: int) -> sympy.Expr:
        known = calls()
        if not isinstance(node.func, ast.Name) or node.func.id not in known:
            if isinstance(node.func, ast.Attribute) and node.func.attr in known:
                raise self.fail(f"operators are no methods: write {self.as_function(node, node.func)}", node)
            called = node.func.id if isinstance(node.func, ast.Name) else type(node.func).__name__.lower()
            raise self.fail(f"{quoted(called)} cannot be called; operators: {', '.join(known)}", node)
        operator = known[node.func.id]
        if node.keywords:
            raise self.fail(f"operator {operator.name!r} takes no arguments by name: write their values only", node)
        if len(node.args) != operator.arity:
            wanted = "1 argument" if operator.arity == 1 else f"{operator.arity} arguments"
            raise self.fail(f"operator {operator.name!r} takes {wanted}, got {len(node.args)}", node)
        arguments = [self.read(argument, depth + 1) for argument in node.args]
        if isinstance(operator, Reduction):
            return self.reduced(operator, arguments, node)
        # Functions of numbers are numbers: exp(1) is a float here, not a symbol.
        try:
            value = operator(*(sympy.Float(x) if x.is_number else x for x in arguments))
        except ZeroDivisionError:
            raise self.fail("division by zero", node) from None
        if isinstance(value, sympy.Min | sympy.Max) and _extrema(value) > MAX_MINIMA:  # SymPy compares all pairs
            raise self.fail(f"{operator.name} of more than {MAX_MINIMA} arguments", node)
        return self.checked(value, node)

    def as_function(self, node: ast.Call, method: ast.Attribute) -> str:
        """``abs(g)`` for ``g.abs()`` and ``numpy.abs(g)``."""
        of_module = isinstance(method.value, ast.Name) and method.value.id not in self.names
        arguments = [*([] if of_module else [method.value]), *node.args]
        words = ", ".join(self.encoded[x.col_offset : x.end_col_offset].decode() for x in arguments)
        return f"{method.attr}({words if len(words) <= 60 else '...'})"

    def reduced(self, operator: Reduction, arguments: list[sympy.Expr], node: ast.Call) -> sympy.Expr:
        for argument, place in zip(arguments, node.args):
            if argument.is_number:
                raise self.fail(operator.refusal("a number"), place)
            try:
                kind_of(operator(*[argument] * operator.arity), self.kinds or {})
            except RuleError as error:
                if self.kinds is not None:
                    raise self.fail(str(error), place) from None
        return operator(*arguments)


def _extrema(value: sympy.Expr) -> int:
    """Number of arguments of nested minima and maxima."""
    if not isinstance(value, sympy.Min | sympy.Max):
        return 1
    return sum(map(_extrema, value.args))


def format_number(value: float) -> str:
    """The shortest text that reads back as the same number: ``0.1``, ``2``, ``1e-08``."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e6 else repr(float(value))


class ExpressionPrinter(StrPrinter):
    """Prints an expression losslessly: the text reads back as the same expression, bit for bit.

    Args:
        prefix: Prepended to every function name, ``"torch."`` for source text.
        functions: Other names for operators, without the prefix: ``{"abs": "jnp.abs"}``.
    """

    def __init__(self, prefix: str = "", functions: dict[str, str] | None = None) -> None:
        super().__init__({"order": None})
        self._prefix, self._functions = prefix, functions or {}

    def function_name(self, name: str) -> str:
        """How the function ``name`` is called in the output."""
        return self._functions.get(name, self._prefix + name)

    def _print_Float(self, expr: sympy.Float) -> str:
        return repr(float(expr))

    _print_Exp1 = _print_Pi = _print_Float  # numbers that SymPy has names for

    def _print_Function(self, expr: sympy.Function) -> str:
        operator = operator_of(type(expr))
        name = self.function_name(operator.name if operator is not None else type(expr).__name__.lower())
        arguments = [self._print(argument) for argument in expr.args]
        while operator is not None and len(arguments) > operator.arity:  # SymPy's Min has any number of arguments
            arguments[-2:] = [f"{name}({arguments[-2]}, {arguments[-1]})"]
        return f"{name}({', '.join(arguments)})"

    _print_Abs = _print_ExpBase = _print_Min = _print_Max = _print_Function

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        base, exponent = expr.args
        if exponent is sympy.S.Half:
            return f"{self.function_name('sqrt')}({self._print(base)})"
        if exponent is -sympy.S.Half:
            return f"1/{self.function_name('sqrt')}({self._print(base)})"
        if exponent == -1:
            return f"1/{self.parenthesize(base, PRECEDENCE['Pow'])}"
        power = self._print(exponent)
        if precedence(exponent) < PRECEDENCE["Atom"] or (exponent.is_Rational and not exponent.is_Integer):
            power = f"({power})"
        return f"{self.parenthesize(base, PRECEDENCE['Pow'])}**{power}"


_PRINTER = ExpressionPrinter()


@functools.lru_cache(maxsize=64)  # a read-out has thousands of nodes
def expand_terms(expression: sympy.Expr) -> tuple[sympy.Expr, ...]:
    """The additive terms of ``expression``; products and integer powers are expanded, function arguments are not.

    An expression that would have more than 2,000 terms is not expanded.

    >>> [format_expression(term) for term in expand_terms(parse_expression("(a + b)*exp(a + b)", {"a", "b"}))]
    ['a*exp(a + b)', 'b*exp(a + b)']
    """
    if count_terms(expression) > MAX_TERMS:
        return sympy.Add.make_args(expression)
    calls: dict[sympy.Expr, sympy.Dummy] = {}

    def freeze(node: sympy.Expr) -> sympy.Expr:
        if node.is_Function:
            return calls.setdefault(node, sympy.Dummy())
        return node.func(*(freeze(argument) for argument in node.args)) if node.args else node

    thawed = sympy.expand(freeze(expression), power_base=False, power_exp=False, log=False)
    names = {dummy: call for call, dummy in calls.items()}
    return tuple(term.xreplace(names) for term in sympy.Add.make_args(thawed))


def count_terms(expression: sympy.Expr) -> int:
    """An upper bound on the number of terms that :func:`expand_terms` would return."""
    counts = [count_terms(argument) for argument in expression.args]
    if expression.is_Add:
        return sum(counts)
    if expression.is_Mul:
        return math.prod(counts)
    if expression.is_Pow and expression.exp.is_Integer and counts[0] > 1:
        power = abs(int(expression.exp))
        return math.comb(counts[0] + power - 1, power)
    return 1


def canonical(expression: sympy.Expr, names: Collection[str]) -> sympy.Expr:
    """The fixed point of formatting and parsing: what is written reads back unchanged; ``names`` as for parsing.

    Raises:
        RuleError: The expression is not a finite real formula over ``names``, or is nested too deeply.
    """
    try:
        text = format_expression(tidy(expression))
        for _ in range(8):
            expression = tidy(parse_expression(text, names))
            before, text = text, format_expression(expression)
            if text == before:
                return expression
    except RecursionError:
        raise RuleError("the expression is nested too deeply") from None
    raise RuleError(f"the expression has no stable text form: {text[:200]}")


def tidy(expression: sympy.Expr) -> sympy.Expr:
    """Small integral floats become integers: ``1.0*ad`` is ``ad``, ``g**2.0`` is ``g**2``."""
    integral = {
        number: sympy.Integer(int(number))
        for number in expression.atoms(sympy.Float)
        if float(number).is_integer() and abs(number) < 1e6
    }
    return expression.xreplace(integral)


def format_expression(expression: sympy.Expr) -> str:
    """The text form of an expression; :func:`parse_expression` is its inverse."""
    return _PRINTER.doprint(expression)
