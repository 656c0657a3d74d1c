"""Mutated rule texts and rule files: every one is read or refused with a RuleError, fast, and nothing is executed.

    python benchmarks/fuzz_rules.py --cases 1000000 --json benchmarks/fuzz_rules.json

Case ``i`` depends on ``i`` alone, so that a failure can be run again (``--start i --cases 1``) and a long run split:
with ``--json``, the run continues after the cases that the file already has. What is read must survive both forms
and be printed as it was; one case in 20 is evaluated too. An audit hook watches that no case opens a file, imports,
starts a process or runs code; evaluation, which compiles code from the expression tree, is watched for the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sol_symbols import OPERATORS, STANDARD, ZOO, Operator, RuleError, UpdateRule, evaluator, write_atomically

SECONDS_ALLOWED = 1.0
LONGEST = 3_000

TEXTS = [
    *map(str, ZOO.values()),
    "0.81*ad + 0.12*ld*sign(g) where lr = 0.0123, T = 100",
    "c1*ad - c1*rs*cd + a*g**3 where lr = 1e-05, beta1 = 0.8, T = 250, c1 = 0.30000000000000004, a = -2",
    "exp(-0.5*ad)*tanh(3*m_hat)/(abs(g) + 1e-12)",
    "min(ag, min(m, 0.25*b))*w + sigmoid(m_slow_prev)",
    "1e-300*g + 1.7976931348623157e+308*m + 5e-324*v",
    "sqrt(log(cos(reciprocal(div(g, m)))))*(g + 0.3)**2",
]
RECORDS = [UpdateRule.parse(text).to_json() for text in TEXTS]
PIECES = [
    *sorted(STANDARD.names), *OPERATORS, *(f"{name}(" for name in OPERATORS), *"+-*/()=,.:;[]{}#'\"\\@%&|<>~^ \n\t\0",
    *("**", "//", " where ", "where", "lr = ", "T = ", "lambda: ", " if g else m", "True", "None", "nan", "inf"),
    *("0", "1", "2", "-1", "0.5", "64", "65", "1e308", "1e-308", "5e-324", "1e999", "9" * 400, "0x1F", "1_000", "2j"),
    *("1/3", "**-1", "**0.5", "**(1/2)", "**64", "**(g)", "(g - g)", "*0", "/0", "0**0", "é", "∂", "\ud800", "\ufeff"),
    *("__import__('os').system('touch executed')", "exec('1')", "().__class__", "open('executed', 'w')", "f'{g}'"),
]  # fmt: skip
VALUES: list[Any] = [None, True, 0, -1, 1.5, 10**400, 1e308, float("nan"), float("inf"), "", "g", "m_prev", [], {}, [1]]


def mutated_text(text: str, rng: random.Random, pieces: Sequence[str] = PIECES, texts: Sequence[str] = TEXTS) -> str:
    """``text`` after one to eight random edits, which put in ``pieces`` and parts of ``texts``."""
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        start = rng.randrange(len(text) + 1)
        stop = min(len(text), start + rng.choice((0, 1, 1, 2, 5, 20)))
        kind = rng.randrange(6)
        if kind == 0:
            text = text[:start] + text[stop:]
        elif kind == 1:
            text = text[:start] + rng.choice(pieces) + text[start:]
        elif kind == 2:
            text = text[:start] + rng.choice(pieces) + text[stop:]
        elif kind == 3:
            text = text[:start] + text[start:stop] * rng.choice((2, 3, 10, 300)) + text[stop:]
        elif kind == 4:
            other = rng.choice(texts)
            cut = rng.randrange(len(other) + 1)
            text = text[:start] + other[cut : cut + 30] + text[stop:]
        else:
            char = chr(rng.choice((rng.randrange(128), rng.randrange(0x3000))))
            text = text[:start] + char + text[start + 1 :]
    return text[:LONGEST]


def mutated_record(record: str, rng: random.Random) -> str:
    """A rule file with some entries replaced, removed, renamed or added."""
    tree = json.loads(record)
    for _ in range(rng.choice((1, 1, 2, 4))):
        node, parent = tree, None
        while isinstance(node, dict) and node and (parent is None or rng.random() < 0.7):
            parent, key = node, rng.choice(sorted(node))
            node = node[key]
        if parent is None:
            break
        kind = rng.randrange(5)
        if kind == 0:
            del parent[key]
        elif kind == 1:
            parent[key] = rng.choice(VALUES)
        elif kind == 2:
            parent[rng.choice([*sorted(STANDARD.names), "x", "x y", "if", "lr", "c" * 200])] = parent.pop(key)
        elif kind == 3 and isinstance(node, str):
            parent[key] = mutated_text(node, rng)
        else:
            parent[rng.choice(["m", "ad", "x", "c"])] = rng.choice([*VALUES, "g + x_prev", {"init": 0, "update": "g"}])
    return json.dumps(tree)


def grown_text(rng: random.Random, depth: int, operators: Mapping[str, Operator] = OPERATORS) -> str:
    """A random expression in the grammar; its numbers may be impossible."""
    if depth == 0 or rng.random() < 0.15:
        return rng.choice([*sorted(STANDARD.names), "0", "1", "2", "0.5", "1e-8", "1e308", "5e-324", "1/3", "64"])
    left, right = grown_text(rng, depth - 1, operators), grown_text(rng, depth - 1, operators)
    if rng.random() < 0.5:
        return f"({left} {rng.choice(['+', '-', '*', '/', '**'])} {right})"
    operator = operators[rng.choice(list(operators))]
    return f"{operator.name}({left})" if operator.arity == 1 else f"{operator.name}({left}, {right})"


def case(index: int) -> tuple[str, str]:
    """``("text" or "json", a mutated or grown rule)``."""
    rng = random.Random(index)
    kind = rng.randrange(10)
    if kind == 0:
        return "text", grown_text(rng, rng.randrange(1, 5))
    if kind < 5:
        return "text", mutated_text(rng.choice(TEXTS), rng)
    record = rng.choice(RECORDS)
    return "json", mutated_text(record, rng) if kind < 7 else mutated_record(record, rng)


class Watch:
    """Notes every audited event that reading or evaluating a rule has no business with."""

    FORBIDDEN = ("open", "import", "os.", "subprocess.", "socket.", "ctypes.", "pickle.", "shutil.", "tempfile.",
                 "code.", "marshal.", "builtins.input", "signal.", "fcntl.", "urllib.")  # fmt: skip

    def __init__(self) -> None:
        self.level = 0  # 0: off, 1: evaluating, 2: reading
        self.events: list[str] = []
        sys.addaudithook(self.hook)  # for good: hooks cannot be removed

    def hook(self, event: str, arguments: tuple) -> None:
        if not self.level:
            return
        parsed = event == "compile" and arguments[1] == "<unknown>"  # ast.parse: the text becomes a tree, not code
        if event.startswith(self.FORBIDDEN) or (self.level == 2 and event in ("compile", "exec") and not parsed):
            self.events.append(f"{event} {arguments!r:.200}")


def check(index: int, watch: Watch, cases: Callable[[int], tuple[str, str]] = case) -> tuple[str, float]:
    """Run a case; what came of it and the seconds of processor time that reading took. Raises what a rule raised."""
    form, text = cases(index)
    read = UpdateRule.parse if form == "text" else UpdateRule.from_json
    watch.level, start = 2, time.process_time()
    try:
        rule = read(text)
        seconds = time.process_time() - start
        twin = UpdateRule.from_json(rule.to_json())
        if twin != rule or str(twin) != str(rule):
            raise AssertionError(f"JSON form differs: {rule}")
        if UpdateRule.parse(str(rule), rule.vocabulary) != rule:
            raise AssertionError(f"text form differs: {rule}")
    except RuleError:
        return f"{form} refused", time.process_time() - start
    finally:
        watch.level = 0
    if index % 20 == 0:
        watch.level = 1
        try:
            phi = evaluator(rule, horizon=None if rule.horizon or not rule.needs_horizon else 10)
            g = np.array([1.0, -0.5, 0.0, 1e-30, 1e30])
            state = phi.init(g)
            with np.errstate(all="ignore"):
                for t in (1, 2, 3):
                    update, state = phi(g, state, g, t, loss=1.0)
                    phi.weights(state, g, t, 0.1)
            if update.shape != g.shape:
                raise AssertionError(f"shape {update.shape}: {rule}")
        finally:
            watch.level = 0
    return f"{form} read", seconds


def run(
    start: int, count: int, watch: Watch, record: dict[str, Any], cases: Callable[[int], tuple[str, str]] = case
) -> None:
    """Run cases ``start`` to ``start + count - 1`` and add what happened to ``record``."""
    outcomes, began = Counter(record["outcomes"]), time.process_time()
    for index in range(start, start + count):
        try:
            outcome, seconds = check(index, watch, cases)
        except Exception as error:
            record["failures"].append({"case": index, "error": f"{type(error).__name__}: {error}"[:300]})
            continue
        outcomes[outcome] += 1
        if seconds > record["slowest"]["seconds"]:
            record["slowest"] = {"case": index, "seconds": round(seconds, 3)}
        if seconds > SECONDS_ALLOWED:
            record["slow"].append({"case": index, "seconds": round(seconds, 3)})
        if watch.events:
            record["events"].append({"case": index, "events": watch.events[:5]})
            watch.events.clear()
    record["outcomes"] = dict(sorted(outcomes.items()))
    record["cases"] = start + count
    record["seconds"] = round(record["seconds"] + time.process_time() - began, 1)


def empty_record() -> dict[str, Any]:
    """What :func:`run` adds to."""
    slowest = {"case": None, "seconds": 0.0}
    return {"cases": 0, "seconds": 0.0, "outcomes": {}, "slowest": slowest, "slow": [], "failures": [], "events": []}


def main(description: str | None = __doc__, cases: Callable[[int], tuple[str, str]] = case) -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    record = empty_record()
    if arguments.json and arguments.json.exists():
        record = json.loads(arguments.json.read_text())
        arguments.start = record["cases"]
    watch = Watch()
    with contextlib.suppress(Exception):
        check(0, watch, cases)  # what is imported late is imported now
    for index in range(0, 400):
        with contextlib.suppress(Exception):
            check(index, watch, cases)
    watch.events.clear()
    end = arguments.start + arguments.cases
    for start in range(arguments.start, end, 1_000):
        run(start, min(1_000, end - start), watch, record, cases)
        if arguments.json:
            write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    return 1 if record["failures"] or record["events"] or record["slow"] else 0


if __name__ == "__main__":
    sys.exit(main())
