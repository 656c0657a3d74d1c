"""From the network to a written run: pruning, polishing, learning, interrupting, comparing."""

import copy
import dataclasses
import json
import os
from dataclasses import replace

import pytest
import torch
from torch.nn import Linear, Sequential, Sigmoid, Tanh

from sol_learner import Checkpoints, Clock, LearnConfig, Learner, Workers, compare, write_run
from sol_learner.inner import TaskSet
from sol_learner.inner.rates import SHRINKING
from sol_learner.mixture import augmented, drawn_task
from sol_learner.run_folder import prepare_folder
from sol_learner.runtime import Interrupted, NullProgress
from sol_learner.runtime.progress import Phase, open_progress
from sol_learner.search.terms import combine, split
from sol_learner.starting import StartFinder
from sol_learner.task import Stream
from sol_symbols import ZOO, SolError, UpdateRule, resolve_rule, symbol

SMALL = LearnConfig(
    tuning_episodes=2,
    episodes=3,
    meta_batch=3,
    unroll=(4,),
    coordinates=40,
    validation_episodes=3,
    record_episodes=2,
    record_coordinates=40,
    library_generations=3,
    max_terms=6,
    prune_episodes=1,
    generations=3,
    front_generations=4,
    population=6,
    evaluation_episodes=3,
)


def cancelled_in(wanted):
    """A reporter that cancels its clock when the phase has made a step."""
    clock = Clock()

    class Cancelling(NullProgress):
        name = ""

        def phase(self, phase, name, steps):
            self.name = name

        def step(self, done, **numbers):
            if self.name.startswith(wanted):
                clock.cancel()

    return {"clock": clock, "progress": Cancelling()}


@pytest.fixture(scope="module")
def result(make_task):
    return Learner([make_task()], SMALL).run()


def test_learning_beats_the_tuned_start(result):
    learned, adam = (c.outcome.objective().mean() for c in result.comparisons[0].optimizers[::5])
    assert learned < adam
    assert result.summary["verdicts"] == {"regression": result.comparisons[0].verdict().line}
    assert result.comparisons[0].optimizers[0].trainings == sum(result.summary["trainings"].values()) > 0
    assert 1 <= result.rule.complexity.terms <= SMALL.max_terms
    assert result.readout_error < 1e-6
    lengths = [point.terms for point in result.front]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > SMALL.max_terms
    assert lengths[-1] == 1
    assert result.rule in [point.rule for point in result.front]


def test_the_same_seed_gives_the_same_rule_and_numbers(result, task):
    again = Learner([task], SMALL).run()
    assert again.rule == result.rule
    assert str(again.rule) == str(result.rule)
    assert again.comparisons[0].record() == result.comparisons[0].record()
    other = Learner([task], replace(SMALL, seed=1)).run()
    assert other.rule != result.rule


def test_the_number_of_steps_can_be_set(make_task):
    task = make_task()
    few = replace(SMALL, steps=5, episodes=1, library_generations=1, generations=0, front=False)
    result = Learner([task], few).run()
    assert result.rule.horizon == 5
    assert result.comparisons[0].horizon == 5
    assert task.horizon == 12


def test_the_summary_is_json_and_says_how_to_repeat_the_run(result):
    summary = json.loads(json.dumps(result.summary))
    assert summary["config"]["seed"] == 0
    assert UpdateRule.parse(summary["rule"]) == result.rule
    assert summary["digest"] == result.rule.digest
    assert set(summary["seconds"]) == {"tune", "meta-train", "library", "prune", "polish", "check", "front", "compare"}
    assert summary["meta_training"]["dropped"] == 0
    assert summary["kernel"] == "eager"
    searches = {search["of"]: search for search in summary["searches"]}
    assert list(searches) == ["library", "polish", "front"]
    assert [search["seed"] for search in searches.values()] == [0, 1, 2]
    assert searches["front"]["terms"] == (SMALL.max_terms * 3 + 3) // 4
    assert searches["polish"]["evaluations"] == SMALL.generations * SMALL.population


@pytest.mark.parametrize(
    "phase", ["meta-training", "polishing 18", "pruning to 6", "polishing 6", "measuring", "comparing"]
)
def test_an_interrupted_run_keeps_what_it_reached(task, phase, tmp_path):
    reached = Learner([task], SMALL, **cancelled_in(phase)).run()
    assert reached.comparisons == []
    assert reached.summary["interrupted"] is True
    files = write_run(reached, tmp_path)
    assert "curves.png" not in files
    assert resolve_rule(str(tmp_path)) == reached.rule


def test_interrupted_before_anything_was_reached(task):
    clock = Clock()
    clock.cancel()
    with pytest.raises(Interrupted):
        Learner([task], SMALL, clock=clock).run()


def test_a_budget_shortens_the_run(task):
    slow = replace(SMALL, episodes=100_000, generations=100_000, library_generations=100_000)
    clock = Clock(2.0)
    short = Learner([task], slow, clock=clock).run()
    assert len(short.comparisons) == 1
    assert clock.elapsed < 20
    assert short.summary["polish"]["generations"] < 100_000


def test_progress_without_a_terminal_is_lines(capsys):
    with open_progress() as progress:
        progress.phase(Phase.META_TRAIN, "meta-training", 2)
        progress.step(1, loss=0.5)
        progress.step(2, loss=0.25)
        progress.note("something")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("] ")[2] for line in lines] == [
        "meta-training",
        "meta-training 2/2  loss 0.25",
        "something",
    ]


def test_comparing_tunes_only_rules_without_a_rate(task):
    rules = {"mine": UpdateRule.parse("ad where lr = 0.0123"), "sgd": ZOO["sgd"]}
    comparison = compare(task, rules, seed=0, episodes=2, progress=NullProgress())
    mine, sgd = comparison.optimizers
    assert (mine.lr, mine.tuning) == (0.0123, [])
    assert len(sgd.tuning) >= 13
    assert "0.0123" in comparison.table()
    assert json.dumps(comparison.record())


def test_a_run_folder_is_never_overwritten_by_accident(result, tmp_path):
    prepare_folder(tmp_path / "run")
    write_run(result, tmp_path / "run")
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SolError, match="already contains a run"):
        prepare_folder(tmp_path / "run")
    prepare_folder(tmp_path / "run", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(SolError, match="cannot create the folder"):
        prepare_folder(tmp_path / "file" / "run")
    with pytest.raises(SolError, match="mutually exclusive"):
        prepare_folder(tmp_path / "run", overwrite=True, resume=True)


def test_a_run_that_replaces_another_leaves_nothing_of_it(result, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    write_run(result, tmp_path)
    assert (tmp_path / "front.json").exists()
    written = write_run(replace(result, front=[], comparisons=[]), str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {*written, "mine.txt"}
    with pytest.raises(SolError, match="needs the folder of a finished run"):
        resolve_rule(str(tmp_path), 3)


def test_a_run_killed_while_it_wrote_its_files_goes_on(tmp_path):
    (tmp_path / "rule.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints" / "00000001.safetensors"
    checkpoint.write_bytes(b"")
    prepare_folder(tmp_path, resume=True)
    with pytest.raises(SolError, match="already contains a run; choose another folder"):
        prepare_folder(tmp_path)
    checkpoint.unlink()
    with pytest.raises(SolError, match="it is finished; sol show prints its rule"):
        prepare_folder(tmp_path, resume=True)


class Plugin:
    """An entry point for ``load``, of another package."""

    dist, name = None, "other"
    value = "other:Exporter"

    def __init__(self, load):
        self.load = load


class Exporter:
    filename, description = "other.txt", "other"

    def export(self, rule, name):
        return "text"


def test_exporters_that_break_or_clash_cost_their_own_file_alone(result, tmp_path, monkeypatch):
    def missing():
        raise ImportError("no such thing")

    def broken():
        raise RuntimeError("broken at import")

    class Exits(Exporter):
        filename = "exits.txt"

        def export(self, rule, name):
            raise SystemExit(0)

    class Outside(Exporter):
        filename = "../outside.txt"

    class Clash(Exporter):
        filename = "summary.json"

    class Number(Exporter):
        filename = "number.txt"

        def export(self, rule, name):
            return 7

    def twice():
        return Exporter

    loads = {"missing": missing, "broken": broken, "fine": lambda: Exporter, "second": twice}
    loads |= {cls.__name__: (lambda cls=cls: cls) for cls in (Exits, Outside, Clash, Number)}
    plugins = {name: Plugin(load) for name, load in loads.items()}
    monkeypatch.setattr("sol_learner.run_folder.find_plugins", lambda group: plugins)
    said = []
    files = write_run(result, tmp_path / "run", said.append)
    assert (tmp_path / "run" / "other.txt").read_text() == "text"
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*files}
    assert [*tmp_path.iterdir()] == [tmp_path / "run"]
    assert resolve_rule(str(tmp_path / "run")) == result.rule
    omitted = json.loads((tmp_path / "run" / "summary.json").read_text())["omitted"]
    assert omitted == said
    for name, word in {
        "missing": "no such thing",
        "broken": "RuntimeError: broken at import",
        "second": "it writes other.txt, as the exporter 'fine' does",
        "Exits": "exits.txt",
        "Outside": "a file of the name '../outside.txt'",
        "Clash": "a file of the name 'summary.json'",
        "Number": "expected text, got int",
    }.items():
        assert any(name in line and word in line for line in said), (name, said)


@pytest.mark.parametrize("name", ["summary.json", "report.html", "rule.txt", "metrics.jsonl"])
def test_files_that_are_of_no_run_are_not_replaced(name, tmp_path):
    (tmp_path / name).write_text("mine")
    (tmp_path / "curves-mine.png").write_text("mine")
    with pytest.raises(SolError, match=rf"contains {name}, but no run; choose another folder or pass --overwrite"):
        prepare_folder(tmp_path)
    prepare_folder(tmp_path, overwrite=True)
    assert (tmp_path / name).read_text() == "mine"


def test_the_log_of_a_run_that_ended_at_once_is_not_in_the_way(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"phase": "tune", "title": "tuning", "step": 1, "seconds": 0.1}\n')
    prepare_folder(tmp_path)


def test_pictures_of_others_stay_when_a_run_is_replaced(result, tmp_path):
    write_run(result, tmp_path)
    (tmp_path / "curves-mine.png").write_text("mine")
    write_run(result, tmp_path)
    assert (tmp_path / "curves-mine.png").read_text() == "mine"


@pytest.mark.parametrize("name", ["rule.json", "metrics.jsonl", "rule.txt", "curves.png", "report.html", "checkpoints"])
@pytest.mark.parametrize("kind", ["link", "pipe", "device"])
def test_links_and_pipes_in_a_run_folder_are_neither_followed_nor_replaced(name, kind, result, tmp_path):
    target, folder = tmp_path / "target", tmp_path / "run"
    folder.mkdir()
    target.write_text("mine")
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(target if kind == "link" else "/dev/zero")
    with pytest.raises(SolError, match=rf"{name}( |: it )is (not a folder|a symbolic link|a pipe|a device)"):
        prepare_folder(folder, overwrite=True)
    with pytest.raises(SolError):
        prepare_folder(folder)
    with pytest.raises(SolError):
        write_run(result, folder)
    assert target.read_text() == "mine"
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "lamb"}, "cannot meta-train a network from lamb: it has values per tensor; set episodes to 0"),
        ({"directions": ("ad", "g*inv0(norm(g))")}, "values per tensor or per run; use elementwise terms"),
    ],
)
def test_values_per_tensor_are_refused_where_the_learner_cannot_search_them(task, settings, message):
    with pytest.raises(SolError, match=message):
        Learner([task], dataclasses.replace(SMALL, **settings))


SEARCH = replace(
    SMALL, episodes=0, start="sol-general", baselines=(), descent_steps=2, generations=4, front_generations=2
)


@pytest.fixture(scope="module")
def searched(make_task):
    return Learner([make_task()], SEARCH).run()


def test_the_prior_is_improved_with_its_constants(searched):
    start = ZOO["sol-general"]
    assert searched.rule.values["beta1"] != start.values["beta1"]
    assert searched.rule.complexity.terms <= 12
    assert len(searched.rule.terms) > len(str(searched.rule).split("tensor_rate")) - 1  # shared factors are in front
    assert searched.summary["polish"]["loss"] <= min(searched.summary["tuning"]["starts"].values()) * 1.5
    assert searched.front[-1].terms == 1


def test_a_rule_is_checked_on_variants_of_its_task(searched):
    valid = searched.summary["valid"]
    assert {name.split(": ")[1] for name in valid} >= {"half the steps", "twice the steps", "three times the input"}
    assert all(row["learned"] <= 2 * row["start"] for row in valid.values())


def start_of(task, config, workers=None):
    return StartFinder(
        task if isinstance(task, list) else [task], config, False, Checkpoints(), NullProgress(), Clock(), workers
    ).run()


@pytest.mark.parametrize("count", [1, 2])
def test_processes_share_the_tuning_of_models_one_after_another(count, make_task, monkeypatch):
    tasks = [make_task(vectorizable=False, horizon=3) for _ in range(count)]
    for number, task in enumerate(tasks):
        task.name = f"regression-{number}"
    config = replace(SEARCH, start="auto", tuning_episodes=2)
    here, workers = start_of(tasks, config), Workers(2)
    monkeypatch.setattr(TaskSet, "run", None)  # in this process
    shared = start_of(tasks, config, workers)
    workers.close()
    assert (shared.rule, shared.lr, shared.tunings, shared.objectives) == (
        here.rule,
        here.lr,
        here.tunings,
        here.objectives,
    )


def test_auto_starts_from_the_better_of_prior_and_adam(task):
    start = start_of(task, replace(SEARCH, start="auto"))
    better = min(start.objectives, key=start.objectives.get)
    assert start.rule.name == better.removesuffix("-constant")
    tried = sum(len(measured) for _, measured in start.tunings.values()) + 5 + 1
    tried += 5 * (start.objectives["sol-fits"] < start.objectives["sol-general"])
    decays = start.trainings // SEARCH.tuning_episodes - tried
    assert start.trainings % SEARCH.tuning_episodes == 0
    # two rates and two kinds, with more and more decay
    assert decays in (range(4, 21, 2) if better.startswith("sol") else (0,))
    assert start_of(task, replace(SMALL, start="auto")).rule.name == "adam"


def test_a_rule_that_the_task_names_is_tried_first_and_its_own_terms_are_searched(make_task, monkeypatch):
    task = make_task()
    task.priors = ["sol-attack"]
    start = start_of(task, replace(SEARCH, start="prior"))
    assert [*start.objectives][:2] == ["sol-attack", "sol-general"]

    def run(self, rule, *given, measure=TaskSet.run, **options):
        return measure(self, rule, *given, **options) * (100 if rule.name in ("sol-general", "sol-fits") else 1)

    monkeypatch.setattr(TaskSet, "run", run)
    task.priors = ["sol-mnistnet"]
    config = replace(SEARCH, start="prior", max_terms=20, guard=False, check_episodes=0, front=False, generations=1)
    result = Learner([task], config).run()
    assert [search["of"] for search in result.summary["searches"]] == ["polish"]
    assert result.summary["tuning"]["rule"] == "sol-mnistnet"


def test_a_prior_that_is_not_in_the_zoo_is_refused(make_task):
    task = make_task()
    task.priors = ["sol-unheard"]
    with pytest.raises(SolError, match="priors of regression must be zoo rules with a learning rate, got 'sol-unh"):
        start_of(task, replace(SEARCH, start="auto"))


@pytest.mark.parametrize(("kind", "schedule"), [("weight decay", 1), ("weight decay that falls", symbol("pd"))])
def test_weight_decay_joins_the_start_where_it_helps(task, monkeypatch, kind, schedule):
    factor, favoured = 3.0, symbol("w") * symbol("wd") * schedule

    def run(self, rule, *arguments, measure=TaskSet.run, **options):
        if "wd" not in rule.values:
            return measure(self, rule, *arguments, **options)
        favour = 0.5 if favoured in rule.expression.expand().args else 1.0
        return measure(self, rule, *arguments, **options) * factor * favour

    monkeypatch.setattr(TaskSet, "run", run)
    assert "wd" not in start_of(task, SEARCH).rule.values
    factor = 1.0
    start = start_of(task, SEARCH)
    wd, mean = start.rule.values["wd"], 1 if schedule == 1 else 1 / (1 + start.rule.values["decay_power"])
    assert min(abs(start.lr * wd * task.horizon * mean / shrinking - 1) for shrinking in SHRINKING) < 0.01
    assert min(start.objectives, key=start.objectives.get) == f"sol-general with {kind}"
    result = Learner([task], replace(SEARCH, max_terms=12)).run()
    assert f" + {favoured} where" in str(result.rule)  # searched by wd, not by a coefficient; other terms share factors
    assert result.rule.values["wd"] not in (wd, 0.0)
    assert result.rule.complexity.terms <= 13


@pytest.mark.parametrize("decay", ["w*wd", "pd*w*wd"])
def test_the_coefficient_of_weight_decay_is_a_part_of_it(decay):
    rule = UpdateRule.parse(f"ad + {decay} where lr = 0.1, wd = 0.2")
    units, _ = split(rule)
    doubled = combine(rule, units, [2.0 if unit.has(symbol("w")) else 3.0 for unit in units])
    assert str(doubled) == f"3*ad + {decay} where lr = 0.1, wd = 0.4"
    negative = combine(rule, units, [-2.0 if unit.has(symbol("w")) else 3.0 for unit in units])
    assert f"- 2*{decay}" in str(negative)


class Lengths:
    """Regressions over different numbers of steps."""

    name = "lengths"

    def __init__(self, make):
        self.make = make

    def draw(self, generator):
        return self.make(horizon=int(torch.randint(4, 12, (), generator=generator)))


def test_a_mixture_of_tasks_draws_a_task_an_episode(make_task):
    mixture = Lengths(make_task)
    horizons = {drawn_task(mixture, 0, Stream.TRAIN, episode).horizon for episode in range(20)}
    assert len(horizons) > 3
    result = Learner([mixture], SEARCH).run()
    assert result.rule != ZOO["sol-general"]
    assert result.comparisons == []
    assert result.summary["tasks"] == ["lengths"]
    with pytest.raises(SolError, match="needs start = sol-general and episodes = 0"):
        Learner([mixture], SMALL).run()


def test_augmented_tasks_are_the_same_function_of_other_coordinates(task):
    other = augmented(task, weight_scale=1.0)
    generator = torch.Generator().manual_seed(3)
    model, scaled = task.build(generator), other.build(generator.manual_seed(3))
    batch = next(task.batches("train", torch.Generator().manual_seed(0)))
    assert torch.allclose(task.loss(model, batch), other.loss(scaled, batch))
    assert not torch.allclose(next(model.parameters()), next(scaled.parameters()))
    assert augmented(task, horizon=5).horizon == 5
    double = next(augmented(task, batch_factor=2.0).batches("train", torch.Generator().manual_seed(0)))
    assert torch.equal(double[0][:16], batch[0])
    assert len(double[0]) == 32
    smooth = Sequential(Sequential(Linear(2, 3), Tanh()), Sigmoid(), Linear(3, 2))
    units = type("Smooth", (), {"name": "smooth", "horizon": 3, "build": lambda self, generator: smooth})()
    rectified = augmented(units, rectified=True).build(generator)
    assert [type(m).__name__ for m in rectified.modules() if not [*m.children()]] == [
        "Linear",
        "ReLU",
        "ReLU",
        "Linear",
    ]
    triple = augmented(task, input_scale=3.0)
    expected = task.loss(model, (3 * batch[0], batch[1]))
    assert torch.allclose(triple.loss(triple.build(generator.manual_seed(3)), batch), expected)


def test_an_augmented_model_has_what_its_task_reads(make_task):
    """Buffers, its own weights and keyword arguments; calls that would see other weights are refused."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(5))
            self.register_buffer("target", torch.tensor(2.0))

        def forward(self, x, factor=1.0):
            return factor * (x @ self.weight)

        def size(self):
            return self.weight.norm()

    class Penalised(make_task):
        def build(self, generator):
            return Model()

        def loss(self, model, batch):
            return (model(batch[0], factor=0.5) - model.target).square().mean() + 0.1 * model.weight.square().sum()

    task = Penalised()
    other = augmented(task, weight_scale=1.0)
    model, scaled = (t.build(torch.Generator().manual_seed(3)) for t in (task, other))
    batch = next(task.batches("train", torch.Generator().manual_seed(0)))
    torch.testing.assert_close(task.loss(model, batch), other.loss(scaled, batch))
    with pytest.raises(AttributeError, match=r"call the model itself, model\(\.\.\.\), not model\.size"):
        scaled.size()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        scaled.nothing  # noqa: B018
    assert copy.deepcopy(scaled).target == 2
