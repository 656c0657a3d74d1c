"""The output folder of ``sol learn``: rule, front, emitted files, figures, numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from sol_learner.baselines.distillation import Distilled, DistilSettings
from sol_learner.figures import curves_png, front_png
from sol_learner.networks.trained_lstm import LSTM_FILE, TrainedLSTM
from sol_learner.pipeline import LearnResult
from sol_learner.report import write_report
from sol_learner.runtime.checkpoints import CHECKPOINTS, checkpoints_in
from sol_learner.search.front import FrontPoint
from sol_symbols import SolError, write_atomically
from sol_symbols.plugins import EXPORTERS, find_plugins, load_plugin

__all__ = ["REPORT", "prepare_folder", "trainings_of", "write_distilled", "write_run"]

REPORT = "report.html"
"""File name of the report page."""


def prepare_folder(folder: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Check, before any work is done, that a run can be written to ``folder``.

    A run counts as finished once its checkpoints are gone. They are removed last, so a run that was killed while
    writing its files still counts as unfinished.

    Raises:
        SolError: The folder cannot be created or written to, it already contains a run (finished or not), or both
            ``overwrite`` and ``resume`` are set.
    """
    if overwrite and resume:
        raise SolError("--resume and --overwrite are mutually exclusive")
    under_way = bool(checkpoints_in(folder / CHECKPOINTS))
    if not overwrite and not (resume and under_way):
        finished = [name for name in ("rule.json", LSTM_FILE) if (folder / name).exists()]
        if finished:
            hint = "it is finished" if resume else "choose another folder or pass --overwrite"
            hint += "; sol show prints its rule" if resume and "rule.json" in finished else ""
            raise SolError(f"{folder} already contains a run; {hint}")
        if under_way:
            raise SolError(
                f"{folder} contains an unfinished run; pass --resume to continue or --overwrite to replace it"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SolError(f"cannot create the folder {folder}: {error.strerror}") from error
    probe = folder / ".writable"
    write_atomically(probe, "")
    probe.unlink(missing_ok=True)  # another process may have removed it


def write_run(result: LearnResult, folder: str | Path) -> list[str]:
    """Write all files of a run; returns their names, most important first.

    ``rule.json`` and ``rule.txt`` hold the rule, ``front.json`` and ``front.png`` the rules of other lengths,
    ``summary.json`` all numbers, ``curves.png`` the comparison. Every installed exporter adds its file
    (``optimizer.py``, ``formula.tex``), and ``report.html`` presents everything. If an exporter cannot express the
    rule, its file is left out and the error is raised after all other files are written.

    Raises:
        SolError: A file cannot be written, or an exporter failed.
    """
    folder = Path(folder)
    prepare_folder(folder, overwrite=True)
    offered = {"rule.json": "the rule at full precision, for use with sol", "summary.json": "all numbers of the run"}
    files: dict[str, str | bytes] = {"rule.json": result.rule.to_json(), "rule.txt": f"{result.rule}\n"}
    files["summary.json"] = _summary(result, offered)
    for comparison in result.comparisons:
        name = "curves.png" if len(result.comparisons) == 1 else f"curves-{comparison.task}.png"
        files[name] = curves_png(comparison, result.rule)
    if result.front:
        files["front.json"] = json.dumps([_entry(point) for point in result.front], indent=1) + "\n"
        files["front.png"] = front_png(result.front, result.rule)
    _write(files, folder)
    written, failed = list(files), []
    for name, plugin in find_plugins(EXPORTERS).items():
        try:
            exporter = load_plugin(EXPORTERS, plugin)()
            (folder / exporter.filename).unlink(missing_ok=True)
            write_atomically(folder / exporter.filename, exporter.export(result.rule, result.rule.class_name))
            written.insert(2, exporter.filename)
            offered = {exporter.filename: exporter.description, **offered}
        except SolError as error:
            failed.append(f"{name}: {error}")
    write_atomically(folder / "summary.json", _summary(result, offered))
    write_report(folder, folder / REPORT)
    written.insert(2, REPORT)
    if failed:
        raise SolError(f"wrote {', '.join(written)} to {folder}, but some exporters failed: {'; '.join(failed)}")
    return written


def trainings_of(folder: str | Path) -> int:
    """Trainings that a finished run spent on its rule.

    Raises:
        SolError: The folder holds no finished run, or one of a version that did not count.
    """
    path = Path(folder) / "summary.json"
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))["trainings"]
        return sum(int(count) for count in counts.values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise SolError(f"{path} does not say how many trainings the run spent; pass --trainings instead") from None


def _summary(result: LearnResult, offered: Mapping[str, str]) -> str:
    """``summary.json``, with a description of each downloadable file."""
    return json.dumps({**result.summary, "files": dict(offered)}, indent=1) + "\n"


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
    for name, content in files.items():
        write_atomically(folder / name, content)
    for pattern in ("front.json", "front.png", "curves*.png", "distillation.json"):
        for path in folder.glob(pattern):
            if path.name not in files:
                path.unlink()


def _entry(point: FrontPoint) -> dict[str, object]:
    return {
        "terms": point.terms,
        "loss": point.loss,
        "text": str(point.rule),
        "rule": json.loads(point.rule.to_json()),
    }
