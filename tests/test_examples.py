"""The scripts in examples/ run, and the emitted files beside them are what is emitted today."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sol_export import export_rule
from sol_symbols import ZOO

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(("file", "language"), [("sol_mnistnet.py", "torch"), ("sol_mnistnet_optax.py", "optax")])
def test_the_emitted_files_are_up_to_date(file, language):
    again = f"sol export sol-mnistnet --to {language} -o examples/{file}"
    assert (EXAMPLES / file).read_text() == export_rule(ZOO["sol-mnistnet"], language), f"to be made again: {again}"


@pytest.mark.parametrize("script", ["digits_pytorch.py", "digits_jax.py"])
def test_the_script_trains(script, tmp_path):
    """In a process that does not find anything of sol."""
    hidden = dict.fromkeys(("sol_symbols", "sol_export", "sol_learner", "sol_tasks"))
    path = str(EXAMPLES / script)
    run = f"import runpy, sys; sys.modules.update({hidden}); sys.path.insert(0, {str(EXAMPLES)!r}); "
    run += f"runpy.run_path({path!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", run], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    learned, adam = (float(number) for number in re.findall(r"test accuracy ([\d.]+)", done.stdout))
    assert learned > 0.8
    assert adam > 0.8


def test_the_way_from_a_training_script_to_a_verdict(tmp_path):
    """With a fraction of its budget; 25 lines."""
    source = (EXAMPLES / "digits_learn.py").read_text()
    assert len(source.splitlines()) <= 25
    settings = re.search(r"quick = (\{.*\})", source)[1]
    few = {"baselines": ("sgd",), "baseline_trainings": 2, "evaluation_episodes": 2, "episodes": 1, "meta_batch": 2}
    few |= {"validation_episodes": 1, "generations": 1, "library_generations": 1, "population": 4, "front": False}
    (tmp_path / "script.py").write_text(source.replace(settings, repr(few)))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"DigitsOptimizer \(\nParameter Group 0", done.stdout)
    assert "trainings against" in done.stdout
    assert (tmp_path / "runs" / "digits" / "report.html").is_file()
