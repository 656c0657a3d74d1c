"""The output folder of ``sol learn``: rule, front, emitted files, figures, numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from sol_learner.baselines.distillation import Distilled, DistilSettings
from sol_learner.figures import curves_png, front_png
from sol_learner.networks.trained_lstm import LSTM_FILE, LSTM_WEIGHTS, TrainedLSTM
from sol_learner.pipeline import LearnResult
from sol_learner.report import write_report
from sol_learner.runtime.checkpoints import CHECKPOINTS, checkpoints_in
from sol_learner.search.front import FrontPoint
from sol_symbols import SolError, write_atomically
from sol_symbols.files import check_target, file_name, is_regular, read_regular
from sol_symbols.plugins import EXPORTERS, find_plugins, load_plugin
from sol_symbols.resolve import MAX_BYTES

__all__ = ["METRICS", "REPORT", "prepare_folder", "trainings_of", "write_distilled", "write_run"]

REPORT = "report.html"
"""File name of the report page."""


METRICS = "metrics.jsonl"
"""File name of the run's log."""

_FILES = {
    *("rule.json", "rule.txt", "summary.json", "front.json", "front.png", "curves.png", "distillation.json"),
    *(METRICS, REPORT, LSTM_FILE, LSTM_WEIGHTS),
}
"""Files of a run, besides those of exporters and the curves of several tasks."""


def prepare_folder(folder: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Check, before any work is done, that a run can be written to ``folder``.

    A run counts as finished once its checkpoints are gone. They are removed last, so a run that was killed while
    writing its files still counts as unfinished.

    Raises:
        SolError: The folder cannot be created or written to; it already contains a run (finished or not), or files that
            are not of a run and that one would replace; a file of a run is a link, a pipe or the like; or both
            ``overwrite`` and ``resume`` are set.
    """
    if overwrite and resume:
        raise SolError("--resume and --overwrite (resume and overwrite in Python) are mutually exclusive")
    checkpoints = folder / CHECKPOINTS
    if checkpoints.is_symlink() or (checkpoints.exists() and not checkpoints.is_dir()):
        raise SolError(f"{checkpoints} is not a folder; remove it or choose another folder")
    under_way = bool(checkpoints_in(checkpoints))
    names = sorted(_FILES | {exporter.filename for _, exporter in _exporters(lambda _: None)})
    if not overwrite and not (resume and under_way):
        finished = [name for name in ("rule.json", LSTM_FILE) if (folder / name).exists()]
        if finished:
            hint = (
                "it is finished" if resume else "choose another folder or pass --overwrite (overwrite=True in Python)"
            )
            hint += "; sol show prints its rule" if resume and "rule.json" in finished else ""
            raise SolError(f"{folder} already contains a run; {hint}")
        if under_way:
            raise SolError(
                f"{folder} contains an unfinished run; pass --resume to continue or --overwrite to replace it "
                "(resume=True or overwrite=True in Python)"
            )
        foreign = [name for name in names if is_regular(folder / name) and not _is_log(folder / name)]
        if foreign:
            raise SolError(
                f"{folder} contains {', '.join(foreign)}, but no run; choose another folder or pass --overwrite "
                "(overwrite=True in Python) to replace these files"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SolError(f"cannot create the folder {folder}: {error.strerror}") from error
    for name in names:
        check_target(folder / name)


def _is_log(path: Path) -> bool:
    """Whether this is the log that a run left which ended before its first checkpoint."""
    if path.name != METRICS:
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        line = file.readline(10_000)
    try:
        record = json.loads(line) if line else {"phase": ""}
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and not {"phase", "note"}.isdisjoint(record)


def _exporters(report: Callable[[str], None]) -> list[tuple[str, Any]]:
    """The installed exporters by name; ``report`` is told of those that cannot be used."""
    found: dict[str, tuple[str, Any]] = {}
    for name, plugin in find_plugins(EXPORTERS).items():
        try:
            exporter = load_plugin(EXPORTERS, plugin)()
            filename = exporter.filename
            if file_name(filename) != filename or filename in {*_FILES, CHECKPOINTS}:
                raise SolError(f"it must not write a file of the name {filename!r}")
            if filename in found:
                raise SolError(f"it writes {filename}, as the exporter {found[filename][0]!r} does")
            found[filename] = name, exporter
        except (Exception, SystemExit) as error:  # of others
            report(f"exporter {name!r}: {error}")
    return [*found.values()]


def _to_stderr(line: str) -> None:
    print(f"sol: note: {line}", file=sys.stderr)


def write_run(result: LearnResult, folder: str | Path, report: Callable[[str], None] = _to_stderr) -> list[str]:
    """Write all files of a run; returns their names, most important first.

    ``rule.json`` and ``rule.txt`` hold the rule, ``front.json`` and ``front.png`` the rules of other lengths,
    ``summary.json`` all numbers, ``curves.png`` the comparison. Every installed exporter adds its file
    (``optimizer.py``, ``formula.tex``), and ``report.html`` presents everything.

    Files are independent: what an exporter, a figure or the page cannot express is left out, told to ``report`` and
    listed under ``omitted`` in ``summary.json``.

    Args:
        result: The run.
        folder: Made if it does not exist; the files of an earlier run in it are replaced.
        report: Called with a line for each file that is left out; prints it to standard error by default.

    Raises:
        SolError: A file cannot be written.
    """
    folder = Path(folder)
    prepare_folder(folder, overwrite=True)
    omitted: list[str] = []

    def omit(line: str) -> None:
        omitted.append(line)
        report(line)

    files: dict[str, str | bytes] = {"rule.json": result.rule.to_json(), "rule.txt": f"{result.rule}\n"}
    files["summary.json"] = _summary(result, {}, ())
    for comparison in result.comparisons:
        name = _curves(comparison.task, len(result.comparisons))
        _add(files, name, partial(curves_png, comparison, result.rule), omit)
    if result.front:
        files["front.json"] = json.dumps([_entry(point) for point in result.front], indent=1) + "\n"
    if len(result.front) > 1:
        _add(files, "front.png", partial(front_png, result.front, result.rule), omit)
    _write(files, folder)
    offered = {"rule.json": "the rule at full precision, for use with sol", "summary.json": "all numbers of the run"}
    emitted: dict[str, str | bytes] = {}
    for name, exporter in _exporters(omit):
        (folder / exporter.filename).unlink(missing_ok=True)  # of an earlier run
        if hasattr(exporter, "covers") and not exporter.covers(result.rule):
            continue  # such a language is for some rules only
        _add(emitted, exporter.filename, partial(exporter.export, result.rule, result.rule.class_name), omit, name)
        source = emitted.get(exporter.filename)
        if source is not None:
            write_atomically(folder / exporter.filename, source)
            offered = {exporter.filename: str(exporter.description), **offered}
    write_atomically(folder / "summary.json", _summary(result, offered, omitted))
    try:
        write_report(folder, folder / REPORT)
        page = [REPORT]
    except Exception as error:
        page = []
        omit(f"{REPORT}: {error}")
        write_atomically(folder / "summary.json", _summary(result, offered, omitted))
    return [
        "rule.json",
        "rule.txt",
        *page,
        *reversed(emitted),
        *(name for name in files if not name.startswith("rule")),
    ]


def _add(
    files: dict[str, str | bytes],
    name: str,
    make: Callable[[], str | bytes],
    omit: Callable[[str], None],
    maker: str = "",
) -> None:
    """Add what ``make`` returns to ``files``, or say why not."""
    try:
        content = make()
        if not isinstance(content, str | bytes):
            raise TypeError(f"expected text, got {type(content).__name__}")
        files[name] = content
    except (Exception, SystemExit) as error:  # a finished run must not be lost to one of its files
        omit(f"{name}: {f'exporter {maker!r}: ' if maker else ''}{error}")


def _curves(task: str, count: int) -> str:
    return "curves.png" if count == 1 else f"curves-{file_name(task)}.png"


def trainings_of(folder: str | Path) -> int:
    """Trainings that a finished run spent on its rule.

    Raises:
        SolError: The folder holds no finished run, or one of a version that did not count.
    """
    path = Path(folder) / "summary.json"
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))["trainings"]
        return sum(int(count) for count in counts.values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError):
        raise SolError(f"{path} does not say how many trainings the run spent; pass --trainings instead") from None


def _summary(result: LearnResult, offered: Mapping[str, str], omitted: Sequence[str]) -> str:
    """``summary.json``, with a description of each downloadable file and a line for each that is left out."""
    more = {"files": dict(offered), **({"omitted": [*omitted]} if omitted else {})}
    return json.dumps({**result.summary, **more}, indent=1) + "\n"


def write_distilled(
    found: Sequence[Distilled], trained: TrainedLSTM, settings: DistilSettings, folder: Path
) -> list[str]:
    """Write distilled rules, the selected one first, in the layout of a run folder; returns the file names.

    ``rule.json`` and ``rule.txt`` hold the selected rule, ``front.json`` all rules, ``distillation.json`` their fits.

    Raises:
        SolError: A file cannot be written.
    """
    front = [FrontPoint(formula.rule, formula.loss) for formula in found if formula.loss is not None]
    report = {
        "lstm": trained.provenance,
        "settings": asdict(settings),
        "chosen by": "objective on the validation stream",
        "rules": [formula.record() for formula in found],
    }
    files = {
        "rule.json": found[0].rule.to_json(),
        "rule.txt": f"{found[0].rule}\n",
        "front.json": json.dumps([_entry(point) for point in front], indent=1) + "\n",
        "distillation.json": json.dumps(report, indent=1) + "\n",
    }
    _write(files, folder)
    return list(files)


def _write(files: Mapping[str, str | bytes], folder: Path) -> None:
    """Write the files and remove leftovers of the run that they replace."""
    earlier = {"front.json", "front.png", "curves.png", "distillation.json", *_curves_of(folder / "summary.json")}
    for name, content in files.items():
        write_atomically(folder / name, content)
    for name in earlier - {*files}:
        if is_regular(folder / name):
            (folder / name).unlink()


def _curves_of(path: Path) -> list[str]:
    """Names of the curves of a run of several tasks, by its summary."""
    try:
        tasks = json.loads(read_regular(path, MAX_BYTES))["tasks"]
        return [_curves(str(task), 2) for task in tasks]
    except (SolError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _entry(point: FrontPoint) -> dict[str, object]:
    return {
        "terms": point.terms,
        "loss": point.loss,
        "holds": point.holds,
        "text": str(point.rule),
        "rule": json.loads(point.rule.to_json()),
    }
