"""The folder that ``sol learn`` leaves: rule, front, emitted files, pictures, numbers."""

from __future__ import annotations

import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sol_learner.baselines.distillation import Distilled, DistilSettings
from sol_learner.comparing.comparison import Comparison
from sol_learner.networks.trained_lstm import LSTM_FILE, TrainedLSTM
from sol_learner.pipeline import LearnResult
from sol_learner.report import write_report
from sol_learner.runtime.checkpoints import checkpoints_in
from sol_learner.search.front import Point
from sol_symbols import SolError, UpdateRule, format_expression, round_constants, write_atomically
from sol_symbols.plugins import find_plugins, load_plugin

__all__ = ["CHECKPOINTS", "REPORT", "curves_png", "front_png", "prepare_folder", "write_distilled", "write_run"]

CHECKPOINTS = "checkpoints"
"""Sub-folder of a run that is not finished."""

REPORT = "report.html"
"""The page that tells a run."""


def prepare_folder(folder: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Make sure, before any work is done, that a run can be written to ``folder``.

    A run is finished when its checkpoints are gone, which is the last thing that happens: one that was killed while it
    wrote its files is not.

    Raises:
        SolError: It cannot be made or written to, or holds a run already, finished or not; or it is to be both replaced
            and gone on with.
    """
    if overwrite and resume:
        raise SolError("--resume goes on with a run, --overwrite replaces it: take one of them")
    under_way = bool(checkpoints_in(folder / CHECKPOINTS))
    if not overwrite and not (resume and under_way):
        finished = [name for name in ("rule.json", LSTM_FILE) if (folder / name).exists()]
        if finished:
            hint = "it is finished" if resume else "choose another folder, or add --overwrite"
            hint += "; sol show tells its rule" if resume and "rule.json" in finished else ""
            raise SolError(f"{folder} holds a run already; {hint}")
        if under_way:
            raise SolError(f"{folder} holds a run that is not finished; add --resume to go on with it, or --overwrite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SolError(f"cannot make the folder {folder}: {error.strerror}") from error
    probe = folder / ".writable"
    write_atomically(probe, "")
    probe.unlink(missing_ok=True)  # another process may try the same


def write_run(result: LearnResult, folder: str | Path) -> list[str]:
    """Write everything that ``result`` holds; returns the names of the files, most important first.

    ``rule.json`` and ``rule.txt`` are the rule, ``front.json`` and ``front.png`` the rules of other lengths,
    ``summary.json`` all numbers, ``curves.png`` the comparison; every installed exporter adds its file
    (``optimizer.py``, ``formula.tex``), and ``report.html`` tells it all to a person. What an exporter cannot
    express is left out, after the rest is safely written.

    Raises:
        SolError: A file cannot be written, or an exporter failed.
    """
    folder = Path(folder)
    prepare_folder(folder, overwrite=True)
    files: dict[str, str | bytes] = {"rule.json": result.rule.to_json(), "rule.txt": f"{result.rule}\n"}
    files["summary.json"] = json.dumps(result.summary, indent=1) + "\n"
    for comparison in result.comparisons:
        name = "curves.png" if len(result.comparisons) == 1 else f"curves-{comparison.task}.png"
        files[name] = curves_png(comparison, result.rule)
    if result.front:
        files["front.json"] = json.dumps([_entry(point) for point in result.front], indent=1) + "\n"
        files["front.png"] = front_png(result.front, result.rule)
    _write(files, folder)
    written, failed = list(files), []
    for name, plugin in find_plugins("sol.exporters").items():
        try:
            exporter = load_plugin("sol.exporters", plugin)()
            (folder / exporter.filename).unlink(missing_ok=True)
            write_atomically(folder / exporter.filename, exporter.export(result.rule, result.rule.class_name))
            written.insert(2, exporter.filename)
        except SolError as error:
            failed.append(f"{name}: {error}")
    write_report(folder, folder / REPORT)
    written.insert(2, REPORT)
    if failed:
        raise SolError(f"{', '.join(written)} are in {folder}, but not every exporter worked: {'; '.join(failed)}")
    return written


def write_distilled(
    found: Sequence[Distilled], trained: TrainedLSTM, settings: DistilSettings, folder: Path
) -> list[str]:
    """Write distilled rules, the chosen one first, as the folder of a run; returns the names of the files.

    ``rule.json`` and ``rule.txt`` are the chosen one, ``front.json`` all of them, ``distillation.json`` their fits.

    Raises:
        SolError: A file cannot be written.
    """
    front = [Point(formula.rule, formula.loss) for formula in found if formula.loss is not None]
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
    """Write them, and remove what only a run that they replace has had."""
    for name, content in files.items():
        write_atomically(folder / name, content)
    for pattern in ("front.json", "front.png", "curves*.png", "distillation.json"):
        for path in folder.glob(pattern):
            if path.name not in files:
                path.unlink()


def _entry(point: Point) -> dict[str, object]:
    return {
        "terms": point.terms,
        "loss": point.loss,
        "text": str(point.rule),
        "rule": json.loads(point.rule.to_json()),
    }


def _figure() -> tuple[Any, Any]:
    """A canvas and its axes; matplotlib is loaded only when a picture is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    return FigureCanvasAgg(figure), figure.add_subplot()


def _png(canvas: Any) -> bytes:
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def front_png(front: Sequence[Point], chosen: UpdateRule) -> bytes:
    """Loss against length, one dot a rule, the best of each length joined; PNG."""
    canvas, axes = _figure()
    points = sorted(front, key=lambda point: (point.terms, -point.loss))
    best = [p for p in points if p.loss <= min(q.loss for q in points if q.terms <= p.terms)]
    axes.plot([p.terms for p in best], [p.loss for p in best], drawstyle="steps-post", alpha=0.5, color="C0")
    axes.scatter([p.terms for p in points], [p.loss for p in points], color="C0", zorder=3)
    mine = [point for point in points if point.rule == chosen]
    axes.scatter(
        [p.terms for p in mine],
        [p.loss for p in mine],
        s=120,
        facecolor="none",
        edgecolor="C3",
        label="the rule",
        zorder=4,
    )
    axes.set_xlabel("additive terms of the formula")
    axes.set_ylabel("objective on the validation seeds")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    if mine:
        axes.legend(frameon=False)
    return _png(canvas)


def curves_png(comparison: Comparison, rule: UpdateRule) -> bytes:
    """Loss on each step's batch: mean over held-out seeds, with a band of one standard deviation; PNG."""
    canvas, axes = _figure()
    table = [contender.curve for contender in comparison.contenders]
    most = 10 * max((abs(float(mean[0])) for mean, _, _ in table if mean[0].isfinite()), default=math.inf)
    table = [(mean.where(mean.abs() < most, math.nan), spread, runs) for mean, spread, runs in table]  # no explosions
    values = torch.cat([mean[mean.isfinite()] for mean, _, _ in table])
    lowest = float(values.min()) if len(values) else 0.0
    if lowest > 0:
        axes.set_yscale("log")
    for contender, (mean, spread, _) in zip(comparison.contenders, table):
        steps = range(1, len(mean) + 1)
        tuned = "tuned " if contender.tuning else ""
        final = contender.metric("train", "loss")
        final = final[final.isfinite()]
        spread_at_end = float(final.std(correction=1)) if len(final) > 1 else 0.0
        told = [f"{final.mean():.3f} ± {spread_at_end:.3f} at the end"] * bool(len(final))
        told += [f"{len(contender.diverged)} of {comparison.episodes} runs diverged"] * bool(contender.diverged)
        label = f"{tuned}{contender.name} (lr {contender.lr:.3g}): {'; '.join(told)}"
        lower = (mean - spread).clamp(min=lowest / 2) if lowest > 0 else mean - spread
        (line,) = axes.plot(steps, mean, label=label, linewidth=1.8 if contender is comparison.contenders[0] else 1.2)
        axes.fill_between(steps, lower, mean + spread, color=line.get_color(), alpha=0.15)
    axes.set_xlabel("inner step")
    axes.set_ylabel("training loss of the step's batch")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, title=f"mean ± standard deviation over {comparison.episodes} held-out seeds")
    title = "\n".join(textwrap.wrap(f"φ = {format_expression(round_constants(rule, 3).expression)}", 90))
    axes.set_title(f"{comparison.task}\n{title}", fontsize=9)
    return _png(canvas)
