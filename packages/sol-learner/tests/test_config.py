"""Settings, from Python, TOML and the command line."""

import dataclasses
import inspect

import pytest

from sol_learner import CompareConfig, LearnConfig, Learner
from sol_learner.baselines.distillation import DistilSettings
from sol_symbols import SolError

# -- configuration ---------------------------------------------------------------------------------------------


def test_every_setting_is_explained():
    explained = LearnConfig.explanations()
    assert list(explained) == [field.name for field in dataclasses.fields(LearnConfig)]
    assert all(len(text) > 15 and text.endswith(".") for text in explained.values())


def test_settings_are_of_the_right_kind_however_they_are_given(tmp_path):
    made = LearnConfig(unroll=5, gates="false", outer_lr=1, features=["g", "m_hat"], objective="0.5")
    assert made == LearnConfig(unroll=(5,), outer_lr=1.0, features=("g", "m_hat"), objective=0.5)
    nested = LearnConfig.from_mapping({"features": "g, min(g,abs(m)) , m_hat"}).features
    assert nested == ("g", "min(g,abs(m))", "m_hat")
    (tmp_path / "bom.toml").write_text("seed = 3\n", encoding="utf-8-sig")
    assert LearnConfig.from_toml(tmp_path / "bom.toml").seed == 3


def test_presets_fill_in_what_is_not_given(tmp_path):
    quick, usual, thorough = (
        LearnConfig.from_mapping({"effort": effort}) for effort in ("quick", "normal", "thorough")
    )
    assert usual == LearnConfig()
    assert quick.generations < usual.generations < thorough.generations
    assert LearnConfig.from_mapping({"effort": "quick", "generations": 3}).generations == 3
    (tmp_path / "run.toml").write_text('effort = "quick"\n')
    assert LearnConfig.from_toml(tmp_path / "run.toml") == quick
    with pytest.raises(SolError, match="effort must be one of quick, normal, thorough, got 'much'"):
        LearnConfig.from_mapping({"effort": "much"})
    base = LearnConfig(seed=3, generations=50)
    both = LearnConfig.from_mapping({"effort": "quick"}, base)
    assert (both.seed, both.generations) == (3, LearnConfig.from_mapping({"effort": "quick"}).generations)
    assert LearnConfig.from_mapping({"generations": 2}, base) == LearnConfig(seed=3, generations=2)
    paper = LearnConfig.from_mapping({"effort": "quick", "preset": "paper", "episodes": 2})
    assert (paper.start, paper.meta_batch, paper.generations, paper.episodes) == ("adam", 10, 0, 2)
    assert paper.evaluation_episodes == quick.evaluation_episodes
    with pytest.raises(SolError, match="preset must be one of default, paper, got 'book'"):
        LearnConfig.from_mapping({"preset": "book"})


@pytest.mark.parametrize(
    "settings", [{"seed": 1.5}, {"gates": 1}, {"episodes": "two"}, {"unroll": (2.5,)}, {"objective": "x"}, {"units": 5}]
)
def test_python_settings_of_the_wrong_kind_are_named(settings):
    with pytest.raises(SolError, match=f"{next(iter(settings))} must be "):
        LearnConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": ("foo(",)}, "foo"),
        ({"units": (("identity", "foo"),)}, "'foo' is not an operator"),
        ({"directions": ("foo",)}, "foo"),
        ({"decays": ("foo",)}, "foo"),
    ],
)
def test_settings_that_cannot_be_read_are_refused_before_any_work(task, settings, message):
    with pytest.raises(SolError, match=message):
        Learner([task], LearnConfig(**settings))


def test_toml_text_and_python_settings_are_one(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('unroll = [5, 20]\nouter-lr = 1\nunits = ["identity,mul*2", "identity"]\ngates = true\n')
    config = LearnConfig.from_toml(path, seed="3")
    assert config == LearnConfig(
        seed=3, unroll=(5, 20), outer_lr=1.0, units=(("identity", "mul*2"), ("identity",)), gates=True
    )
    texts = {"unroll": "5,20", "outer_lr": "1", "units": "identity,mul*2/identity", "gates": "true", "seed": "3"}
    assert LearnConfig.from_mapping(texts) == config
    assert LearnConfig.from_mapping(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unrol": 3}, "no setting 'unrol'; did you mean 'unroll'"),
        ({"unroll": "x"}, "unroll must be a whole number, got 'x'"),
        ({"unroll": 0}, "unroll must be at least 1, got 0"),
        ({"unroll": 2.5}, "must be a whole number"),
        ({"outer_lr": "nan"}, "outer_lr must be greater than 0"),
        ({"outer_lr": -1}, "outer_lr must be greater than 0"),
        ({"gates": "maybe"}, "must be true or false"),
        ({"gates": 1}, "must be true or false"),
        ({"estimator": "magic"}, "must be one of first-order, exact, pes"),
        ({"start": "adamm"}, "start must be one of .*, got 'adamm'"),
        ({"baselines": "adam,foo"}, "got 'foo'"),
        ({"objective": 2.0}, "objective must be at most 1"),
        ({"seed": True}, "must be a whole number"),
        ({"seed": 2**32}, "seed must be at most 4,294,967,295, got 4294967296"),
        ({"population": 10**9}, "population must be at most 1,000,000, got 1000000000"),
        ({"horizons": (5, 10**400)}, r"horizons must be at most 1,000,000, got 10+\.\.\.0+$"),
        ({"sigma": "1e308"}, r"sigma must be at most 1,000,000,000, got 1e\+308"),
        ({"pes_sigma": "1e400"}, "pes_sigma must be at most 1,000,000,000, got inf"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(SolError, match=message):
        LearnConfig.from_mapping(settings)


@pytest.mark.parametrize("content", ["a = ", "seed = 'x'"])
def test_wrong_files_are_named(tmp_path, content):
    path = tmp_path / "run.toml"
    path.write_text(content)
    with pytest.raises(SolError, match=r"run\.toml"):
        LearnConfig.from_toml(path)
    with pytest.raises(SolError, match="cannot read"):
        LearnConfig.from_toml(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("cls", "name", "near"),
    [
        (LearnConfig, "generation", "generations"),
        (LearnConfig, "validation_epsiodes", "validation_episodes"),
        (CompareConfig, "episode", "episodes"),
        (DistilSettings, "seeds", "seed"),
        (LearnConfig, "horizon", "steps"),
        (CompareConfig, "horizon", "steps"),
        (LearnConfig, "epochs", "steps"),
    ],
)
def test_a_wrong_keyword_names_the_nearest(cls, name, near):
    with pytest.raises(SolError, match=f"^no setting '{name}'; did you mean '{near}'\\?$"):
        cls(**{name: 1})
    if cls is LearnConfig:
        with pytest.raises(SolError, match=f"^no setting '{name}'; did you mean '{near}'\\?$"):
            cls.from_mapping({name: 1})
        assert inspect.signature(cls).parameters["seed"].default == 0
