"""What tests of emitted files, and of pages with code, share."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sol_export import export_rule


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    """Write a rule as a module and import it: ``emitted(rule, "torch")``."""
    names = []

    def load(rule, to, name="Emitted"):
        path = tmp_path_factory.mktemp("emitted") / f"emitted_{to}.py"
        path.write_text(export_rule(rule, to, name))
        names.append(f"{path.parent.name}_{path.stem}")
        spec = importlib.util.spec_from_file_location(names[-1], path)
        module = sys.modules[names[-1]] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope="module")
def load(emitted):
    """The optimizer class of a rule's PyTorch file; one file for one rule, unless it is to be a fresh one."""
    classes = {}

    def load_class(rule, fresh=False):
        if rule not in classes or fresh:
            classes[rule] = emitted(rule, "torch").Emitted
        return classes[rule]

    return load_class


_DRIVER = """
import doctest, json, subprocess, sys
names = {"__name__": "page"}
for language, code in json.load(sys.stdin):
    if language == "sh":
        subprocess.run(code, shell=True, check=True)
    elif ">>> " in code:  # what is shown is what comes out
        test = doctest.DocTestParser().get_doctest(code, names, "page", None, 0)
        assert not doctest.DocTestRunner().run(test, clear_globs=False).failed
        names = test.globs
    else:
        exec(compile(code, "page", "exec"), names)
"""


@pytest.fixture
def run_page(tmp_path):
    """Do what a page of documentation says: ``run_page(text)`` runs its blocks in their order, in one empty folder.

    Blocks of ``python`` share their names, those with prompts have to print what the page says they print, and one that
    begins with ``# NAME.py`` is that file. Blocks of ``sh`` are commands. ``path`` comes before the installed packages.
    """

    def run(text, languages=("python", "sh"), path=""):
        blocks = re.findall(rf"^```({'|'.join(languages)})\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for language, code in blocks:
            name = re.match(r"# (\w+\.py)\n", code)
            if language == "python" and name:
                (tmp_path / name[1]).write_text(code)
        rest = [block for block in blocks if not re.match(r"# \w+\.py\n", block[1])]
        (tmp_path / "page_driver.py").write_text(_DRIVER)
        commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": commands, "PYTHONPATH": str(path)}
        words = [sys.executable, "page_driver.py"]
        done = subprocess.run(
            words, cwd=tmp_path, input=json.dumps(rest), capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
