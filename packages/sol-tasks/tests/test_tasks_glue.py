"""GLUE's tables."""

import sys
import types

import pytest

from sol_symbols import SolError
from sol_tasks import load_glue
from sol_tasks.glue import GLUE

ROWS = {"CoLA": (8551, 1043), "SST-2": (67349, 872), "RTE": (2490, 277), "MRPC": (3668, 408), "WNLI": (635, 71)}


@pytest.mark.parametrize("name", GLUE)
def test_the_splits_have_the_official_sizes_and_are_disjoint(name, data):
    splits = load_glue(name, data)
    total, dev = ROWS[name]
    held = min(1000, total // 10)
    assert {s: len(rows) for s, rows in splits.items()} == {"train": total - held, "valid": held, "test": dev}
    assert all(label in (0, 1) and first for rows in splits.values() for first, _, label in rows)
    assert any(second for _, second, _ in splits["train"]) == (name in ("RTE", "MRPC", "WNLI"))
    assert splits == load_glue(name, data)
    assert load_glue(name, data, rows=50)["train"] == splits["train"][:50]


def test_missing_and_damaged_tables_are_said(tmp_path):
    with pytest.raises(SolError, match="known: CoLA, SST-2, RTE, MRPC, WNLI"):
        load_glue("QNLI", tmp_path)
    with pytest.raises(SolError, match=r"no RTE in .*RTE/train\.tsv there and in glue/.*gluebenchmark"):
        load_glue("RTE", tmp_path)
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE" / "train.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tperhaps\n")
    with pytest.raises(SolError, match=r"cannot read .*train\.tsv as a GLUE table"):
        load_glue("RTE", tmp_path)


def test_the_hub_is_asked_for_the_same_columns(monkeypatch):
    asked = []

    def load_dataset(*names):
        asked.append(names)
        rows = {"sentence1": ["a"] * 20, "sentence2": ["b"] * 20, "label": [0, 1] * 10}
        table = type("Table", (dict,), {"__len__": lambda self: 20})(rows)
        return {"train": table, "validation": table}

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    splits = load_glue("RTE")
    assert asked == [("nyu-mll/glue", "rte")]
    assert {s: len(rows) for s, rows in splits.items()} == {"train": 18, "valid": 2, "test": 20}
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SolError, match=r"sol-tasks\[fetch\].*--data DIR"):
        load_glue("RTE")
