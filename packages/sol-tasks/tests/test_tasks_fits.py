"""Fits: derivatives and solutions are what they are said to be, and every episode has its own picture."""

import math

import pytest
import torch
from torch import nn

from sol_learner.inner import obstacle, run_rule
from sol_learner.task import Stream
from sol_symbols import ZOO, SolError
from sol_tasks import Burgers, PictureFit, siren
from sol_tasks.fits import _residual, burgers_solution
from sol_tasks.small_fits import slopes, small_fits

NU = 0.01 / math.pi


def test_the_residual_is_the_equations():
    class Polynomial(nn.Module):
        def forward(self, point):
            t, x = point.unbind(-1)
            return (t**2 * x**3)[..., None]

    t, x = torch.rand(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    by_hand = 2 * t * x**3 + t**2 * x**3 * 3 * t**2 * x**2 - NU * t**2 * 6 * x
    torch.testing.assert_close(_residual(Polynomial(), t, x), by_hand)


def test_the_exact_solution_solves_it():
    class Exact(nn.Module):
        def forward(self, point):
            return burgers_solution(point[..., 0], point[..., 1])[..., None]

    t, x = 0.1 + 0.8 * torch.rand(50, dtype=torch.float64), 2 * torch.rand(50, dtype=torch.float64) - 1
    assert _residual(Exact(), t, x).abs().max() < 1e-6
    ends = torch.tensor([-1.0, 1.0])
    assert burgers_solution(torch.ones(2), ends).abs().max() < 1e-10
    early = burgers_solution(torch.full_like(x, 1e-9), x)
    torch.testing.assert_close(early, -torch.sin(math.pi * x), atol=1e-6, rtol=0)


def test_the_loss_of_burgers_has_three_parts():
    """For u = 0 the residual and the boundary vanish; the start is off by sin(pi x)."""

    class Zero(nn.Module):
        def forward(self, point):
            return 0 * point[..., :1]

    task = Burgers(points=40)
    t, x = next(task.batches("train", torch.Generator().manual_seed(0)))
    assert (t[40:50] == 0).all()
    assert (x[50:].abs() == 1).all()
    assert x[50:].unique().tolist() == [-1, 1]
    torch.testing.assert_close(task.loss(Zero(), (t, x)), torch.sin(math.pi * x[40:50]).square().mean())
    assert task.evaluate(Zero(), "test")["error"] == 1


def test_every_episode_has_its_picture():
    task = siren()
    one, two = (task.build(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert not torch.equal(one.picture, two.picture)
    assert one.picture.abs().max() <= 1
    held = task.pool("test").build(torch.Generator().manual_seed(0))
    assert not torch.equal(one.picture, held.picture)
    assert task.evaluate(one, "train") == task.evaluate(one, "test")
    assert task.loss(one, ()) == (one(positions(32)) - one.picture).square().mean()


def positions(size):
    axis = torch.linspace(-1, 1, size)
    return torch.cartesian_prod(axis, axis)


def test_bytes_are_colours():
    pictures = torch.randint(256, (2, 3, 4, 6), dtype=torch.uint8)
    task, same = (PictureFit("x", dict.fromkeys(("train", "valid", "test"), p)) for p in (pictures, pictures / 255))
    models = [each.build(torch.Generator().manual_seed(0)) for each in (task, same)]
    torch.testing.assert_close(models[0].picture, models[1].picture)
    assert task.loss(models[0], ()) == same.loss(models[1], ())


def test_the_first_layer_draws_from_one_over_its_inputs_and_the_others_from_the_sines():
    first, second, last = siren().build(torch.Generator().manual_seed(0)).layers
    assert 0.45 < first.weight.abs().max() <= 0.5
    for layer in (second, last):
        bound = math.sqrt(6 / 32) / 30
        assert 0.9 * bound < layer.weight.abs().max() <= bound


def test_adam_gets_near():
    metrics = [run_rule(siren(), ZOO["adam"], 0, Stream.TUNE, range(2), lr).metrics["valid"] for lr in (0.0, 0.003)]
    assert (metrics[1]["loss"] < 0.1 * metrics[0]["loss"]).all()
    assert (metrics[1]["psnr"] > metrics[0]["psnr"] + 10).all()


def test_pictures_have_to_be_pictures():
    pictures = {"train": torch.rand(2, 3, 4, 4), "valid": torch.rand(2, 3, 4, 4)}
    with pytest.raises(SolError, match=r"^pictures of 'test' must have the shape \[N, C, height, width\], got None$"):
        PictureFit("x", pictures)
    with pytest.raises(SolError, match=r"pictures of 'test'.* got \(3, 4, 4\)$"):
        PictureFit("x", {**pictures, "test": torch.rand(3, 4, 4)})


def test_the_family_of_small_fits_draws_tasks_of_every_kind():
    family, kinds = small_fits(longest=60), set()
    for episode in range(24):
        task = family.draw(torch.Generator().manual_seed(episode))
        again = family.draw(torch.Generator().manual_seed(episode))
        kind = task.name.removesuffix("-augmented")
        assert 50 <= task.horizon <= 300
        assert (task.name, task.horizon) == (again.name, again.horizon)
        if kind in kinds:
            continue
        kinds.add(kind)
        models = [t.build(torch.Generator().manual_seed(0)) for t in (task, again)]
        batches = [next(t.batches("train", torch.Generator().manual_seed(1))) for t in (task, again)]
        losses = [t.loss(model, batch) for t, model, batch in zip((task, again), models, batches)]
        assert torch.equal(*losses)
        assert obstacle(task) is None
        outcome = run_rule(task, ZOO["sol-fits"], 0, Stream.TRAIN, [0, 1], horizon=50)
        assert (outcome.losses[-1] < outcome.losses[0]).all()
        assert all(table["loss"].isfinite().all() for table in outcome.metrics.values())
    assert kinds == {"picture", "function", "features", "line", "plane"}


def test_the_slopes_of_an_equation_are_its_derivatives():
    def u(point):
        return torch.sin(2 * point[0]) * point[1] ** 3

    point = torch.tensor([0.3, 0.7])
    (t, t2), (x, x2) = (slopes(u, point, axis) for axis in (0, 1))
    expected = 2 * math.cos(0.6) * 0.343, -4 * math.sin(0.6) * 0.343, math.sin(0.6) * 3 * 0.49, math.sin(0.6) * 4.2
    torch.testing.assert_close(torch.stack([t, t2, x, x2]), torch.tensor(expected))
