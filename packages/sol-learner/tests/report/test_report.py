"""The page of a run, of a comparison, and of what is left of either."""

import json
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from sol_learner import LearnConfig, Learner, compare, compare_tasks, write_run
from sol_learner.comparing.verdict import Side, judge
from sol_learner.report import report_page, write_report
from sol_learner.report.charts import Mark, Series, front_chart, line_chart
from sol_learner.runtime import NullProgress
from sol_learner.runtime.progress import MetricsFile
from sol_symbols import ZOO, SolError, UpdateRule
from sol_symbols.cli import main

SMALL = LearnConfig(
    tuning_episodes=1,
    episodes=2,
    meta_batch=2,
    unroll=(4,),
    coordinates=40,
    validation_episodes=2,
    record_episodes=2,
    record_coordinates=40,
    directions=("ad", "sign(g)"),
    library_generations=2,
    max_terms=3,
    prune_episodes=1,
    generations=2,
    population=4,
    evaluation_episodes=3,
    baselines=("adam",),
    baseline_trainings=6,
)
VOID = {"meta", "link", "br", "input", "img"}


class Page(HTMLParser):
    """A page's elements, with what a strict reader would object to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.faults, self.words = [], [], [], []
        self.feed(text)
        self.faults += [f"never closed: {self.open}"] if self.open else []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> in {self.getpos()}")

    def handle_data(self, data):
        if not {"style", "script"} & {*self.open}:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read(source):
    page = Page(report_page(source))
    assert not page.faults
    return page


@pytest.fixture(scope="module")
def finished(make_task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    result = Learner([make_task()], SMALL, progress=MetricsFile(folder / "metrics.jsonl")).run()
    try:
        write_run(result, folder)
    finally:
        assert (folder / "report.html").is_file()
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def edited(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_a_run_says_what_it_found(finished):
    page = read(finished)
    summary = json.loads((finished / "summary.json").read_text())
    assert "A learned optimizer for regression" in page.text
    for optimizer in summary["comparison"][0]["optimizers"]:
        assert f"{np.mean(optimizer['metrics']['train']['loss']):.4g}" in page.text
        assert f"{np.mean(optimizer['metrics']['test']['loss']):.4g}" in page.text
    assert len([g for g in page.all("g") if "data-mark" in g]) == len(json.loads((finished / "front.json").read_text()))
    charts = page.all("svg")
    assert len([svg for svg in charts if "data-lines" in svg]) >= 6  # curves, tuning, three responses, meta-training
    assert all("aria-label" in svg or svg.get("aria-hidden") for svg in charts)
    assert "sol learn regression --out runs/again --tuning-episodes 1 --episodes 2 --meta-batch 2" in page.text
    assert summary["digest"] in page.text


def test_the_page_says_how_the_rule_was_found(run):
    assert "was itself trained to train models" in read(run).text

    def searched(summary):
        summary["meta_training"]["windows"] = 0
        summary["tuning"]["rule"] = "sol-general"
        summary["command"] = "sol learn mine.py:Mine --budget 5min"

    edited(run / "summary.json", searched)
    page = read(run)
    assert "was itself trained" not in page.text
    assert "a search improved the constants of sol-general" in page.text
    assert "sol learn mine.py:Mine --budget 5min" in page.text
    edited(run / "summary.json", lambda summary: summary.update(gave_start=True))
    assert "no better one was found" in read(run).text


def test_the_page_says_where_the_rule_is_valid(run):
    rows = {"regression: half the steps": {"start": 0.4, "learned": 0.5}}
    rows |= {"regression: twice the batch": {"start": 0.4, "learned": math.inf}}
    edited(run / "summary.json", lambda summary: summary.update(valid=rows))
    text = read(run).text
    assert "Where this rule is valid" in text
    assert re.search(r"half the steps\s+0.4\s+0.5\s+1.25\s+worse", text)
    assert re.search(r"twice the batch\s+0.4\s+–\s+–\s+diverged", text)
    edited(run / "summary.json", lambda summary: summary.update(valid={}))
    assert "Where this rule is valid" not in read(run).text


def test_the_page_says_where_the_rule_is_above_the_best_baseline(run):
    def change(summary):
        first = summary["comparison"][0]["optimizers"][0]
        other = summary["comparison"][0]["optimizers"][1]
        length = len(first["batch_loss"])
        other["batch_loss"] = [1.0] * length
        first["batch_loss"] = [2.0] * 3 + [0.5] * (length - 3)

    edited(run / "summary.json", change)
    assert "learned is above adam, the best baseline, in steps 1 to 3." in read(run).text


def test_the_band_is_the_spread_of_the_curves(finished):
    optimizers = json.loads((finished / "summary.json").read_text())["comparison"][0]["optimizers"]
    assert all(len(c["batch_loss_std"]) == len(c["batch_loss"]) and max(c["batch_loss_std"]) > 0 for c in optimizers)
    assert len([p for p in read(finished).all("polygon") if "band" in p["class"]]) == len(optimizers)


def test_the_page_needs_no_network(finished):
    text = report_page(finished)
    addresses = {a for a in re.findall(r"https?://[^\"'<> ]+", text) if "www.w3.org" not in a}
    assert not addresses
    assert "default-src 'none'" in text
    for attributes in Page(text).all("a"):
        assert attributes["href"].startswith(("data:", "#"))


def test_files_can_be_taken_from_the_page(finished):
    import base64

    links = {a["download"]: a["href"].partition("base64,")[2] for a in read(finished).all("a") if "download" in a}
    assert {"rule.json", "summary.json"} <= {*links}
    for name, content in links.items():
        assert base64.b64decode(content) == (finished / name).read_bytes()


def test_the_same_run_gives_the_same_page(finished):
    assert report_page(finished) == report_page(finished)


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "</style>"]
)
def test_what_files_say_stays_text(run, text):
    def change(summary):
        summary["tasks"] = [text]
        summary["comparison"][0]["task"] = text
        summary["comparison"][0]["optimizers"][1] |= {"name": text, "rule": text}
        summary["config"]["start"] = text
        summary["config"][text] = 1
        summary["seconds"][text] = 1.0
        summary["versions"][text] = text

    edited(run / "summary.json", change)
    edited(run / "rule.json", lambda rule: rule.update(name=text))
    with open(run / "metrics.jsonl", "a") as log:
        line = {"phase": "polish", "title": f"polishing {text}", "seconds": 1, "loss": 1, "best": 1}
        log.write("".join(json.dumps({**line, "step": n}) + "\n" for n in (1, 2)))
    page = read(run)
    assert text in page.text
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert not page.all("img")


def test_a_run_that_is_not_finished_says_how_far_it_came(run, tmp_path):
    for path in run.iterdir():
        if path.name != "metrics.jsonl":
            path.unlink()
    with open(run / "metrics.jsonl", "a") as log:
        log.write('{"phase": "polish')  # written when the power went
    page = read(run)
    assert "Unfinished run" in page.text
    assert "meta-training : 2 steps" in page.text
    assert not [a for a in page.all("a") if "download" in a]
    (tmp_path / "early" / "checkpoints").mkdir(parents=True)
    assert "No step has finished yet" in read(tmp_path / "early").text


@pytest.mark.parametrize("lost", ["summary.json", "front.json", "metrics.jsonl", "optimizer.py"])
def test_what_is_missing_is_left_out(run, lost):
    (run / lost).unlink(missing_ok=True)
    assert "The formula" in read(run).text


def test_an_open_horizon_stays_open(run):
    UpdateRule.parse("ad*ld").save(run / "rule.json")
    assert "Its schedule ends at T steps" in read(run).text


def test_an_interrupted_run_says_so(run):
    edited(run / "summary.json", lambda summary: summary.update(interrupted=True, comparison=[]))
    page = read(run)
    assert "The run was interrupted" in page.text
    assert "Training performance" not in page.text


LOSSES = {
    "better": ([1.0, 1.1, 1.2], [2.0, 2.1, 2.3]),
    "worse": ([2.0, 2.1, 2.3], [1.0, 1.1, 1.2]),
    "even": ([1.0, 2.1, 1.0], [1.1, 1.2, 1.9]),
}


def judged(summary, train, test=None, code=""):
    """Give the run these losses and the verdict on them, as ``sol learn`` writes it."""
    comparison, sides = summary["comparison"][0], []
    del comparison["optimizers"][2:]  # the reference
    for optimizer, losses, held_out in zip(comparison["optimizers"], train, test or train):
        optimizer["metrics"] = {"train": {"loss": losses}, "test": {"loss": held_out}}
        sides.append(Side(optimizer["name"], np.array(losses), np.array(held_out)))
    comparison["verdict"] = judge(sides[0], sides[1:], 10).record() | {"code": code}


def kinds(page, name):
    return [d["class"].split()[1] for d in page.all("div") if d.get("class", "").startswith(f"{name} ")]


@pytest.mark.parametrize(("outcome", "kind"), [("better", "good"), ("worse", "bad"), ("even", "even")])
@pytest.mark.parametrize("recorded", [True, False])
def test_the_verdict_stands_first(run, outcome, kind, recorded):
    def change(summary):
        judged(summary, LOSSES[outcome])
        if not recorded:  # a file of an earlier version
            del summary["comparison"][0]["verdict"]

    edited(run / "summary.json", change)
    page = read(run)
    assert kinds(page, "said") == [kind]
    assert kinds(page, "card")[:2] == [kind, kind]
    line = page.text.index("learned : " + ("0." if outcome == "better" else "not better than adam"))
    assert line < page.text.index("An optimizer is the rule")


def test_a_rule_that_lost_gets_no_praise(run):
    def change(summary):
        judged(summary, LOSSES["even"], ([0.5, 0.6, 0.7], [1.0, 1.1, 1.3]), code="optimizer = its_code()")

    edited(run / "summary.json", change)
    page = read(run)
    assert "good" not in kinds(page, "card") + kinds(page, "said")  # a lower held-out loss is no win
    assert page.text.count("optimizer = its_code()") == 2  # at the top, and where the files are
    assert "learned is not better than adam. Use that:" in page.text
    assert "Use it" not in page.text
    edited(run / "summary.json", lambda summary: judged(summary, LOSSES["better"], code="optimizer = its_code()"))
    page = read(run)
    assert "its_code" not in page.text
    assert "Use it" in page.text


def test_optimizers_are_listed_by_their_training_loss(run):
    for outcome, names in (("worse", ["adam", "learned"]), ("better", ["learned", "adam"])):
        edited(run / "summary.json", lambda summary, outcome=outcome: judged(summary, LOSSES[outcome]))
        text = report_page(run)
        assert re.findall(r'<th scope="row">(adam|learned)</th>', text)[:2] == names


def test_a_worse_rule_is_called_worse(run):
    edited(run / "summary.json", lambda s: judged(s, LOSSES["worse"], ([1.0, 3.0, 1.2], [3.0, 1.0, 1.2])))
    page = read(run)
    assert kinds(page, "card")[:2] == ["bad", "even"]
    assert "94% higher final training loss" in page.text


@pytest.mark.parametrize("damage", [{"outcome": "great"}, {"trainings": 3}, {"train": {"value": "x"}}])
def test_a_damaged_verdict_is_named(run, damage):
    def change(summary):
        judged(summary, LOSSES["even"])
        summary["comparison"][0]["verdict"] |= damage

    edited(run / "summary.json", change)
    with pytest.raises(SolError, match=r"summary\.json is corrupted: invalid summary: comparison\[0\]\.verdict"):
        report_page(run)


def test_several_comparisons_have_one_page(make_task, tmp_path):
    rules = {"mine": "sign(g) where lr = 0.01", "adam": "ad where lr = 0.01", "sgd": "g where lr = 0.1"}
    suite = compare_tasks([make_task()], rules, steps=[4, 8], episodes=3)
    (tmp_path / "s.json").write_text(json.dumps(suite.record(statistics=True)))
    page = read(tmp_path / "s.json")
    assert "Optimizers compared on regression" in page.text
    assert page.text.index(suite.line) < page.text.index("regression, 4 steps: ") < page.text.index("All problems")
    assert len(kinds(page, "said")) == 3
    charts = [svg["aria-label"] for svg in page.all("svg") if "Performance profile" in svg.get("aria-label", "")]
    assert len(charts) == 1
    assert "Training performance on regression, 8 steps" in page.text
    broken = suite.record()
    broken["suite"]["outcome"] = "great"
    (tmp_path / "s.json").write_text(json.dumps(broken))
    with pytest.raises(SolError, match="is corrupted: invalid suite"):
        report_page(tmp_path / "s.json")


def test_a_target_that_was_missed_is_not_dropped(tmp_path):
    times = {"steps_to_target": [10, 20, None], "seconds_to_target": [0.5, None, None]}
    mine, failed = ({"name": name, "metrics": {}, **times} for name in ("mine", "failed"))
    record = {"task": "t", "optimizers": [mine, {**failed, "failed": {"2": "x"}}], "target": 0.5}
    (tmp_path / "c.json").write_text(json.dumps(record))
    text = read(tmp_path / "c.json").text
    assert "steps to a loss of 0.5" in text
    assert "20 2 of 3 reached it" in text  # the median of 10, 20 and infinity
    assert "never 1 of 3 reached it" in text
    assert "15 2 of 3 reached it" in text  # a run that failed has no time


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", "{", r"cannot read .*summary\.json: Expecting"),
        ("summary.json", "[" * 100_000, r"cannot read .*summary\.json"),
        ("summary.json", "[]", "not a run summary"),
        (
            "summary.json",
            '{"comparison": 3}',
            r"is corrupted: invalid summary: comparison must be a list, got 3",
        ),
        (
            "summary.json",
            '{"comparison": [{"optimizers": [{"name": "x", "metrics": {"test": {"loss": "a"}}}]}]}',
            r"invalid summary: comparison\[0\] has no 'task'",
        ),
        ("summary.json", '{"seconds": {"tune": "long"}}', "seconds.tune must be a number from 0 to"),
        ("summary.json", '{"config": 3}', "config must be a table, got 3"),
        ("summary.json", "\xff\xfe", r"cannot read .*summary\.json"),
        ("front.json", '[{"terms": 1}]', r"front\.json is corrupted: invalid front: \[0\] has no 'loss'"),
        ("rule.json", '{"expression": "nonsense("}', r"rule\.json"),
        (
            "metrics.jsonl",
            'nonsense\n{"phase": "x", "title": "x", "step": 1, "seconds": 1}\n',
            r"metrics\.jsonl is corrupted in line 1",
        ),
    ],
)
def test_a_damaged_file_is_named(run, name, content, message):
    (run / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(SolError, match=message):
        report_page(run)


def test_what_is_not_a_run_is_refused(tmp_path, capsys):
    with pytest.raises(SolError, match=r"contains neither rule\.json nor metrics\.jsonl"):
        report_page(tmp_path)
    with pytest.raises(SolError, match=r"nowhere does not exist"):
        report_page(tmp_path / "nowhere")
    ZOO["adam"].save(tmp_path / "adam.json")
    with pytest.raises(SolError, match="'optimizers' is missing; pass the run folder instead"):
        report_page(tmp_path / "adam.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(SolError, match="was not written by sol compare --json"):
        report_page(tmp_path / "list.json")
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_comparison_has_a_page_too(make_task, tmp_path, capsys):
    rules = {"signs": UpdateRule.parse("sign(g) where lr = 0.01"), "adam": UpdateRule.parse("ad where lr = 0.01")}
    comparison = compare(make_task(), rules, seed=0, episodes=3, progress=NullProgress())
    (tmp_path / "c.json").write_text(json.dumps(comparison.record()))
    assert main(["report", str(tmp_path / "c.json")]) == 0
    assert f"wrote {tmp_path / 'c.html'}" in capsys.readouterr().out
    page = read(tmp_path / "c.json")
    assert "Optimizers compared on regression" in page.text
    assert "sign(g) where lr = 0.01" in page.text
    (tmp_path / "both.json").write_text(json.dumps([comparison.record()] * 2))
    assert len([s for s in read(tmp_path / "both.json").all("section") if s.get("class") == "comparison"]) == 2


def test_a_comparison_of_other_optimizers_and_lost_runs(tmp_path):
    runs = {"best_loss": [0.1, 0.2], "area": [1.0, None], "seconds_per_step": [0.002, 0.004], "peak_bytes": [1e6, 3e6]}
    record = {
        "task": "t",
        "optimizers": [
            {"name": "mine", "metrics": {"test": {"loss": [1.0, 2.0], "accuracy": [0.5, 0.5]}}, **runs},
            {"name": "lstm", "rule": None, "metrics": {"test": {"loss": [None, 3.0]}}, "diverged": {"0": 7}},
            {"name": "none", "metrics": {}, "failed": {"1": "no memory"}, "tuning": [[0.1, None], [0.2, 1.0]]},
        ],
        "differences": [
            {"baseline": "lstm", "quantity": "test loss", "mean": -0.5, "interval": [-0.7, -0.1], "p_holm": 0.02},
            {"baseline": "none", "quantity": "test loss", "mean": None, "interval": None, "p_holm": None},
        ],
    }
    (tmp_path / "c.json").write_text(json.dumps(record))
    text = read(tmp_path / "c.json").text
    assert "excluding 1 lost run" in text
    assert "lstm, diverged: seed 0 after step 7" in text
    assert "none, seed 1 failed: no memory" in text
    assert "ms per step" in text
    assert "−0.5 [−0.7, −0.1]" in text


def optimizer(name, curve, **more):
    spread = [None if value is None else 0.1 for value in curve]
    return {"name": name, "metrics": {}, "batch_loss": curve, "batch_loss_std": spread, **more}


def test_what_diverged_is_said_at_the_curve_and_does_not_flatten_the_others(tmp_path):
    optimizers = [
        optimizer("calm", [2.0, 1.0, 0.5], batch_loss_runs=3),
        optimizer("some", [2.0, 1.5, 1.0], batch_loss_runs=2, diverged={"1": 2}),
        optimizer("none", [2.0, 1e30, None], batch_loss_runs=3, diverged={"0": 2, "1": 2, "2": 2}),
    ]
    (tmp_path / "c.json").write_text(json.dumps({"task": "t", "optimizers": optimizers, "episodes": [0, 1, 2]}))
    page = read(tmp_path / "c.json")
    assert "some (1 of 3 runs diverged; the curve shows the others)" in page.text
    assert "none (3 of 3 runs diverged; the curve ends there)" in page.text
    (chart,) = [svg for svg in page.all("svg") if "data-lines" in svg]
    assert "none off the chart" in chart["aria-label"]
    assert [line["y"] for line in json.loads(chart["data-lines"])] == [[2, 1, 0.5], [2, 1.5, 1], [2, None, None]]


def test_a_study_has_a_page_too(make_task, tmp_path):
    rules = {"mine": UpdateRule.parse("sign(g) where lr = 0.01"), "adam": UpdateRule.parse("ad where lr = 0.01")}
    comparison = compare(make_task(), rules, episodes=3).record(statistics=True)
    study = {
        "study": {
            "shows": "Table 9",
            "title": "<b>tiny</b>",
            "size": "cpu",
            "notes": ["Smaller.", "Not all."],
            "settings": {"learner": {"episodes": 7}},
            "budget": {"trials": 12},
        },
        "rules": {"mine": "sign(g) where lr = 0.01"},
        "comparisons": [comparison, {**comparison, "task": "other"}],
    }
    (tmp_path / "s.json").write_text(json.dumps(study))
    page = read(tmp_path / "s.json")
    for words in ("Table 9: <b>tiny</b>", "size cpu", "Not all.", "At a glance", "learner.episodes", "trials", "p ="):
        assert words in page.text
    (overview,) = [section for section in page.all("section") if section.get("id") == "overview"]
    verdicts = kinds(page, "said")
    assert overview
    assert len(verdicts) == 2  # one a task
    single = {"rule": "sign(g) where lr = 0.01", "comparison": comparison}  # as studies of one task write it
    (tmp_path / "one.json").write_text(json.dumps(single))
    assert "Optimizers compared on regression" in read(tmp_path / "one.json").text
    (tmp_path / "bad.json").write_text(json.dumps({**study, "rules": ["sign(g)"]}))
    with pytest.raises(SolError, match="'study' and 'rules' must be tables"):
        report_page(tmp_path / "bad.json")


def test_a_page_says_what_a_task_is_and_how_many_processes_there_were(run, monkeypatch):
    class FrontPoint:
        name = value = "here"

        def load(self):
            def make(data, device):
                """A <task> of one line.

                And more."""

            return make

    monkeypatch.setattr(
        "sol_learner.report.page.find_tasks", lambda: {"regression": FrontPoint(), "other": FrontPoint()}
    )
    edited(run / "summary.json", lambda summary: summary.update(jobs=2))
    page = read(run)
    assert "A <task> of one line." in page.text
    assert "And more" not in page.text
    assert "entire run, 2 processes" in page.text


def test_a_study_may_hold_tables_alone(tmp_path):
    table = {
        "title": "Robust <accuracy>",
        "head": ["model", "PGD", "APGD"],
        "rows": [["a", 15.25, 1234], ["b", 0.5, 2]],
    }
    study = {"study": {"shows": "Table 9", "title": "attacks", "size": "cpu", "notes": ["Few."]}, "tables": [table]}
    (tmp_path / "s.json").write_text(json.dumps(study))
    page = read(tmp_path / "s.json")
    for words in ("Table 9: attacks", "size cpu", "Few.", "Robust <accuracy>", "15.25", "1,234"):
        assert words in page.text
    assert "same batches" not in page.text
    for wrong, told in (({"rows": [["a", 1]]}, "as long as its head"), ({"rows": [["a", "x", 1]]}, "'tables'")):
        (tmp_path / "bad.json").write_text(json.dumps({**study, "tables": [{**table, **wrong}]}))
        with pytest.raises(SolError, match=told):
            report_page(tmp_path / "bad.json")


def coordinates(chart, kind):
    paths = re.findall(rf'class="{kind}[^>]*d="([^"]*)"', chart.svg)
    return [[float(number) for number in re.findall(r"-?[\d.]+", path)] for path in paths]


def test_a_line_lies_where_its_numbers_are():
    chart = line_chart([Series("a", [0, 1, 2], [1.0, 2.0, 4.0])], "x", "y", "all")
    (points,) = coordinates(chart, "line s0")
    x, y = points[::2], points[1::2]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.11)
    assert (y[0] - y[1]) * 2 == pytest.approx(y[1] - y[2], abs=0.21)
    logarithmic = line_chart([Series("a", [0, 1, 2], [1.0, 2.0, 4.0])], "x", "y", "all", ylog=True)
    (points,) = coordinates(logarithmic, "line s0")
    assert points[1] - points[3] == pytest.approx(points[3] - points[5], abs=0.11)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values", [[], [1.0], [np.nan, np.inf], [0.0, 0.0], [-1.0, -2.0], [1e-300, 1e300], [5.0, np.nan, 5.0], [1e30, 1e30]]
)
def test_lines_of_all_kinds_can_be_drawn(values, log):
    series = Series("a", range(len(values)), np.array(values), np.ones(len(values)))
    chart = line_chart([series], "x", "y", "all", ylog=log, dots=True)
    assert not re.search(r"(?<![a-z])(nan|inf)\b", re.sub(r'data-lines="[^"]*"', "", chart.svg))
    assert not Page(chart.svg).faults


def test_long_lines_are_thinned_and_gaps_stay():
    chart = line_chart([Series("a", range(10_000), np.ones(10_000))], "x", "y", "all")
    assert len(coordinates(chart, "line s0")[0]) <= 2 * 400
    gap = line_chart([Series("a", range(4), [1.0, 2.0, np.nan, 3.0])], "x", "y", "all")
    assert re.search(r'd="M[^M]*M[^M]*"', gap.svg)


def test_marks_of_a_front_can_be_reached_and_named():
    chart = front_chart(
        [Mark(1, 0.5, True, False, "a"), Mark(3, 0.25, True, True, "b"), Mark(4, 0.3, False, False, "c")], "x", "y", "f"
    )
    marks = [g for g in Page(chart.svg).all("g") if "data-mark" in g]
    assert [mark["aria-label"] for mark in marks] == ["a", "b", "c"]
    assert all(mark["tabindex"] == "0" and mark["role"] == "button" for mark in marks)
    assert "beaten" in marks[2]["class"]


def test_a_page_that_cannot_be_written_leaves_the_old_one(finished, tmp_path):
    with pytest.raises(SolError, match="cannot write"):
        write_report(finished, tmp_path / "no" / "x.html")
