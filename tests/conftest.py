"""What tests of emitted files share."""

import importlib.util
import sys

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
