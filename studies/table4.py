"""Table 4: memory of meta-training on ResNets, with the gradients of sampled coordinates and with L2LGD2's LSTM.

What is measured is the peak memory of one window of U inner steps and its meta-gradient, less what the process held
before: of its tensors on a GPU, of the whole process on a CPU. Every case runs in a separate process.

- ``plain Adam``: the same number of training steps and no meta-training, for scale.
- ``ours``: the symbolic network, first-order meta-gradients of 2,048 sampled coordinates.
- ``ours, all coordinates``: the same of all of them.
- ``L2LGD2``: the LSTM, back-propagated through the window on all coordinates, as its authors do.
- ``L2LGD2, sampled``: the LSTM with the sampled coordinates of ``ours``: what is left is the states of all of them.

    OMP_NUM_THREADS=1 python studies/table4.py --size cpu
"""

from __future__ import annotations

import multiprocessing
from functools import partial
from typing import Any

import torch
from study import Budget, Study, begin

from sol_learner import Recipe
from sol_learner.comparing.trials import PeakMemory
from sol_learner.estimators import FirstOrder
from sol_learner.inner import Optimizees
from sol_learner.networks import LSTMNetwork, SymbolicNetwork, UpdateNetwork
from sol_learner.task import Stream
from sol_symbols import ZOO
from sol_tasks import image_classification

MODELS = ("resnet18", "resnet34", "resnet50")
SAMPLED, EVERY = 2_048, 10**12
CASES = {
    "plain Adam": (None, 0),
    "ours": ("symbolic", SAMPLED),
    "ours, all coordinates": ("symbolic", EVERY),
    "L2LGD2": ("lstm", EVERY),
    "L2LGD2, sampled": ("lstm", SAMPLED),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {"tables": [{"width": 64, "batch_size": 128, "unroll": 20, "cases": list(CASES)}]},
    "cpu": {
        "tables": [
            {"width": 4, "batch_size": 8, "unroll": 20, "cases": list(CASES)},
            {"width": 64, "batch_size": 4, "unroll": 2, "cases": ["plain Adam", "ours"]},
        ]
    },
}
NO_BUDGET = Budget(seeds=1, trials=0, tuning_seeds=0)
SIZES = {size: (settings, NO_BUDGET) for size, settings in SETTINGS.items()}
NOTES = {
    "paper": ["The paper does not give batch size and window; here they are 128 and 20."],
    "cpu": [
        "Peak memory of the process on a CPU, not of a GPU. L2LGD2 back-propagated through all coordinates of the full"
        " networks would need hundreds of gigabytes, so all cases are measured on ResNets of 4 filters in the stem, not"
        " 64; those of the full size are measured with plain Adam and with ours, in windows of 2 steps.",
    ],
}


def used(recipe: Recipe, case: str, steps: int) -> dict[str, float]:
    """Number of parameters, and peak memory of a window in bytes; to be called in a separate process."""
    torch.set_num_threads(1)
    kind, coordinates = CASES[case]
    optimizees = Optimizees(recipe.load(), 0, Stream.TRAIN, [0])
    peak = PeakMemory()
    if kind is None:
        adam = torch.optim.Adam([torch.nn.Parameter(optimizees.theta)], 1e-3)
        for _ in range(steps):
            (parameter,) = adam.param_groups[0]["params"]
            _, parameter.grad = optimizees.losses_and_gradients()
            adam.step()
            optimizees.place(parameter.detach())
    else:
        draw = torch.Generator().manual_seed(0)
        network: UpdateNetwork = SymbolicNetwork(ZOO["adam"], generator=draw) if kind == "symbolic" else LSTMNetwork()
        network = network.to(optimizees.theta.device)
        estimator = FirstOrder(network, draw, coordinates=coordinates)
        estimator.begin(optimizees, 1e-3, steps)
        estimator.window(steps)
    return {"parameters": optimizees.theta.shape[-1], "bytes": float(peak.bytes() or 0) - float(peak.before or 0)}


def main(study: Study) -> None:
    """Measure all cases, each in a separate process, and write."""
    tables = []
    for table in study.settings["tables"]:
        rows: dict[str, Any] = {}
        for model in MODELS:
            options = {name: table[name] for name in ("width", "batch_size")}
            recipe = study.task(image_classification, model, "cifar10", horizon=100, **options)
            row: dict[str, Any] = {"MB": {}}
            for case in table["cases"]:
                measure = partial(alone, recipe, case, table["unroll"], study.given.device)
                found = study.kept.once(f"{table['width']}/{model}/{case}", measure)
                row["parameters"], row["MB"][case] = found["parameters"], round(found["bytes"] / 1e6, 1)
                print(table["width"], model, case, row["MB"][case], flush=True)
            rows[model] = row
        tables.append({**{name: table[name] for name in ("width", "batch_size", "unroll")}, "models": rows})
    study.record |= {"memory": tables, "tables": [shown(table) for table in tables]}
    study.save()


def shown(table: dict[str, Any]) -> dict[str, Any]:
    """One of the measured tables as a report shows it."""
    title = f"MB, {table['width']} filters, batches of {table['batch_size']}, windows of {table['unroll']} steps"
    cases = [*next(iter(table["models"].values()))["MB"]]
    rows = [[name, row["parameters"], *(row["MB"][case] for case in cases)] for name, row in table["models"].items()]
    return {"title": title, "head": ["model", "parameters", *cases], "rows": rows}


def alone(recipe: Recipe, case: str, steps: int, device: str) -> dict[str, float]:
    """:func:`used` in a separate process; on a CPU a copy of this one, which has the data."""
    if device == "cpu":
        recipe.load()
    with multiprocessing.get_context("fork" if device == "cpu" else "spawn").Pool(1) as pool:
        return pool.apply(used, (recipe, case, steps))


if __name__ == "__main__":
    main(begin("table4", "Table 4", "memory of meta-training", SIZES, NOTES))
