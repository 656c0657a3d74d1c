"""One search in data folders, one cache."""

from pathlib import Path

import pytest

from sol_symbols import SolError
from sol_tasks import list_victims, load_cifar10, load_glue, load_mnist, load_planetoid
from sol_tasks.alpaca import load_alpaca
from sol_tasks.data_folder import cache_folder, find_data, require_data


def test_the_subfolder_comes_first_then_earlier_patterns_then_names(tmp_path):
    for name in ("b2", "b1", "a", "area/b2"):
        (tmp_path / name).mkdir(parents=True)
    assert find_data("it", tmp_path, "area", "a", "b*", advice="") == tmp_path / "area" / "b2"
    assert find_data("it", tmp_path, "none", "a", "b*", advice="") == tmp_path / "a"
    assert find_data("it", tmp_path, "none", "x", "b*", advice="") == tmp_path / "b1"


def test_a_folder_may_be_text(tmp_path):
    (tmp_path / "vision" / "MNIST" / "raw").mkdir(parents=True)
    assert find_data("MNIST", str(tmp_path), "vision", "MNIST/raw", advice="") == tmp_path / "vision" / "MNIST" / "raw"
    assert require_data(str(tmp_path), "attack") == tmp_path
    for load in (load_mnist, load_cifar10, load_planetoid, load_glue, load_alpaca, list_victims):
        name = {load_planetoid: ["cora"], load_glue: ["CoLA"]}.get(load, [])
        with pytest.raises(SolError, match=str(tmp_path)):
            load(*name, str(tmp_path))


def test_the_message_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(SolError) as caught:
        find_data("MNIST", tmp_path, "vision", "MNIST/raw", "other", advice="download it")
    assert (
        str(caught.value) == f"no MNIST in {tmp_path}: looked for MNIST/raw or other there and in vision/; download it"
    )


def test_the_cache_follows_the_xdg_variable(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/sol")
    for unset in ("", None):
        monkeypatch.setenv("HOME", "/home/me")
        monkeypatch.delenv("XDG_CACHE_HOME") if unset is None else monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_folder() == Path("/home/me/.cache/sol")
