"""Toy functions: their least value is 0, at the optimum that they name, and a rule gets near it."""

import pytest
import torch

from sol_learner.inner import run_rule
from sol_learner.task import Stream
from sol_symbols import ZOO
from sol_tasks import quadratic, rosenbrock


@pytest.mark.parametrize("make", [quadratic, rosenbrock])
def test_the_optimum_is_where_it_is_said_to_be(make):
    task = make()
    model = task.build(torch.Generator().manual_seed(0))
    noise = next(task.batches("train", torch.Generator().manual_seed(0)))
    away = task.evaluate(model, "test")
    assert away["loss"] > 0
    assert away["distance"] > 0
    with torch.no_grad():
        model.w.copy_(task.optimum)
    assert task.evaluate(model, "test") == pytest.approx({"loss": 0.0, "distance": 0.0}, abs=1e-6)
    (gradient,) = torch.autograd.grad(task.loss(model, 0 * noise), [model.w])
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("make", "lr"), [(quadratic, 0.1), (rosenbrock, 0.03)])
def test_adam_gets_nearer(make, lr):
    metrics = [run_rule(make(), ZOO["adam"], 0, Stream.TUNE, range(3), rate).metrics["valid"] for rate in (0.0, lr)]
    assert (metrics[1]["loss"] < 0.1 * metrics[0]["loss"]).all()
