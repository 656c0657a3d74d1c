"""From texts to rows of tokens: sentences and pairs for classifiers, prompts with answers for language models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sol_tasks.glue import Examples

__all__ = ["IGNORED", "Rows", "tokenize_instructions", "tokenize_pairs"]

Rows = dict[str, Tensor]
"""Keyword arguments of a model: ``input_ids`` [N, L], ``attention_mask`` [N, L], ``labels`` [N] or [N, L], ..."""

IGNORED = -100  # label of tokens that the loss ignores, as in transformers


def tokenize_pairs(tokenizer: Any, examples: Examples, length: int) -> Rows:
    """Rows of texts or pairs of texts, truncated to ``length`` tokens and padded on the right."""
    first, second, labels = zip(*examples)
    pairs = list(second) if any(second) else None
    form = {"truncation": True, "max_length": length, "padding": "max_length", "padding_side": "right"}
    table = tokenizer(list(first), pairs, return_tensors="pt", **form)
    return {**{name: table[name] for name in tokenizer.model_input_names}, "labels": torch.tensor(labels)}


_PROMPT = "### Instruction:\n{instruction}\n\n### Response:\n"
_PROMPT_WITH_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"


def tokenize_instructions(tokenizer: Any, records: list[dict[str, str]], length: int) -> Rows:
    """Rows of a prompt and its answer. Only the tokens of the answer enter the loss.

    Args:
        tokenizer: A tokenizer of transformers.
        records: Each has ``instruction``, ``output`` and optionally ``input``.
        length: Tokens per row. Answers are truncated; records whose prompt leaves no room for an answer are dropped.
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
