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
    assert (
        page.count("**not run**") == 7
    )  # a section for each table or figure, 1 with 3 in one; Table 6 says it by line
    assert page.count("- not run: ") == 6 + 5
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


def test_the_first_table_says_of_every_claim_what_became_of_it(results):
    section = "## Table 1\n\nText.\n\n- reproduced: fast: +1\n- **undecided**: small: 0\n- reproduced: light"
    more = "- **not reproduced**: cheap: -1"
    words = results.summary([section, more, "## Table 2\n\n**not run**"])
    assert words.startswith("Of 4 claims that were tried 2 hold, 1 do not, 1 are undecided.\n")
    assert words.endswith("| Table 1 | fast; light | small | cheap |  |\n| Table 2 |  |  |  | all |")


@pytest.mark.parametrize(
    ("gain", "earlier", "words"),
    [
        (0.02, {}, "- reproduced: gat-cora, better than tuned AdamW with a schedule: +2.00 points"),
        (0.0, {}, "- **undecided**: gat-cora, better than tuned AdamW"),
        (-0.02, {}, "- **not reproduced**: gat-cora, better than tuned AdamW"),
        (0.02, {"size": "paper"}, "- reproduced: gat-cora, better than the paper's Adam, rate 0.01: +2.00 points"),
    ],
)
def test_graphs_are_decided_by_the_interval_and_holms_p(results, monkeypatch, tmp_path, gain, earlier, words):
    study = {"size": "cpu", "notes": ["Small."], "budget": {"seeds": 3, "trials": 0}, **earlier}
    scores = {"learned": [0.80, 0.82, 0.84]}
    record = {
        "study": study,
        "test accuracy": {"learned": {"mean": 0.82, "std": 0.02}},
        "accuracy of each seed": scores,
    }
    noise = (0.001, 0.0, -0.001)
    for rival in ("AdamW", "Adam 0.01"):
        scores[rival] = [a - gain - b for a, b in zip(scores["learned"], noise)]
        record["test accuracy"][rival] = {"mean": 0.82 - gain, "std": 0.02}
        record[f"accuracy, learned - {rival}"] = {"mean": gain, "low": gain - 0.0025, "high": gain + 0.0025}
    (tmp_path / f"table6-gat-cora-{study['size']}.json").write_text(json.dumps(record))
    monkeypatch.setattr(results, "HERE", tmp_path)
    assert words in results.graphs()
    assert results.graphs().count("- not run: ") == 5


@pytest.mark.parametrize(
    ("gain", "spread", "words"),
    [
        (0.02, 0.001, "- reproduced: SST-2: +2.00 points (95 % interval +1.00 to +3.00), p = "),
        (0.02, 0.015, "- **undecided**: SST-2: +2.00 points"),
        (-0.02, 0.001, "- **not reproduced**: SST-2: −2.00 points"),
    ],
    ids=["better", "too few seeds", "worse"],
)
def test_bert_is_decided_by_the_interval_and_holms_p(results, monkeypatch, tmp_path, gain, spread, words):
    """Of two data sets, so that a p of 0.04 is not enough."""
    ours = [0.80, 0.82, 0.84, 0.83, 0.81]
    for name, more in (("SST-2", gain), ("RTE", 0.0)):
        theirs = [a - more - spread * b for a, b in zip(ours, (1, -1, 1, -1, 0.5))]
        metrics = {n: {"test": {"accuracy": scores}} for n, scores in (("learned", ours), ("adamw", theirs))}
        record = {
            "study": {"size": "cpu", "notes": ["Small."], "budget": {"seeds": 5, "trials": 8}},
            "tried": {},
            "steps": 375,
            "comparisons": [{"optimizers": [{"name": n, "metrics": found} for n, found in metrics.items()]}],
            "test accuracy": {n: {"mean": 0.8, "std": 0.01} for n in metrics},
            "accuracy, learned - adamw": {"mean": more, "low": more - 0.01, "high": more + 0.01},
        }
        (tmp_path / f"bert-{name}-cpu.json").write_text(json.dumps(record))
    monkeypatch.setattr(results, "HERE", tmp_path)
    files = {name: [f"bert-{name}-cpu"] for name in results.GLUE}
    found = results.pairs("Table 7", "BERT", "The paper.", files, {"CoLA": "mcc"}, "bert.py")
    assert words in found
    assert "8 settings for each baseline" in found
    assert found.count("- not run: ") == 3


def difference(mean, half, p):
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": p, "larger": 1, "of": 2}


@pytest.mark.parametrize(
    ("means", "models", "words"),
    [
        ((0.02, 0.02), (0.02, 0.03), ["- reproduced", "- reproduced", "- reproduced"]),
        ((0.02, 0.001), (0.02, 0.001), ["- reproduced", "- **undecided**", "- **undecided**"]),
        ((0.02, -0.02), (0.02, -0.02), ["- reproduced", "- **not reproduced**", "- **not reproduced**"]),
    ],
)
def test_attacks_are_decided_by_steps_and_by_model_at_the_last(results, means, models, words):
    def row(mean):
        return difference(mean, 0.01, 0.001 if abs(mean) > 0.01 else 0.8)

    found = {s: {"ours : pgd": {"a": row(models[0]), "b": row(models[1]), "mean": row(m)}} for s, m in zip("12", means)}
    lines = results.verdict(*results.stronger(found, {"ours : pgd": "PGD"})).splitlines()
    assert [line.partition(":")[0] for line in lines] == words
    assert "better than PGD, 1 steps: +2.00 points (95 % interval +1.00 to +3.00)" in lines[0]


def test_holm_counts_every_attack_of_the_table(results):
    found = {"1": {pair: {n: difference(0.02, 0.01, 0.03) for n in ("a", "mean")} for pair in ("x : y", "x : z")}}
    alone = results.verdict(*results.stronger(found, {"x : y": "Y"}))
    both = results.verdict(*results.stronger(found, {"x : y": "Y", "x : z": "Z"}))
    assert alone.count("- reproduced") == 2
    assert both.count("- **undecided**") == 4


def test_every_study_is_there_and_every_json_can_be_reported(results, tmp_path):
    from sol_learner.report import report_page

    studies = {path.stem for path in (ROOT / "studies").glob("*.py")}
    assert {"table2", "table3", "table4", "figure5", "figure6", "attack", "table6", "bert"} <= studies
    for path in (ROOT / "studies").glob("*.json"):
        record = json.loads(path.read_text())
        if path.name != "paper.json":
            assert record["study"]["size"] in path.stem
            shutil.copy(path, tmp_path / path.name)
            assert "</html>" in report_page(tmp_path / path.name)
