"""Rows of tokens."""

import torch

from sol_tasks.tokenization import tokenize_instructions


class Words:
    """A tokenizer of one token a word."""

    eos_token_id = 1

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [len(word) + 2 for word in text.split()]}


def test_only_the_answer_counts():
    records = [
        {"instruction": "Say hello", "input": "", "output": "hello there"},
        {"instruction": "Say it", "input": "aloud", "output": "it"},
        {"instruction": "word " * 40, "input": "", "output": "too long"},
    ]
    rows = tokenize_instructions(Words(), records, 14)
    assert rows["input_ids"].shape == (2, 14)
    counted = rows["labels"] != -100
    assert counted.sum(1).tolist() == [3, 2]
    assert torch.equal(rows["labels"][counted], rows["input_ids"][counted])
    assert rows["labels"][0][counted[0]].tolist() == [7, 7, 1]
    assert (rows["attention_mask"] >= counted).all()
