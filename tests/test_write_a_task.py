"""The guide's code runs as it stands, and its task, installed as a package, is one of the command's."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from sol_learner import find_tasks, load_task
from sol_learner.testing import check_task
from sol_symbols import SolError, resolve_rule

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "write-a-task.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
EXAMPLE = ROOT / "examples" / "sol-task-example"
FEWER = (
    "LearnConfig(seed=0, episodes=2, library_generations=2, generations=2, evaluation_episodes=2, tuning_episodes=1,"
    " validation_episodes=2, prune_episodes=1)"
)

installed = pytest.mark.skipif(
    not any(d.metadata["Name"] == "sol-task-example" for d in metadata.distributions()),
    reason="examples/sol-task-example is not installed",
)


def test_the_guides_code_runs(run_page):
    assert "LearnConfig(seed=0)" in GUIDE
    assert "learned" in run_page(GUIDE.replace("LearnConfig(seed=0)", FEWER))


def test_the_guides_task_is_that_of_the_example_and_has_thirty_lines():
    source = (EXAMPLE / "src" / "sol_task_example" / "__init__.py").read_text()
    assert BLOCKS[1] in source
    assert BLOCKS[4] in source
    assert len([line for line in BLOCKS[1].splitlines() if line.strip()]) <= 30
    line = re.search(r"```toml\n(.*?)```", GUIDE, re.DOTALL)[1]
    assert line in (EXAMPLE / "pyproject.toml").read_text()


def test_the_guides_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert (ROOT / "docs" / target).exists(), target


@installed
def test_an_installed_package_adds_a_task_that_learns(tmp_path):
    listed = subprocess.run([sys.executable, "-m", "sol_symbols.cli", "tasks"], capture_output=True, text=True)
    assert re.search(r"^sines +Fit sin\(2x\)", listed.stdout, re.MULTILINE)
    check_task(load_task("sines"))
    words = [sys.executable, "-m", "sol_symbols.cli", "learn", "sines", "--out", str(tmp_path / "run")]
    done = subprocess.run([*words, "--budget", "20s"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert resolve_rule(str(tmp_path / "run")).lr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["tasks"] == ["sines"]


def plug(folder, name, body, entries):
    """A distribution called ``name``, importable from ``folder``."""
    package = folder / name
    package.mkdir(parents=True)
    (package / f"{name}.py").write_text(body)
    info = package / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sol.tasks]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()))
    return str(package)


def test_two_packages_with_one_task_name_are_both_named(tmp_path, monkeypatch):
    for name in ("left", "right"):
        monkeypatch.syspath_prepend(plug(tmp_path, name, "def make(data, device): ...", {"same": f"{name}:make"}))
    assert {"same", "mnistnet"} <= {*find_tasks()}
    with pytest.raises(SolError, match=r"(left and right|right and left) both offer 'same'.*uninstall one of them"):
        load_task("same")


def test_a_broken_or_unready_task_is_listed_and_does_not_hide_the_others(tmp_path, monkeypatch, capsys):
    from sol_symbols.cli import main

    body = "def make(data, device):\n    'Not ready.'\nmake.requires = {'no_such_module': 'no-such[thing]'}\n"
    entries = {"unready": "plugged:make", "broken": "plugged:nothing"}
    monkeypatch.syspath_prepend(plug(tmp_path, "plugged", body, entries))
    assert main(["tasks"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"^unready +Not ready\. Needs: pip install 'no-such\[thing\]'$", listed, re.MULTILINE)
    assert re.search(r"^broken .*offered by plugged, cannot be loaded", listed, re.MULTILINE)
    assert "mnistnet" in listed
    assert main(["learn", "unready", "--out", str(tmp_path / "x")]) == 2
    assert "pip install 'no-such[thing]'" in capsys.readouterr().err
    with pytest.raises(SolError, match="offered by plugged"):
        load_task("broken")


@pytest.mark.parametrize("body", ["raise RuntimeError('broken')", "import sys; sys.exit(0)", "1 / 0", "def make(:"])
def test_a_package_that_breaks_at_import_costs_only_itself(body, tmp_path, monkeypatch, capsys):
    from sol_symbols.cli import main

    folder = plug(tmp_path, "breaks", body, {"breaks": "breaks:make"})
    points = tmp_path / "breaks" / "breaks-1.0.dist-info" / "entry_points.txt"
    points.write_text("".join(f"[sol.{kind}]\nbreaks = breaks:make\n" for kind in ("tasks", "commands", "exporters")))
    monkeypatch.syspath_prepend(folder)
    for words in (["--help"], ["tasks"], ["export", "adam", "--to", "latex"], ["show", "adam"]):
        assert main(words) == 0
        assert "Traceback" not in capsys.readouterr().err
    for words in (["breaks"], ["learn", "breaks", "--out", "x"], ["export", "adam", "--to", "breaks"]):
        assert main(words) == 2
        assert "offered by breaks, cannot be loaded" in capsys.readouterr().err


def test_a_name_of_this_project_stays_its_own(tmp_path, monkeypatch):
    folder = plug(tmp_path, "squats", "def make(data, device): ...", {"mnistnet": "squats:make"})
    monkeypatch.syspath_prepend(folder)
    assert find_tasks()["mnistnet"].value.startswith("sol_tasks.")
