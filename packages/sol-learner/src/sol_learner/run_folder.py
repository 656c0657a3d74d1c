"""The folder that ``sol learn`` leaves: rule, emitted files, picture, numbers."""

from __future__ import annotations

import io
import json
import textwrap
from pathlib import Path

from sol_learner.comparison import Comparison
from sol_learner.pipeline import LearnResult
from sol_symbols import SolError, UpdateRule, write_atomically
from sol_symbols.plugins import find_plugins, load_plugin

__all__ = ["curves_png", "prepare_folder", "write_run"]


def prepare_folder(folder: Path, overwrite: bool = False) -> None:
    """Make sure, before any work is done, that a run can be written to ``folder``.

    Raises:
        SolError: It cannot be made or written to, or holds a run already.
    """
    if (folder / "rule.json").exists() and not overwrite:
        raise SolError(f"{folder} holds a run already; choose another folder, or add --overwrite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SolError(f"cannot make the folder {folder}: {error.strerror}") from error
    probe = folder / ".writable"
    write_atomically(probe, "")
    probe.unlink()


def write_run(result: LearnResult, folder: Path) -> list[str]:
    """Write everything that ``result`` holds; returns the names of the files, most important first.

    ``rule.json`` and ``rule.txt`` are the rule, ``summary.json`` all numbers, ``curves.png`` the comparison; every
    installed exporter adds its file (``optimizer.py``, ``formula.tex``). What an exporter cannot express is left out,
    after the rest is safely written.

    Raises:
        SolError: A file cannot be written, or an exporter failed.
    """
    files: dict[str, str | bytes] = {"rule.json": result.rule.to_json(), "rule.txt": f"{result.rule}\n"}
    files["summary.json"] = json.dumps(result.summary, indent=1) + "\n"
    if result.comparison is not None:
        files["curves.png"] = curves_png(result.comparison, result.rule)
    for name, content in files.items():
        write_atomically(folder / name, content)
    written, failed = list(files), []
    for name, point in find_plugins("sol.exporters").items():
        try:
            exporter = load_plugin("sol.exporters", point)()
            write_atomically(folder / exporter.filename, exporter.export(result.rule, result.rule.class_name))
            written.insert(2, exporter.filename)
        except SolError as error:
            failed.append(f"{name}: {error}")
    if failed:
        raise SolError(f"{', '.join(written)} are in {folder}, but not every exporter worked: {'; '.join(failed)}")
    return written


def curves_png(comparison: Comparison, rule: UpdateRule) -> bytes:
    """Loss on each step's batch: mean over held-out seeds, with a band of one standard deviation; PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for contender in comparison.contenders:
        losses = contender.outcome.losses[:, 0].double().cpu()
        mean, spread = losses.mean(1), losses.std(1)
        steps = range(1, len(mean) + 1)
        tuned = "tuned " if contender.tuning else ""
        final = contender.metric("train", "loss")
        label = f"{tuned}{contender.name} (lr {contender.lr:.3g}): {final.mean():.3f} ± {final.std():.3f} at the end"
        (line,) = axes.plot(steps, mean, label=label, linewidth=1.8 if contender is comparison.contenders[0] else 1.2)
        axes.fill_between(steps, (mean - spread).clamp(min=1e-9), mean + spread, color=line.get_color(), alpha=0.15)
    axes.set_yscale("log")
    axes.set_xlabel("inner step")
    axes.set_ylabel("training loss of the step's batch")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, title=f"mean ± standard deviation over {comparison.episodes} held-out seeds")
    title = "\n".join(textwrap.wrap(f"φ = {_short(rule)}", 90))
    axes.set_title(f"{comparison.task}\n{title}", fontsize=9)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def _short(rule: UpdateRule) -> str:
    """The formula with constants of three digits."""
    import sympy

    from sol_symbols import format_expression

    expression = rule.expression
    rounded = {number: sympy.Float(f"{float(number):.3g}") for number in expression.atoms(sympy.Float)}
    return format_expression(expression.xreplace(rounded))
