"""Sessions that check the project; ``nox`` without arguments runs them all.

Each package is installed and tested alone in an environment of its own, which catches undeclared dependencies.
"""

import os
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|venv"
nox.options.sessions = ["lint", "types", "symbols", "export", "learner", "cluster", "tasks", "integration", "docs"]

CONSTRAINTS = "constraints.txt"
PACKAGES = {name: f"packages/sol-{name}" for name in ("symbols", "export", "learner", "tasks")}
# What a package needs of this repository, itself last.
NEEDS = {
    "symbols": ("symbols",),
    "export": ("symbols", "export"),
    "learner": ("symbols", "learner"),
    "tasks": ("symbols", "learner", "tasks"),
}
# torchattacks asks for torchvision, which it does not use, and for an old requests; torchvision's CPU builds lag behind
# PyTorch's and break the import of transformers.
OVERRIDES = "overrides.txt"
# Two threads on two busy cores are slower than one (results are the same): processors are used by processes of tests.
# Tests of one file stay together because they share runs.
PYTEST = ("pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "UV_OVERRIDE": OVERRIDES}
if "PIP_FIND_LINKS" in os.environ:  # uv does not read pip's settings
    ENVIRONMENT["UV_FIND_LINKS"] = os.environ["PIP_FIND_LINKS"]


def install(session: nox.Session, *requirements: str) -> None:
    session.install("-c", CONSTRAINTS, *requirements, env=ENVIRONMENT)


def check_alone(session: nox.Session, name: str, *extras: str, beside: tuple[str, ...] = ()) -> None:
    folders = [PACKAGES[need] for need in NEEDS[name]]
    folders[-1] += f"[{','.join(extras)}]" if extras else ""
    install(session, "pytest", "pytest-xdist", "hypothesis", "ruff", *beside, *folders)
    folder = PACKAGES[name]
    session.run(*PYTEST, f"{folder}/src", f"{folder}/tests", *session.posargs, env=ENVIRONMENT)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting (ruff)."""
    install(session, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Static types (mypy)."""
    install(session, "mypy", *PACKAGES.values())
    for name, folder in PACKAGES.items():
        session.run("mypy", "-p", f"sol_{name}", env={"MYPYPATH": f"{folder}/src"})
    for place, options in (("studies", []), ("benchmarks", ["--allow-untyped-defs"])):
        scripts = sorted(str(path) for path in Path(place).glob("*.py"))
        session.run("mypy", "--ignore-missing-imports", *options, *scripts, env={"MYPYPATH": place})


@nox.session
def symbols(session: nox.Session) -> None:
    """Tests of sol-symbols, installed with what it declares and its extra."""
    check_alone(session, "symbols", "plot")


@nox.session
def export(session: nox.Session) -> None:
    """Tests of sol-export, installed with what it declares and with the libraries that emitted files are for."""
    check_alone(session, "export", beside=("torch", "optax"))


@nox.session
def learner(session: nox.Session) -> None:
    """Tests of sol-learner, installed with what it declares and its extras for comparing and distilling."""
    check_alone(session, "learner", "compare", "distil", "tensorboard")


@nox.session
def cluster(session: nox.Session) -> None:
    """Tests of sol-learner on clusters of Ray's and Dask's that they start on this machine."""
    packages = (PACKAGES["symbols"], f"{PACKAGES['learner']}[compare]")
    install(session, "pytest", "hypothesis", "ray", "distributed", *packages)
    session.run("pytest", f"{PACKAGES['learner']}/tests/comparing/test_comparing.py", "-k", "cluster", env=ENVIRONMENT)


@nox.session
def tasks(session: nox.Session) -> None:
    """Tests of sol-tasks, installed with what it declares and its extras, except those that need torchvision."""
    extras = nox.project.load_toml(f"{PACKAGES['tasks']}/pyproject.toml")["project"]["optional-dependencies"]
    used = [extra for extra in extras if extra not in ("robustbench", "fetch")]
    check_alone(session, "tasks", *used, beside=("gguf", "accelerate"))  # with which transformers reads GGUF files


@nox.session
def integration(session: nox.Session) -> None:
    """Tests of the packages together, and of what a person does with them."""
    # What rules and emitted files are compared with, what emitted files are used by, and a browser's remote control.
    references = ("expecttest", "jax", "optax", "pytorch-optimizer", "accelerate", "pytorch-lightning", "transformers")
    packages = [PACKAGES["symbols"], PACKAGES["export"], f"{PACKAGES['learner']}[compare]", PACKAGES["tasks"]]
    install(session, "pytest", "pytest-xdist", "hypothesis", "selenium", *references, *packages)
    session.install("--no-deps", "./examples/sol-task-example")  # a third party's task
    session.run(*PYTEST, "tests", *session.posargs, env=ENVIRONMENT)


@nox.session
def docs(session: nox.Session) -> None:
    """The site, into build/docs, where a warning is an error; and its notebooks. Pages' code is the integration's."""
    install(session, "sphinx", "furo", "myst-parser", *PACKAGES.values())
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", "build/docs", env=ENVIRONMENT)
    session.run("python", "docs/run_notebooks.py", env=ENVIRONMENT)
