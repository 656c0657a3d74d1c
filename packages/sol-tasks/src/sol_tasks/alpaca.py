"""Instructions in Alpaca's form: a JSON list of records with ``instruction``, ``output`` and, optionally, ``input``."""

from __future__ import annotations

import json
from pathlib import Path

from sol_symbols import SolError
from sol_tasks.data_folder import find_data

__all__ = ["load_alpaca"]


def load_alpaca(data: str | Path) -> list[dict[str, str]]:
    """The records of the first file ``alpaca*.json`` in ``data/llm`` or ``data``.

    Raises:
        SolError: There is no such file, or it is not a list of records.
    """
    advice = "get alpaca_data.json from github.com/tatsu-lab/stanford_alpaca"
    file = find_data("instructions", data, "llm", "alpaca*.json", advice=advice)
    try:
        records = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise SolError(f"cannot read {file} as instructions: {error}") from error
    texts = ("instruction", "output")
    if not isinstance(records, list) or not all(
        isinstance(record, dict) and all(isinstance(record.get(text), str) for text in texts) for record in records
    ):
        raise SolError(f"cannot read {file} as instructions: not a list of records with instruction and output")
    return records
