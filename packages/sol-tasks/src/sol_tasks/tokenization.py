"""Texts as rows of token numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sol_tasks.glue import Examples

__all__ = ["IGNORED", "Rows", "tokenize_instructions", "tokenize_pairs", "trimmed"]

Rows = dict[str, Tensor]
"""What a model is called with: ``input_ids`` [N, L], ``attention_mask`` [N, L], ``labels`` [N] or [N, L], ..."""

IGNORED = -100  # the label of tokens that do not count, as in transformers


def trimmed(rows: Rows) -> Rows:
    """Without the columns at the end that are padding in all rows."""
    width = int(rows["attention_mask"].sum(1).max())
    return {name: table[:, :width] if table.ndim > 1 else table for name, table in rows.items()}


def tokenize_pairs(tokenizer: Any, examples: Examples, length: int) -> Rows:
    """Rows of texts or pairs of texts, cut to ``length`` tokens and padded at their ends."""
    first, second, labels = zip(*examples)
    pairs = list(second) if any(second) else None
    form = {"truncation": True, "max_length": length, "padding": "max_length", "padding_side": "right"}
    table = tokenizer(list(first), pairs, return_tensors="pt", **form)
    return {**{name: table[name] for name in tokenizer.model_input_names}, "labels": torch.tensor(labels)}


_PROMPT = "### Instruction:\n{instruction}\n\n### Response:\n"
_PROMPT_WITH_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"


def tokenize_instructions(tokenizer: Any, records: list[dict[str, str]], length: int) -> Rows:
    """Rows of prompt and answer; only the tokens of the answer count.

    Args:
        tokenizer: Of transformers.
        records: Each with ``instruction``, ``output`` and, perhaps empty, ``input``.
        length: Tokens of a row; answers are cut there, and rows whose prompt leaves no room are left out.
    """
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    ids, masks, labels = [], [], []
    for record in records:
        prompt = (_PROMPT_WITH_INPUT if record.get("input") else _PROMPT).format(**record)
        question = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = [*tokenizer(record["output"], add_special_tokens=False)["input_ids"], *end]
        if len(question) >= length:
            continue
        row = [*question, *answer][:length]
        padding = length - len(row)
        ids.append(row + [0] * padding)
        masks.append([1] * len(row) + [0] * padding)
        labels.append([IGNORED] * len(question) + row[len(question) :] + [IGNORED] * padding)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(masks), "labels": torch.tensor(labels)}
