"""Every adapter: it conforms, a rule moves it downhill, a few outer steps learn on it, and nothing depends on luck.

The table holds each family's real data with models small enough for a test; those that take minutes a step on two
cores (ResNets of full width, a whole BERT) are built and measured once, elsewhere in this folder.
"""

import ast
import dataclasses
import functools
import importlib
import tempfile
import warnings
from importlib import metadata
from pathlib import Path

import pytest
import torch

import sol_tasks
import sol_tasks.catalog
from sol_learner import Clock, LearnConfig
from sol_learner.inner import TaskSet, run_rule
from sol_learner.meta_training import meta_train, network_generator
from sol_learner.networks import SymbolicNetwork
from sol_learner.runtime import NullProgress
from sol_learner.task import Stream
from sol_learner.testing import check_task
from sol_symbols import ZOO, SolError
from sol_tasks import Burgers, bert_head, gat, image_classification, jknet, mnistnet, quadratic, rosenbrock, siren
from sol_tasks.attack import Attack
from sol_tasks.catalog import TASKS
from sol_tasks.cifar10 import load_cifar10
from sol_tasks.fine_tuning import FineTuning, instruction_tuning, matthews
from sol_tasks.tokenization import tokenize_pairs
from sol_tasks.victims import load_victim


@dataclasses.dataclass(frozen=True)
class Case:
    """A task, the rate at which Adam moves it, and the steps of an episode in the test."""

    make: object
    lr: float
    horizon: int = 6
    extra: str | None = None


def attack(data, **options):
    return Attack("attack", load_victim("cifar_cnn_a_adv", data), small_cifar10(data), images=8, **options)


@functools.cache
def small_cifar10(data):
    return {split: (x[:500], y[:500]) for split, (x, y) in load_cifar10(data).items()}


def images(data, network="convnet", dataset="cifar10", width=None):
    task = image_classification(network, dataset, data, batch_size=8, sample=32, width=width)
    task._data = {split: (x[:32], y[:32]) for split, (x, y) in task._data.items()}
    return task


def bert_parts(data):
    """The tokenizer of a real BERT and a small model for it."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(data / "bert" / "all-MiniLM-L6-v2")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return tokenizer, BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **size))


def tiny_bert(data, dataset="CoLA"):
    from sol_tasks.glue import load_glue

    tokenizer, model = bert_parts(data)
    parts = {s: tokenize_pairs(tokenizer, rows[:128], 32) for s, rows in load_glue(dataset, data).items()}
    fresh = frozenset({"classifier.weight", "classifier.bias"})
    return FineTuning("bert", model, fresh, parts, 6, metrics=matthews)


def tiny_bert_head(data, dataset):
    with tempfile.TemporaryDirectory() as folder:
        for part in bert_parts(data):
            part.save_pretrained(folder)
        return bert_head(dataset, data, checkpoint=folder, rows=128)


def tiny_llama(data):
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(data / "bert" / "all-MiniLM-L6-v2")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size))
    task = instruction_tuning(data, model=model, tokenizer=tokenizer, length=48, horizon=4, batch_size=2)
    task._data = {split: {name: x[:8] for name, x in rows.items()} for split, rows in task._data.items()}
    return task


SYNTHETIC = ("burgers", "quadratic", "rosenbrock", "siren")  # tasks without data

CASES = {
    "burgers": Case(lambda data: Burgers(points=32), 0.01, 20),
    "siren": Case(lambda data: siren(), 0.003, 10),
    "siren-cifar10": Case(siren, 0.003, 10, extra="PIL"),
    "quadratic": Case(lambda data: quadratic(), 0.1, 30),
    "rosenbrock": Case(lambda data: rosenbrock(), 0.03, 30),
    "mnistnet": Case(lambda data: mnistnet(None), 0.03),
    "mnistnet-2layer": Case(lambda data: mnistnet(None, variant="mnistnet-2layer"), 0.03),
    "mnistnet-big": Case(lambda data: mnistnet(None, variant="mnistnet-big"), 0.03),
    "mnistnet-relu": Case(lambda data: mnistnet(None, variant="mnistnet-relu"), 0.03),
    "convnet-cifar10": Case(images, 3e-4, 4, extra="PIL"),
    "convnet-mnist": Case(lambda data: images(data, dataset="mnist"), 3e-4, 4),
    "resnet18-cifar10": Case(lambda data: images(data, "resnet18", width=4), 1e-3, 4, extra="PIL"),
    "resnet18-mnist": Case(lambda data: images(data, "resnet18", "mnist", 4), 1e-3, 4),
    "resnet34-mnist": Case(lambda data: images(data, "resnet34", "mnist", 4), 1e-3, 4),
    "attack-linf": Case(attack, 0.1, extra="PIL"),
    "attack-dlr": Case(lambda data: attack(data, loss="dlr"), 0.03, extra="PIL"),
    "attack-l2": Case(lambda data: attack(data, norm="l2", radius=0.5), 0.01, extra="PIL"),
    "gat-cora": Case(lambda data: gat("Cora", data), 0.01, extra="torch_geometric"),
    "gat-citeseer": Case(lambda data: gat("Citeseer", data), 0.01, extra="torch_geometric"),
    "gat-pubmed": Case(lambda data: gat("PubMed", data), 0.01, extra="torch_geometric"),
    "jknet-cora": Case(lambda data: jknet("Cora", data), 0.01, extra="torch_geometric"),
    "jknet-citeseer": Case(lambda data: jknet("Citeseer", data), 0.01, extra="torch_geometric"),
    "jknet-pubmed": Case(lambda data: jknet("PubMed", data), 0.01, extra="torch_geometric"),
    "bert-cola": Case(tiny_bert, 3e-3, extra="transformers"),
    "bert-sst-2": Case(lambda data: tiny_bert(data, "SST-2"), 3e-3, extra="transformers"),
    "bert-rte": Case(lambda data: tiny_bert(data, "RTE"), 3e-3, extra="transformers"),
    "bert-mrpc": Case(lambda data: tiny_bert(data, "MRPC"), 3e-3, extra="transformers"),
    "bert-head-cola": Case(lambda data: tiny_bert_head(data, "CoLA"), 0.03, 30, extra="transformers"),
    "bert-head-mrpc": Case(lambda data: tiny_bert_head(data, "MRPC"), 0.03, 30, extra="transformers"),
    "llm": Case(tiny_llama, 1e-2, 4, extra="transformers"),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    chosen = CASES[request.param]
    if chosen.extra is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip(chosen.extra)
    real = request.param not in SYNTHETIC and not request.param.startswith("mnistnet")
    task = chosen.make(request.getfixturevalue("data") if real else None)
    task.horizon = chosen.horizon
    return task, chosen.lr


def test_it_conforms(case):
    check_task(case[0])


def test_adam_moves_it_downhill_the_same_way_every_time(case):
    task, lr = case
    once, again = (run_rule(task, ZOO["adam"], 0, Stream.TUNE, range(2), lr) for _ in range(2))
    assert torch.equal(once.losses, again.losses)
    start = run_rule(task, ZOO["adam"], 0, Stream.TUNE, range(2), 0.0)
    assert (once.metrics["train"]["loss"] < start.metrics["train"]["loss"]).all()


def test_a_few_outer_steps_learn_on_it(case):
    task, lr = case
    network = SymbolicNetwork(ZOO["adam"], generator=network_generator(0))
    before = network.readout.detach().clone()
    config = LearnConfig(
        episodes=1, meta_batch=2, unroll=(task.horizon // 2,), coordinates=256, validation_episodes=1, validate_every=1
    )
    task_set = TaskSet((task,), (1.0,), config.objective)
    result = meta_train(task_set, network, lr, config, progress=NullProgress(), clock=Clock())
    assert (result.windows, result.dropped) == (2, 0)
    assert all(torch.isfinite(torch.tensor(record["loss"])) for record in result.history)
    assert result.loss <= result.history[0]["loss"]
    assert result.loss == result.history[0]["loss"] or not torch.equal(before, network.readout)


def test_the_catalogue_is_what_is_registered():
    points = {p.name: p for p in metadata.entry_points(group="sol.tasks") if p.value.startswith("sol_tasks.")}
    attributes = {name: f"sol_tasks.catalog:{name.replace('-', '_')}" for name in TASKS}
    assert {name: point.value for name, point in points.items()} == attributes
    assert all(points[name].load() is make for name, make in TASKS.items())


@pytest.mark.parametrize("name", TASKS)
def test_every_entry_says_what_it_is_and_where_its_data_is_missing(name, tmp_path):
    make = TASKS[name]
    assert make.__doc__.endswith(".")
    assert "\n" not in make.__doc__
    extras = metadata.metadata("sol-tasks").get_all("Provides-Extra")
    assert set(make.requires.values()) <= {f"sol-tasks[{extra}]" for extra in extras}
    if name in SYNTHETIC and name != "siren":  # which takes pictures from a folder
        assert make(data=tmp_path).name == name
        return
    with pytest.raises(SolError) as caught:
        make(data=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path) in message or "pip install" in message


@pytest.mark.parametrize("name", ["attack-linf", "attack-carmon2019", "llm-alpaca"])
def test_a_task_without_default_data_asks_for_a_folder(name):
    with pytest.raises(SolError, match=f"^{name} needs a data folder: pass --data DIR or set SOL_DATA$"):
        TASKS[name]()


def test_the_face_has_one_list_of_names():
    """``__all__``, the table of modules, and the imports that type checkers see."""
    tree = ast.parse(Path(sol_tasks.__file__).read_text())
    inside = (
        n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and n.module.startswith("sol_tasks.")
    )
    seen = {alias.name: node.module for node in inside for alias in node.names}
    assert seen == {name: f"sol_tasks.{module}" for name, module in sol_tasks._HOME.items()}
    assert sorted(sol_tasks.__all__) == sorted(seen)
    for name, module in seen.items():
        assert getattr(sol_tasks, name) is getattr(importlib.import_module(module), name)
    assert set(sol_tasks.__all__) <= set(dir(sol_tasks))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sol_tasks.nothing
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sol_tasks.catalog.nothing
