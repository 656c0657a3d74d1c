"""Instructions."""

import pytest

from sol_symbols import SolError
from sol_tasks.alpaca import load_alpaca


def test_missing_instructions_are_said(tmp_path):
    with pytest.raises(SolError, match=r"looked for alpaca\*\.json there and in llm/; get .*stanford_alpaca"):
        load_alpaca(tmp_path)


@pytest.mark.parametrize("content", [b'[{"instruction": "a', b"\xff", b'{"a": 1}', b'["a"]', b'[{"instruction": "a"}]'])
def test_damaged_instructions_are_said_in_one_line(tmp_path, content):
    (tmp_path / "alpaca.json").write_bytes(content)
    with pytest.raises(SolError, match=r"cannot read .*alpaca\.json as instructions: ") as caught:
        load_alpaca(tmp_path)
    assert "\n" not in str(caught.value)
