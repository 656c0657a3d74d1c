"""What a person does with the command, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from sol_export import load_optimizer
from sol_symbols import ZOO, lower, resolve_rule
from sol_symbols.cli import main

SOL = [sys.executable, "-m", "sol_symbols.cli"]
# As on a person's machine: the default data, and as many threads as there are cores.
QUIET = {key: value for key, value in os.environ.items() if key not in ("SOL_DATA", "OMP_NUM_THREADS")}


def sol(*words, **options):
    return subprocess.run([*SOL, *map(str, words)], capture_output=True, text=True, env=QUIET, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The main job, as the README has it."""
    folder = tmp_path_factory.mktemp("runs") / "mnistnet"
    done = sol("learn", "mnistnet", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_tune_chooses_a_shipped_rule_or_a_rate(tmp_path):
    for given, names in (([], {"sol-general", "sol-fits"}), (["sol-general"], {"lr"})):
        out = tmp_path / "tuned.json"
        done = sol("tune", "quadratic", *given, "--steps", 12, "--out", out)
        assert done.returncode == 0, done.stderr
        *lines, call, wrote = done.stdout.splitlines()
        assert {line.split()[0] for line in lines} == names
        rates = [line for line in lines if "weight_decay" not in line]
        assert 5 * len({*names}) <= len(rates) <= 5 * len({*names}) + 6
        assert 1 <= len(lines) - len(rates) <= 5
        best = min(lines, key=lambda line: float(line.split()[-1]))
        rule = resolve_rule(str(out))
        assert f"lr {rule.lr:g} " in best
        assert rule.horizon == 12
        assert wrote.startswith(f"wrote {out}")
        assert call == f'load_optimizer("{rule.name}")(model.parameters(), lr={rule.lr:g}, horizon=12)'


def test_tune_checks_what_it_writes_before_it_trains(tmp_path):
    done = sol("tune", "quadratic", "sol-general", "--out", tmp_path / "no" / "x.json")
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert not done.stdout


OVERFIT = """
import torch
from torch import nn
from sol_learner import from_loaders

def overfit():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(260, 30, generator=generator)
    y = x[:, :5].sum(1) + torch.randn(260, generator=generator)
    data = [(x[i], y[i, None]) for i in (slice(0, 60), slice(60, 160), slice(160, 260))]
    return from_loaders("overfit", lambda: nn.Linear(30, 1), *data, steps=60, loss_fn=nn.MSELoss())
"""


def test_tune_finds_weight_decay_where_data_are_few(tmp_path):
    (tmp_path / "few.py").write_text(OVERFIT)
    done = sol("tune", f"{tmp_path / 'few.py'}:overfit", "sol-general", "--out", tmp_path / "tuned.json")
    assert done.returncode == 0, done.stderr
    rule = resolve_rule(str(tmp_path / "tuned.json"))
    parameters = [torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2)]
    call = done.stdout.splitlines()[-2].replace("model.parameters()", "[parameter]")
    assert f"weight_decay={rule.values['wd']:g}, horizon=60" in call
    for parameter, make in zip(parameters, (call, "load_optimizer(rule)([parameter])")):
        optimizer = eval(make, {"load_optimizer": load_optimizer, "parameter": parameter, "rule": rule})
        for _ in range(3):
            parameter.grad = 1 + parameter.detach() ** 2
            optimizer.step()
    torch.testing.assert_close(*parameters)
    assert not torch.equal(parameters[0], torch.ones(3, 2))


def test_learn_writes_everything_and_says_what_it_found(run):
    folder, done = run
    files = {path.name for path in folder.iterdir()}
    emitted = {"optimizer.py", "optimizer_optax.py", "formula.tex", "formula.md", "formula.html"}
    emitted |= set() if lower(resolve_rule(str(folder))).reduces else {"optimizer.h"}
    assert "optimizer.h" not in str(json.loads((folder / "summary.json").read_text()).get("omitted"))
    assert files == emitted | {
        *("rule.json", "rule.txt", "summary.json", "metrics.jsonl", "front.json", "front.png", "curves.png"),
        "report.html",
    }
    rule = resolve_rule(str(folder))
    assert str(rule) in done.stdout
    assert resolve_rule(str(folder / "rule.txt")) == rule
    assert rule.complexity.terms <= 15
    summary = json.loads((folder / "summary.json").read_text())
    learned, *_, adam = summary["comparison"][0]["optimizers"]
    assert len(learned["metrics"]["test"]["loss"]) == 10
    assert sum(learned["metrics"]["train"]["loss"]) <= 0.80 * sum(adam["metrics"]["train"]["loss"])
    assert sum(learned["metrics"]["test"]["loss"]) <= sum(adam["metrics"]["test"]["loss"])
    assert len(adam["tuning"]) >= 9
    assert summary["readout"]["error"] < 1e-6
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "784-20-10 with sigmoid units" in (folder / "report.html").read_text()  # what mnistnet is
    assert "Traceback" not in done.stderr


def test_the_emitted_file_needs_torch_alone(run):
    folder, _ = run
    code = (
        "import sys; sys.modules.update(sol_symbols=None, sol_learner=None)\n"
        "import torch, optimizer\n"
        "p = torch.nn.Parameter(torch.ones(3)); o = optimizer.MnistnetOptimizer([p])\n"
        "p.grad = torch.ones(3); o.step(); assert p.isfinite().all() and (p != 1).all()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def test_a_run_can_be_shown_exported_and_compared(run, tmp_path):
    folder, _ = run
    shown = sol("show", folder)
    assert str(resolve_rule(str(folder))) in shown.stdout
    exported = sol("export", folder, "--to", "torch", "-o", tmp_path / "mine.py", "--name", "Mine")
    assert exported.returncode == 0
    assert "class Mine(torch.optim.Optimizer)" in (tmp_path / "mine.py").read_text()
    assert r"\begin{align*}" in sol("export", "lion", "--to", "latex").stdout
    compared = sol("compare", "mnistnet", folder, "g where lr = 0.1", "--seeds", "2", "--json", tmp_path / "c.json")
    assert compared.returncode == 0, compared.stderr
    record = json.loads((tmp_path / "c.json").read_text())
    assert [optimizer["tuning"] for optimizer in record["optimizers"]] == [[], []]
    assert "mnistnet" in sol("tasks").stdout


def test_any_rule_on_the_front_can_be_taken(run):
    folder, _ = run
    shown = sol("show", folder, "--complexity", "3")
    assert re.search(r"complexity  [123] terms", shown.stdout), shown.stderr
    exported = sol("export", folder, "--complexity", "3", "--to", "torch")
    assert str(resolve_rule(str(folder), 3).expression) != str(resolve_rule(str(folder)).expression)
    assert resolve_rule(str(folder), 3).digest not in ("", resolve_rule(str(folder)).digest)
    assert "class " in exported.stdout
    missing = sol("show", "adam", "--complexity", "3")
    assert missing.returncode == 2
    assert "needs the folder of a finished run" in missing.stderr


def test_a_run_is_not_overwritten(run):
    folder, _ = run
    again = sol("learn", "mnistnet", "--out", folder)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize("phase", ["meta-training", "polishing"])
def test_control_c_keeps_what_was_reached(tmp_path, phase):
    folder = tmp_path / "run"
    words = ["learn", "mnistnet", "--episodes", "4", "--jobs", "2", "--out", str(folder)]
    process = subprocess.Popen(
        [*SOL, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=QUIET, start_new_session=True
    )
    for line in process.stderr:  # the tuning of Adam is done: something is reached
        if phase in line:
            break
    time.sleep(5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the processes for polishing too
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert str(resolve_rule(str(folder))) in out
    assert json.loads((folder / "summary.json").read_text())["interrupted"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["learn", "mnistnt", "--out", "x"], "no task 'mnistnt'; did you mean 'mnistnet'?"),
        (["distil", "run"], "required: --out"),
        (["learn", "mnistnet", "--out", "x", "--seed", "-1"], "seed must be at least 0, got -1"),
        (["learn", "mnistnet", "--out", "x", "--seed", "one"], "seed must be a whole number, got 'one'"),
        (["learn", "mnistnet", "--out", "x", "--units", "magic"], "'magic' is not an operator"),
        (["learn", "mnistnet", "--out", "x", "--resume", "--overwrite"], "mutually exclusive"),
        (["learn", "mnistnet", "--out", "x", "--population", "2"], "population must be at least 4, got 2"),
        (["learn", "mnistnet", "--out", "x", "--outer-lr", "inf"], "outer_lr must be at most 1,000,000,000, got inf"),
        (["learn", "mnistnet", "--out", "x", "--estimator", "magic"], "must be one of first-order, exact, pes"),
        (["learn", "mnistnet", "--out", "x", "--config", "no.toml"], "cannot read the settings file no.toml"),
        (["learn", "mnistnet", "--out", "x", "--jobs", "2", "--backend", "magic"], "no backend 'magic'"),
        (["learn", "mnistnet", "mnistnet", "--out", "x"], "task names must be unique"),
        (["learn", "mnistnet", "--out", "x", "--budget", "soon"], "'soon' is not a time"),
        (["learn", "mnistnet", "--out", "x", "--device", "abacus"], "cannot use the device 'abacus'"),
        (["learn", "mnistnet", "--out", "x", "--data", "nowhere"], "no such data folder: nowhere"),
        (["learn", "mnistnet", "--out", "x", "--data", "."], "no MNIST in"),
        (["learn", "mnistnet", "--out", "README.md/x"], "cannot create the folder"),
        (["learn", "mnistnet", "--out", "x", "--fast"], "unrecognized arguments: --fast"),
        (["compare", "mnistnet", "adma"], "did you mean"),
        (["compare", "mnistnet", "adam", "adam"], "duplicate optimizer"),
        (["learn", "mnistnet", "--generation=3"], "arguments: --generation=3; did you mean --generations?"),
        (["compare", "mnistnet", "adam", "--seeds", "0"], "must be an integer from 1 to 1,000,000, got '0'"),
        (["compare", "mnistnet", "adam", "--seeds", "1" * 5000], "must be an integer from 1 to 1,000,000"),
        (["compare", "mnistnet", "adam", "--seed", str(2**32)], "must be an integer from 0 to 4294967295"),
        (["compare", "mnistnet", "adam", "--seed", "-1"], "must be an integer from 0"),
        (["compare", "mnistnet", "adam", "--target", "nan"], "must be a finite number, got 'nan'"),
        (["compare", "mnistnet", "adam", "--jobs", "100000"], "must be an integer from 1 to"),
        (["compare", "mnistnet", "adam", "--threads", "100000"], "must be an integer from 1 to"),
        (["learn", "mnistnet", "--out", "x", "--jobs", "1" * 30], "must be an integer from 1 to"),
        (["learn", "mnistnet", "--out", "x", "--device", "meta"], "cannot use the device 'meta'"),
        (["learn", "mnistnet", "--out", "x" * 300], "File name too long"),
        (["learn", "mnistnet", "--out", "x", "--data", "y" * 300], "File name too long"),
        (["report", "x" * 300], "File name too long"),
        (
            ["export", "adam", "--to", "latex", "--digits", "-1"],
            "digits must be from 1 to 17",
        ),
        (["compare", "mnistnet", "runs/none"], "no such run folder or rule file: runs/none\n"),
        (["compare", "mnistnet", "tune:sol-genral"], "no rule 'sol-genral'; did you mean 'sol-general'?"),
        (["tune", "mnistnet", "sol-genral"], "no rule 'sol-genral'; did you mean 'sol-general'?"),
        (["show", "sol-genral"], "no rule 'sol-genral'; did you mean 'sol-general'?"),
        (["export", "sol-genral", "--to", "torch"], "no rule 'sol-genral'; did you mean 'sol-general'?"),
        (["export", "adam", "--to", "cobol"], "invalid choice: 'cobol'"),
        (["export", "adam", "--to", "torch", "-o", "nowhere/file.py"], "cannot write"),
        (["export", "adam", "--to", "torch", "--name", "1st"], "is not a valid name in"),
        (["show", "__import__('os').system('x')"], "cannot be called"),
        (["shwo", "adam"], "did you mean 'show'?"),
    ],
)
def test_nonsense_gets_one_clear_message(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOL_DATA", raising=False)
    (tmp_path / "README.md").write_text("a file")
    assert main(words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("sol: error: ")
    assert printed.out == ""
    assert not list(tmp_path.glob("x/*"))  # nothing that a corrected command would trip over


def test_a_number_of_processes_that_is_none_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "abc")
    assert main(["learn", "quadratic", "--out", str(tmp_path / "x")]) == 2
    assert "WORLD_SIZE must be the number of processes that torchrun started, got 'abc'" in capsys.readouterr().err


def test_a_hostile_rule_file_is_refused_and_not_run(tmp_path, capsys):
    bad = tmp_path / "rule.json"
    record = json.loads(ZOO["adam"].to_json())
    record["expression"] = f"__import__('os').system('touch {tmp_path}/ran')"
    bad.write_text(json.dumps(record))
    assert main(["show", str(bad)]) == 2
    message = capsys.readouterr().err
    assert "__import__" in message
    assert message.rstrip().endswith("^")
    assert not (tmp_path / "ran").exists()


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in ("learn", "show", "export", "compare", "tasks"))
