"""Pictures of rules."""

import os
import sys

import numpy as np
import pytest

from sol_symbols import ZOO, RuleError, SolError, UpdateRule, plot, responses
from sol_symbols.cli import main


@pytest.mark.parametrize("name", ["adam", "powersign-cd", "sol-mnistnet"])
def test_lines_are_the_rules_values(name):
    rule, scale = ZOO[name], 0.01
    figure = plot(rule, scale=scale)
    response, momentum, schedule = figure.axes
    assert [len(axes.lines) - 1 for axes in figure.axes] == [3, 3, 2]  # and the line at 0
    assert all(axes.get_xlabel() and axes.get_legend().get_title().get_text() for axes in figure.axes)
    steady = schedule.lines[0]
    expected = rule.evaluate(np.full((100, 1), scale), 0.0, 100)[:, 0]
    np.testing.assert_allclose(steady.get_ydata(), expected)
    np.testing.assert_allclose(steady.get_xdata(), np.arange(1, 101) / 100)
    # Where the first panel's last gradient is 1 and its history has mean 0.9, so has the second's.
    x, y = response.lines[0].get_data()
    u, v = momentum.lines[0].get_data()
    np.testing.assert_allclose(y[np.isclose(x, scale)], v[np.isclose(u, 0.9 * scale)], rtol=1e-9)
    assert np.isclose(u, 0.9 * scale).sum() == np.isclose(x, scale).sum() == 1
    assert rule.name in figure.get_suptitle()


@pytest.mark.parametrize(
    "text", ["exp(1000*g)/ld + 1/m", "log(g)", "1", "0", "w", "sign(m) where T = 1", "ld where T = 1e9"]
)
def test_rules_of_all_kinds_can_be_drawn(text, tmp_path):
    rule = UpdateRule.parse(text.replace(" where T = 1", "") if "ld" not in text else text)
    plot(rule, tmp_path / "rule.png")
    assert (tmp_path / "rule.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("g*min(1, loss*inv0(all_dot(g, g)))", False), ("g*inv0(all_rms(g))", False), ("g*inv0(norm(g))", False),
        ("m*inv0(gmean(rms(g)))", True), ("g*inv0(all_rms(m))", True), ("dot(g, m_prev)*m", True),
    ],
)  # fmt: skip
def test_each_point_is_of_an_optimizer_of_its_own(text, memory):
    rule, noise = UpdateRule.parse(text), 0.1 * np.random.default_rng(0).normal(size=(51, 15))
    lines = responses(rule, 0.1)[0].lines
    for line, mean in zip(lines, (0.9, 0.0, -0.9)):
        past = 0.1 * (mean + np.sqrt(1 - mean**2) * np.tile([1.0, -1.0], 25))
        for x, phi in zip(line.x[::40], line.phi[::40]):
            alone = rule.evaluate(np.column_stack([[*past, x], noise]), losses=np.ones(51))
            np.testing.assert_allclose(phi, alone[-1, 0], rtol=1e-9, atol=1e-12)
    assert np.allclose(lines[0].phi, lines[2].phi) is not memory


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("matrices: orth(m); vectors: ad", True), ("orth(m)", True), ("g*tensor_scale", True), ("g/fan_in", True),
        ("g*inv0(rms(g))", False), ("ad", False),
    ],
)  # fmt: skip
def test_titles_say_where_curves_are_those_of_vectors(text, said):
    rule = UpdateRule.parse(text)
    assert {panel.title.endswith(", for vectors") for panel in responses(rule)} == {said}
    if "vectors:" in text:
        alone = responses(UpdateRule.parse("ad"))[2].lines[0]
        np.testing.assert_allclose(responses(rule)[2].lines[0].phi, alone.phi)


def test_show_draws(tmp_path, capsys):
    assert main(["show", "adam", "--plot", str(tmp_path / "adam.svg"), "--scale", "0.1"]) == 0
    assert "<svg" in (tmp_path / "adam.svg").read_text()
    assert "wrote" in capsys.readouterr().out


def test_what_cannot_be_drawn_is_said(tmp_path, monkeypatch):
    for scale in (-1, 0, float("nan"), 1e308):
        with pytest.raises(RuleError, match=r"scale must be a positive number below 1e\+100, got "):
            plot(ZOO["adam"], scale=scale)
    for path in (tmp_path / "nowhere" / "x.png", tmp_path / "x.abc"):
        with pytest.raises(SolError, match=r"cannot (save the plot to|write)"):
            plot(ZOO["adam"], path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SolError, match=r'needs matplotlib: pip install "sol-symbols\[plot\]"'):
        plot(ZOO["adam"])


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_plot_replaces_nothing_but_files(kind, tmp_path, capsys):
    mine, path = tmp_path / "mine", tmp_path / "rule.png"
    mine.write_text("mine")
    {"link": lambda: path.symlink_to(mine), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    assert main(["show", "adam", "--plot", str(path)]) == 2
    assert "not a regular file" in capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["mine", "rule.png"]


def test_a_plot_without_a_suffix_is_a_png_and_dollars_in_names_are_no_formulas(tmp_path):
    plot(UpdateRule.parse("g", name=r"$\foo{$ or $1"), tmp_path / "rule")
    assert (tmp_path / "rule").read_bytes().startswith(b"\x89PNG")
