"""The page of results is what the studies' JSON files say, and says so where there is none."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def results():
    spec = importlib.util.spec_from_file_location("studies_results", ROOT / "studies" / "results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_page_is_what_the_generator_gives(results):
    assert (ROOT / "docs" / "results.md").read_text() == results.page(), "run python studies/results.py"


def test_what_has_no_json_is_not_run(results, monkeypatch, tmp_path):
    monkeypatch.setattr(results, "HERE", tmp_path)
    page = results.page()
    assert page.count("**not run**") == 8  # a section for each table or figure, 1 with 3 and 6 with 7 in one
    assert "reproduced:" not in page
    assert "| learned | 68.75 ± 0.35 | not run |" in page


def optimizer(name, losses):
    return {"name": name, "metrics": {"train": {"loss": losses}}}


@pytest.mark.parametrize(
    ("interval", "p", "ours", "words"),
    [
        ([-0.3, -0.1], 0.03, [1.0, 1.1], "- reproduced: lowest on mnistnet: −0.2000 against adam"),
        ([-0.3, -0.1], 0.08, [1.0, 1.1], "- **undecided**: lowest"),
        ([-0.3, 0.1], 0.03, [1.0, 1.1], "- **undecided**: lowest"),
        ([0.1, 0.3], 0.03, [1.4, 1.5], "- **not reproduced**: lowest"),
        (None, 0.03, [1.0, None], "- **not reproduced**: lowest on mnistnet: the learned rule diverged"),
    ],
)
def test_a_claim_is_decided_by_interval_and_p_against_the_best_other(
    results, monkeypatch, tmp_path, interval, p, ours, words
):
    comparison = {
        "task": "mnistnet",
        "optimizers": [optimizer("learned", ours), optimizer("sgd", [3.0, 3.0]), optimizer("adam", [1.2, 1.3])],
        "differences": [
            {"baseline": name, "quantity": "train loss", "mean": -0.2, "interval": interval, "p_holm": p}
            for name in ("sgd", "adam")
        ],
    }
    study = {"size": "cpu", "notes": ["Small."], "budget": {"seeds": 2, "trials": 12}}
    (tmp_path / "figure5-cpu.json").write_text(json.dumps({"study": study, "comparisons": [comparison]}))
    monkeypatch.setattr(results, "HERE", tmp_path)
    assert words in results.figure5()
    assert "Size run: **cpu**; 2 held-out seeds, 12 learning rates" in results.figure5()


def test_every_study_is_there_and_every_json_can_be_reported(results, tmp_path):
    from sol_learner.report import report_page

    studies = {path.stem for path in (ROOT / "studies").glob("*.py")}
    assert {"table2", "table3", "table4", "figure5", "figure6", "attack", "graph", "bert"} <= studies
    for path in (ROOT / "studies").glob("*.json"):
        record = json.loads(path.read_text())
        if path.name != "paper.json":
            assert record["study"]["size"] in path.stem
            shutil.copy(path, tmp_path / path.name)
            assert "</html>" in report_page(tmp_path / path.name)
