"""The shape of the project: which package may import what, and that nothing executes text."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {path.name: path for path in sorted((ROOT / "packages").iterdir()) if path.is_dir()}
SOURCES = sorted((ROOT / "packages").glob("*/src/**/*.py"))

# Arrows of the design: each package and the ones of ours that it may import.
ARROWS = {
    "sol_symbols": set(),
    "sol_export": {"sol_symbols"},
    "sol_learner": {"sol_symbols"},
    "sol_tasks": {"sol_symbols", "sol_learner"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_imports_follow_the_arrows(path):
    package = path.parts[path.parts.index("src") + 1]
    ours = {name for name in imported(path) if name.startswith("sol_")} - {package}
    assert ours <= ARROWS[package]


def test_the_arrows_are_all_packages():
    assert set(ARROWS) == {name.replace("-", "_") for name in PACKAGES}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("sol_symbols", ["torch", "sol_learner", "matplotlib"]),
        ("sol_symbols.cli", ["torch", "sol_learner"]),
        ("sol_export", ["torch", "sol_learner"]),
        ("sol_tasks", ["transformers", "torch_geometric", "torchattacks", "PIL", "mlxtend", "matplotlib"]),
    ],
)
def test_importing_loads_nothing_heavy(module, absent):
    code = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_text_is_executed(path):
    """No eval, exec, compile, unrestricted pickle, or SymPy's readers of text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        assert name not in {"eval", "exec", "compile", "__import__"}, f"{path}:{node.lineno}"
        assert not re.search(r"\b(parse_expr|sympify|S)$|pickle\.(loads?|Unpickler)$", name), f"{path}:{node.lineno}"


def test_all_packages_have_one_version():
    versions = {
        name: re.search(r'^version = "(.+)"', (path / "pyproject.toml").read_text(), re.M)[1]
        for name, path in PACKAGES.items()
    }
    assert len(set(versions.values())) == 1, versions
    for name in ARROWS:
        text = (PACKAGES[name.replace("_", "-")] / "src" / name / "__init__.py").read_text()
        assert f'__version__ = "{next(iter(versions.values()))}"' in text


def test_the_changelog_knows_this_version():
    version = re.search(r'^version = "(.+)"', (PACKAGES["sol-symbols"] / "pyproject.toml").read_text(), re.M)[1]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
