"""Tasks from files, wherever a task is named, and the command that checks them."""

import argparse
import textwrap

import pytest
import torch

from sol_learner import Learner, Workers, compare, load_task
from sol_learner.commands import Check, Learn
from sol_learner.task_registry import Recipe, short_name
from sol_learner.user_code import from_file, parts_of
from sol_symbols import SolError

FILE = """
import torch
from beside import SIZE


class Lines:
    name, horizon = "lines", 5

    def __init__(self, device="cpu"):
        self.device = device

    def build(self, generator):
        model = torch.nn.Linear(SIZE, 1)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, generator=generator)
        return model.to(self.device)

    def batches(self, split, generator):
        start = {"train": 0, "valid": 1, "test": 2}[split]
        while True:
            x = start + torch.rand(8, SIZE, generator=generator)
            yield x, x.sum(1, keepdim=True)

    def loss(self, model, batch):
        return (model(batch[0]) - batch[1]).square().mean()

    def evaluate(self, model, split):
        return {"loss": float(self.loss(model, next(self.batches(split, torch.Generator().manual_seed(0)))))}


def make(data=None):
    task = Lines()
    task.data = data
    return task


class Broken(Lines):
    def build(self, generator):
        return torch.nn.Linear(SIZE, 1)


class Same(Lines):
    def batches(self, split, generator):
        return super().batches("train", generator)


class OneDomain(Same):
    single_domain = True


class Needy:
    def __init__(self, size):
        pass


ready, number = Lines(), 3
if __name__ == "__main__":
    raise SystemExit("the script ran")
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "beside.py").write_text("SIZE = 2\n")
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(FILE))
    return path


@pytest.mark.parametrize("name", ["Lines", "make", "ready"])
def test_a_task_of_a_file(file, name):
    task = load_task(f"{file}:{name}")
    assert (task.name, task.horizon) == ("lines", 5)
    assert short_name(f"{file}:{name}") == name
    assert from_file(file, "Lines") is type(task)


def test_what_a_maker_takes_it_is_given(file, tmp_path):
    assert load_task(f"{file}:make", tmp_path).data == tmp_path
    assert str(load_task(f"{file}:Lines", device="cpu").device) == "cpu"


def test_a_changed_file_is_another_module(file):
    before = from_file(file, "Lines")
    file.write_text(FILE.replace("horizon = 5", "horizon = 6").replace('"lines", 5', '"lines", 6'))
    assert (before.horizon, load_task(f"{file}:Lines").horizon) == (5, 6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Line", r"train\.py has no class 'Line'; available: Lines, make, Broken, Same, OneDomain, Needy"),
        ("", r"name a class of .*train\.py, as .*train\.py:CLASS; available: Lines, make"),
        ("number", r"train\.py:number must be a task, or a class or function that makes one, got 3"),
        ("Needy", r"train\.py:Needy cannot be made: TypeError: .*'size'"),
    ],
)
def test_what_is_no_task_of_a_file(file, name, message):
    with pytest.raises(SolError, match=message):
        load_task(f"{file}:{name}" if name else str(file))


def test_files_that_cannot_be_run(tmp_path):
    with pytest.raises(SolError, match=r"cannot read .*none\.py: No such file"):
        load_task(f"{tmp_path}/none.py:Lines")
    (tmp_path / "wrong.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(SolError, match=r"cannot import .*wrong\.py: ModuleNotFoundError: No module named 'nothing_of"):
        load_task(f"{tmp_path}/wrong.py:Lines")


def test_only_python_files_have_parts():
    assert [parts_of(text) for text in ("mnistnet", "torch:AdamW", "C:x")] == [None] * 3


def test_other_processes_and_comparisons_take_it(file):
    workers = Workers(2)
    task = load_task(f"{file}:Lines")
    assert workers.map(lambda task: next(task.batches("train", torch.Generator()))[0].shape, [task] * 2) == [(8, 2)] * 2
    comparison = compare(f"{file}:Lines", ["ad where lr = 0.1", "g where lr = 0.1"], episodes=2, workers=workers)
    workers.close()
    assert comparison.task == "lines"
    assert not comparison.failures
    assert Recipe(load_task, (f"{file}:Lines",)).load().name == "lines"


def check(task):
    parser = argparse.ArgumentParser()
    Check().add_arguments(parser)
    return Check().run(parser.parse_args([task, "--device", "cpu"]))


def test_check_says_what_the_task_is(file, capsys):
    assert check(f"{file}:Lines") == 0
    assert capsys.readouterr().out == (
        "lines: a task; 3 parameters to train, T = 5 steps\nmodels are trained side by side\n"
    )
    assert check(f"{file}:OneDomain") == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Broken",
            r"Broken: build: the same generator state gives different models; draw the initial weights .*build_seeded",
        ),
        (
            "Same",
            r"Same: batches: the splits 'train' and 'valid' are equal; divide the data, or set single_domain",
        ),
        ("Needy", "cannot be made"),
    ],
)
def test_check_says_what_to_change(file, name, message):
    with pytest.raises(SolError, match=message):
        check(f"{file}:{name}")


class Mixture:
    name = "mixture"

    def draw(self, generator):
        raise NotImplementedError


def test_a_class_is_not_an_object(make_task):
    with pytest.raises(SolError, match=r"Mixture is a class; pass an object, Mixture\(\.\.\.\)"):
        Learner([Mixture])
    with pytest.raises(SolError, match=r"^not a task: Regression is a class; pass an object, Regression\(\.\.\.\)$"):
        Learner([make_task])


def test_a_dry_run_prints_the_plan_alone(file, capsys, tmp_path):
    learn, parser = Learn(), argparse.ArgumentParser()
    learn.add_arguments(parser)
    words = [f"{file}:Lines", "--dry-run", "--budget", "1min", "--effort", "quick", "--out", str(tmp_path / "out")]
    assert learn.run(parser.parse_args(words)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("plan: one training takes")
    assert any(line.startswith("  compare") for line in lines)
    assert not (tmp_path / "out").exists()
