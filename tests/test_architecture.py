"""The shape of the project: which package may import what, and that nothing executes text."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sol_learner.task import Substream

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


def module_name(path):
    parts = path.relative_to(path.parents[len(path.parts) - path.parts.index("src") - 2]).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_imports(package):
    """Modules of a package by name, each with those of the package that it imports, anywhere in its code."""
    paths = {module_name(path): path for path in SOURCES if package in path.parts}
    graph = {}
    for name, path in paths.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                nested = {f"{node.module}.{alias.name}" for alias in node.names} & {*paths}
                found |= nested or {node.module}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        graph[name] = (found & {*paths}) - {name}
    return graph


@pytest.mark.parametrize("package", ARROWS)
def test_no_imports_form_a_circle(package):
    """Imports within functions and for type checkers count, too."""
    graph = module_imports(package)
    left = dict(graph)
    while leaves := [name for name, needs in left.items() if not needs & {*left}]:
        for name in leaves:
            del left[name]
    assert not left, f"in circles, or above one: { ({name: sorted(needs & {*left}) for name, needs in left.items()}) }"


# The floors of sol-learner: a module imports from floors below its own, or from its own wing.
FLOORS = (
    {"settings", "task", "runtime", "networks", "user_code"},
    {"mixture"},
    {"task_registry", "inner"},
    {"loaders", "testing", "estimators", "search", "comparing"},
    {"config", "figures"},
    {"meta_training", "planning", "starting", "report"},
    {"pipeline", "baselines"},
    {"run_folder"},
    {"front_door"},
    {"commands"},
)


def test_wings_import_from_the_floors_below():
    floors = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    for name, needs in module_imports("sol_learner").items():
        if name == "sol_learner":
            continue
        wing = name.split(".")[1]
        for needed in needs:
            other = needed.split(".")[1]
            assert other == wing or floors[other] < floors[wing], f"{name} imports {needed}"


def test_each_substream_has_one_use():
    """Two uses of random numbers that share a substream would draw the same numbers."""
    uses = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Substream" and path.stem != "testing":
                uses.setdefault(node.attr, []).append(f"{path.name}:{node.lineno}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "generator_for":
                assert "ubstream" in ast.unparse(node.args[3]), f"{path}:{node.lineno}"
    assert {name: places for name, places in uses.items() if len(places) > 1} == {}
    assert {*uses} == {*Substream.__members__}


def test_the_arrows_are_all_packages():
    assert set(ARROWS) == {name.replace("-", "_") for name in PACKAGES}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("sol_symbols", ["torch", "numpy", "sol_learner", "matplotlib"]),
        ("sol_symbols.rule", ["torch", "numpy", "sol_learner"]),
        ("sol_symbols.zoo", ["torch", "numpy", "sol_learner"]),
        ("sol_symbols.commands", ["torch", "numpy", "sympy", "sol_learner"]),
        ("sol_export.commands", ["torch", "numpy", "sympy", "sol_learner"]),
        ("sol_export.torch", ["torch", "sol_learner"]),
        ("sol_learner.commands", ["torch", "numpy", "sympy", "matplotlib"]),
        ("sol_learner.task_registry", ["torch", "numpy", "sympy"]),
        ("sol_tasks.catalog", ["torch", "numpy", "sympy", "sol_learner", "mlxtend"]),
        ("sol_tasks.fine_tuning", ["transformers", "torch_geometric", "torchattacks", "PIL", "mlxtend", "matplotlib"]),
        (
            "sol_tasks.node_classification",
            ["transformers", "torch_geometric", "torchattacks", "PIL", "mlxtend", "matplotlib"],
        ),
    ],
)
def test_importing_loads_nothing_heavy(module, absent):
    code = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["--help"], ["tasks"]], ids=" ".join)
def test_overviews_load_nothing_heavy(words):
    # Packages of others are theirs: the example of a task loads PyTorch.
    code = "import sys; import sol_learner.task_registry as r; find = r.find_plugins; "
    code += (
        "r.find_plugins = lambda group: {n: p for n, p in find(group).items() if p.value.startswith('sol_tasks.')}; "
    )
    code += f"from sol_symbols.cli import main; main({words})"
    code += "; print([name for name in ('torch', 'numpy', 'sympy') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("package", ARROWS)
def test_a_face_is_what_its_table_says(package):
    """Names are loaded when they are used; the table, ``__all__`` and what type checkers see are one list."""
    face = importlib.import_module(package)
    path = next(path for path in SOURCES if path.parts[-2:] == (package, "__init__.py"))
    block, lazy = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If))
    # A type checker must not see __getattr__, which would let every name pass.
    assert [ast.unparse(node.test) for node in (block, lazy)] == ["TYPE_CHECKING", "not TYPE_CHECKING"]
    assert ast.unparse(lazy.body[0]) == "__getattr__, __dir__ = lazy_names(__name__, _HOME)"
    checked = {alias.name: node.module.removeprefix(f"{package}.") for node in block.body for alias in node.names}
    assert checked == face._HOME
    assert sorted(checked) == sorted(face.__all__)
    for name in face.__all__:
        assert getattr(face, name) is not None
        assert not Path(path.parent, f"{name}.py").exists(), f"{package}.{name} hides a module"
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        face.nothing  # noqa: B018


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
