"""What studies have in common: they go on after a kill, compute nothing twice, and say what was run."""

import importlib
import json
import runpy
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sol_learner import LearnConfig, Learner, load_task
from sol_learner.comparing import protocol as comparing_module
from sol_symbols import SolError

STUDIES = Path(__file__).parents[1] / "studies"
TINY = LearnConfig(
    episodes=1, meta_batch=1, tuning_episodes=1, validation_episodes=1, record_episodes=1, library_generations=0,
    generations=0, prune_episodes=1, directions=("ad",), decays=("1",), max_terms=2, front=False,
    evaluation_episodes=1, baselines=(),
)  # fmt: skip


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Makes the study of a toy that a command line asks for, in a fresh folder."""
    monkeypatch.syspath_prepend(STUDIES)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("study")
    monkeypatch.setattr(module, "HERE", tmp_path)

    def make(*words):
        monkeypatch.setattr(sys, "argv", ["toy.py", "--size", "cpu", "--data", str(tmp_path), *words])
        budget = module.Budget(seeds=2, trials=3, tuning_seeds=1)
        return module.begin("toy", "Table 9", "a toy", {"cpu": ({"learner": "tiny"}, budget)}, {"cpu": ["Small."]})

    return make


def run(study):
    recipe = study.task(load_task, "quadratic")
    rule = study.learn([recipe], TINY)
    study.compare(recipe, {"learned": rule, "adam": "adam"})
    study.save()
    record = json.loads(Path(study.name + "-cpu.json").read_text())
    spent = record.pop("seconds of this command")
    return record, spent


def test_a_study_goes_on_where_it_was_and_gives_the_same_numbers(study, tmp_path, monkeypatch):
    first, spent = run(study())
    assert first["study"]["budget"] == {"seeds": 2, "trials": 3, "tuning_seeds": 1}
    assert (first["study"]["size"], first["study"]["shows"]) == ("cpu", "Table 9")
    assert spent["jobs"] == 1
    (comparison,) = first["comparisons"]
    assert [len(c["trials"]) for c in comparison["optimizers"]] == [0, 3]
    assert comparison["differences"]
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*.safetensors"))
    assert kept
    assert b" at 0x" not in kept  # what names an object of this process means nothing to the next one

    def never(*arguments, **options):
        raise AssertionError("computed twice")

    monkeypatch.setattr(Learner, "run", never)
    monkeypatch.setattr(comparing_module, "run_trial", never)
    second, _ = run(study())
    assert second == first


def test_a_json_of_the_same_settings_is_continued(study, monkeypatch):
    whole = study()
    assert whole.earlier == {}
    whole.record |= {"learning": {}, "rules": {"learned": "ad where lr = 0.1"}, "comparisons": [{"task": "first"}]}
    whole.save()
    assert study().earlier["comparisons"] == [{"task": "first"}]
    assert replace(study(), settings={"learner": "another"}).earlier == {}

    def compared(self, recipe, optimizers, **options):
        self.record["comparisons"].append({"rule": str(optimizers["learned"])})

    monkeypatch.setattr(type(whole), "compare", compared)
    tasks = [{"horizon": 5}, {"horizon": 9}]
    more = {"learned on": {}, "network": "convnet", "learner": {}, "opponents": [], "compared on": tasks}
    whole = replace(study(), settings=more, record={**whole.record})
    whole.save()
    importlib.import_module("transfer").main(replace(study(), settings=more, record={}))
    kept = replace(study(), settings=more).earlier["comparisons"]
    assert kept == [{"task": "first"}, {"rule": "ad where lr = 0.1"}]


def test_a_part_of_a_study_keeps_its_own_and_refuses_another_identity(study):
    whole = study()
    part = whole.part("cora", rule="a")
    assert part.name == "toy-cora"
    assert part.kept.once("number", lambda: 1) == 1
    assert whole.part("cora", rule="a").kept.once("number", lambda: 2) == 1
    assert whole.part("citeseer", rule="a").kept.once("number", lambda: 3) == 3
    with pytest.raises(SolError, match="its settings differ"):
        whole.part("cora", rule="b")


def script(name):
    """The module of a study; what it needs may not be installed here."""
    pytest.importorskip({"attack": "torchattacks"}.get(name, "transformers"))
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["figure5", "figure6", "table2", "table3", "table4", "table6", "attack", "bert"])
def test_every_script_has_both_sizes_and_says_how_the_small_one_differs(study, name):
    module = script(name)
    assert {*module.SIZES} == {*module.NOTES} == {"paper", "cpu"}
    assert all(module.NOTES[size] for size in module.SIZES)
    json.dumps([settings for settings, _ in module.SIZES.values()])


def completed(settings):
    """Recorded settings; those that the learner did not have yet have their default.

    It did not search constants, and fronts had eight generations.
    """
    if not isinstance(settings, dict):
        return settings
    return {
        name: asdict(LearnConfig(**{"constants": False, "front_generations": 8, **value}))
        if name in ("learner", "paper's recipe")
        else completed(value)
        for name, value in settings.items()
    }


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*-cpu.json")), ids=lambda path: path.stem)
def test_the_settings_in_a_json_are_those_of_its_script(study, path):
    about = json.loads(path.read_text())["study"]
    settings, _ = script(about["name"].partition("-")[0]).SIZES[about["size"]]
    assert json.loads(json.dumps(settings)) == json.loads(json.dumps(completed(about["settings"])))


def test_another_run_is_compared_value_by_value(study, monkeypatch, capsys):
    record = {"rule": "ad", "losses": [0.1, float("nan")], "seconds": 3.0, "more": {"machine": "this", "left": 1}}
    different = importlib.import_module("compare_runs").different
    assert different(record, {**record, "seconds": 4.0}) == (4, [])
    other = {"rule": "m", "losses": [0.1], "seconds": 3.0, "more": {"machine": "that", "left": 1, "right": None}}
    assert different(record, other) == (4, ["/rule", "/losses[1]", "/more/right"])
    for second, status, printed in ((record, 0, "4 values, 0 differ"), (other, 1, "4 values, 3 differ\n/rule")):
        for name, value in (("a.json", record), ("b.json", second)):
            Path(name).write_text(json.dumps(value))
        monkeypatch.setattr(sys, "argv", ["compare_runs.py", "a.json", "b.json"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(STUDIES / "compare_runs.py"), run_name="__main__")
        assert ended.value.code == status
        assert capsys.readouterr().out.startswith(printed)
