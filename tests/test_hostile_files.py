"""A hundred damaged and hostile files, made from good ones: a message or a result, never a crash; nothing is executed,
and nothing is written elsewhere."""

import contextlib
import copy
import json
import os
import shutil
from pathlib import Path

import numpy
import pytest

from sol_learner import LearnConfig, Learner, write_run
from sol_learner.runtime import MetricsFile
from sol_symbols import ZOO
from sol_symbols.cli import main
from sol_tasks import quadratic

SMALL = {
    "episodes": 1,
    "steps": 8,
    "meta_batch": 2,
    "unroll": (8,),
    "validation_episodes": 1,
    "record_episodes": 1,
    "library_generations": 1,
    "max_terms": 3,
    "prune_episodes": 1,
    "generations": 1,
    "population": 4,
    "polish_episodes": 1,
    "evaluation_episodes": 2,
    "baseline_trainings": 12,
    "tuning_episodes": 1,
}
VALUES = [
    *(None, True, [], {}, "", "x", -1, 0, 10**400, 1e308, -1e308, float("inf"), float("nan"), [[]], {"a": None}),
    *("<script>alert(1)</script>", "\x1b[2J", "../../outside", "__import__('os').system('touch RAN')", "é" * 300),
    *([1e308, -1e308], [10**400], ["x"] * 3, "\udcff", 2**63, 1e-320),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A finished run, a rule file, and the JSON of a comparison and of a study."""
    base = tmp_path_factory.mktemp("good")
    folder = base / "run"
    folder.mkdir()
    result = Learner([quadratic()], LearnConfig(**SMALL), progress=MetricsFile(folder / "metrics.jsonl")).run()
    write_run(result, folder)
    ZOO["adam"].save(base / "rule.json")
    comparison = result.comparisons[0].record(statistics=True)
    (base / "comparison.json").write_text(json.dumps(comparison))
    table = {"title": "t", "head": ["name", "x"], "rows": [["a", 1.0], ["b", 2.0]]}
    study = {"shows": "it", "title": "t", "notes": ["n"], "settings": {"a": {"b": 1}}, "budget": {"c": 2}}
    record = {"study": study, "rules": {"learned": "ad"}, "tables": [table], "comparisons": [comparison]}
    (base / "study.json").write_text(json.dumps(record))
    return base


def places(value, path=()):
    """Paths to all values in JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def damaged(text, random):
    """Text of JSON with a few values replaced, removed or moved, or its bytes cut and flipped."""
    kind = random.integers(5)
    if kind == 0:
        content = bytearray(text.encode())
        for _ in range(3):
            content[random.integers(len(content))] ^= 1 << random.integers(8)
        return bytes(content)
    if kind == 1:
        return text.encode()[: random.integers(len(text))]
    value = json.loads(text)
    by_depth = {}
    for place in places(value):
        by_depth.setdefault(len(place), []).append(place)
    for _ in range(random.integers(1, 3)):
        level = by_depth[random.choice([*by_depth])]  # otherwise nearly all places are numbers of curves
        *above, last = level[random.integers(len(level))] or (0,)
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier change took it away
            parent = value
            for key in above:
                parent = parent[key]
            if kind == 4 and isinstance(parent, list):
                parent.append(copy.deepcopy(parent[0]))
            elif kind == 2:
                del parent[last]
            else:
                parent[last] = copy.deepcopy(VALUES[random.integers(len(VALUES))])
    return json.dumps(value).encode()


@pytest.fixture
def world(good, tmp_path, monkeypatch):
    """A copy of the good files, in a folder with a file of the user's, and a check of all that must stay."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("mine")
    inside = shutil.copytree(good, tmp_path / "inside")

    def check():
        assert {path.name for path in tmp_path.iterdir()} == {"mine", "inside", "out"} & {*os.listdir(tmp_path)}
        assert (tmp_path / "mine").read_text() == "mine"
        assert not [path for path in inside.rglob("*") if path.name in ("RAN", "outside")]

    return inside, check


RUN = ["summary.json", "front.json", "metrics.jsonl", "rule.json"]
TARGETS = [*(f"run/{name}" for name in RUN), "rule.json", "comparison.json", "study.json"]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("target", TARGETS)
def test_damaged_files_get_a_message_or_a_result(target, seed, world, capsys):
    inside, check = world
    random = numpy.random.default_rng([seed, TARGETS.index(target)])
    path = inside / target
    path.write_bytes(
        damaged(path.read_text().strip().splitlines()[-1] if target.endswith("l") else path.read_text(), random)
    )
    source = str(path.parent if target.startswith("run/") else path)
    commands = [] if target in ("comparison.json", "study.json") else [["show", source]]
    commands += [] if target == "rule.json" else [["report", source, "-o", "out"]]
    if target.startswith("run/"):
        commands += [["show", source, "--complexity", "2"], ["export", source, "--to", "latex"]]
    for words in commands:
        assert main(words) in (0, 2)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        assert "\x1b" not in printed.out + printed.err
    if os.path.exists("out"):
        assert "<script>alert" not in Path("out").read_text()
    check()


@pytest.mark.parametrize("name", [*RUN, "checkpoints", "report.html", "optimizer.py"])
@pytest.mark.parametrize("kind", ["link", "pipe", "device", "folder"])
def test_run_folders_with_links_and_pipes_are_read_without_following(name, kind, world, capsys):
    inside, check = world
    path = inside / "run" / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else inside.parent / "mine")
    (inside.parent / "mine").write_text("mine")
    assert main(["report", str(inside / "run"), "-o", "out"]) in (0, 2)
    assert main(["report", str(inside / "run")]) in (0, 2)
    assert main(["learn", "quadratic", "--out", str(inside / "run")]) == 2
    assert main(["learn", "quadratic", "--out", str(inside / "run"), "--resume"]) == 2
    if (kind, name) != ("folder", "checkpoints"):
        assert main(["learn", "quadratic", "--out", str(inside / "run"), "--overwrite"]) == 2
    if os.path.exists("out"):
        assert "bWluZQ" not in Path("out").read_text()  # mine, as a download
    assert "Traceback" not in capsys.readouterr().err
    check()
