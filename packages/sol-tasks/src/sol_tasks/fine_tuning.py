"""Fine-tuning of language models: sequence classification on GLUE, causal language models on instructions.

Texts are tokenised once, padded to one width and kept on the device. :class:`FineTuning` trims the padding that a batch
does not need before it calls the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sol_symbols import SolError
from sol_tasks.alpaca import load_alpaca
from sol_tasks.classification import Classification
from sol_tasks.data_folder import require_data
from sol_tasks.glue import GLUE, load_glue
from sol_tasks.pretrained import (
    GET_BERT,
    GET_SMOLLM2,
    agree_on_padding,
    find_checkpoint,
    find_language_model,
    load_pretrained,
    load_tokenizer,
)
from sol_tasks.tokenization import IGNORED, Rows, tokenize_instructions, tokenize_pairs

__all__ = ["FineTuning", "bert_glue", "bert_head", "instruction_tuning", "matthews"]


def matthews(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Matthews correlation coefficient ``mcc`` for two classes, in [-1, 1]; 0 where it is 0/0."""
    guess, truth = logits.argmax(1).double(), labels.double()
    guess, truth = guess - guess.mean(), truth - truth.mean()
    scale = guess.norm() * truth.norm()
    return {"mcc": float(torch.where(scale > 0, (guess @ truth) / scale.clamp_min(1e-30), torch.zeros_like(scale)))}


class FineTuning:
    """Train a pretrained model on tokenised texts.

    Args:
        name: Name of the task.
        pretrained: A module that takes the columns of a batch as keyword arguments and returns an object with ``loss``
            and ``logits``.
        fresh: Names of the parameters that every build initialises again: weights from a normal distribution with
            standard deviation ``spread``, biases to 0, weights of one dimension to 1.
        data: Rows of ``train``, ``valid`` and ``test``, padded to one width: ``input_ids`` and ``attention_mask``
            [N, L], ``labels`` [N], [N, 1] or one a token, [N, L'], with -100 where there is none, and any others.
        horizon: Inner steps of an episode, T.
        batch_size: Texts per batch.
        device: Device of the models and the data.
        spread: See ``fresh``.
        dtype: Autocast precision of the forward pass, such as ``torch.bfloat16``.
        metrics: Maps logits [N, classes] and labels [N] to additional metrics; for classifiers.
        sample: Number of rows that ``evaluate("train")`` uses, from the first; by default all.
        by_length: Whether a batch has texts of similar length, which saves padding: an epoch's shuffled texts are
            sorted by length within every 16 batches, and all batches are shuffled.

    Raises:
        SolError: A name in ``fresh`` is unknown, or the model is frozen. A split has no rows, lacks a column, has
            columns of different lengths or a row without a label, or ``metrics`` are given for labels of tokens.
    """

    vectorizable = False

    def __init__(
        self,
        name: str,
        pretrained: nn.Module,
        fresh: frozenset[str],
        data: Mapping[str, Rows],
        horizon: int,
        batch_size: int = 32,
        device: torch.device | str = "cpu",
        spread: float = 0.02,
        dtype: torch.dtype | None = None,
        metrics: Callable[[Tensor, Tensor], dict[str, float]] | None = None,
        sample: int | None = None,
        by_length: bool = False,
    ) -> None:
        names = {known for known, _ in pretrained.named_parameters()}
        if not {*fresh} <= names:
            raise SolError(f"fresh must name parameters of the model, got {', '.join(sorted({*fresh} - names))}")
        if not any(parameter.requires_grad for parameter in pretrained.parameters()):
            raise SolError("every parameter of the model is frozen; set requires_grad of some")
        self.name, self.horizon, self.batch_size = name, horizon, batch_size
        self.device, self._pretrained, self._fresh = torch.device(device), pretrained, fresh
        self._spread, self._dtype, self._metrics, self._sample = spread, dtype, metrics, sample
        self._shifted: bool | None = None
        self._by_length = by_length
        tables = {split: _checked(split, rows) for split, rows in data.items()}
        if metrics is not None and any(rows["labels"].ndim > 1 for rows in tables.values()):
            raise SolError("metrics take one label a row, [N]; for labels of tokens leave them out")
        self._data = {split: {k: v.to(self.device) for k, v in rows.items()} for split, rows in tables.items()}

    def build(self, generator: torch.Generator) -> nn.Module:
        """A copy of the pretrained model with a new head.

        Without a new head, builds differ only by a relative perturbation of 1e-6, which keeps the build a function of
        the generator.
        """
        model = copy.deepcopy(self._pretrained).to(self.device)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self._fresh and parameter.ndim > 1:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(self._spread * noise)
                elif name in self._fresh:
                    parameter.fill_(1.0 if name.endswith("weight") else 0.0)  # of a layer that normalises
            if not self._fresh:
                _perturb(next(p for p in model.parameters() if p.requires_grad), generator)
        return model

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Rows]:
        """Endless full batches of rows; each epoch is shuffled."""
        rows = self._data[split]
        count = len(rows["input_ids"])
        size = min(self.batch_size, count)
        lengths = rows["attention_mask"].sum(1).cpu()
        while True:
            order = torch.randperm(count, generator=generator)
            batches = order.split(size)
            if self._by_length:
                parts = [part[lengths[part].argsort(stable=True)] for part in order.split(16 * size)]
                batches = [batch for part in parts for batch in part.split(size)]
            batches = [batch.to(self.device) for batch in batches if len(batch) == size]
            for i in torch.randperm(len(batches), generator=generator) if self._by_length else range(len(batches)):
                yield {name: table[batches[i]] for name, table in rows.items()}

    def _call(self, model: nn.Module, rows: Rows) -> Any:
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None):
            return model(**_trimmed(rows))

    def loss(self, model: nn.Module, batch: Rows) -> Tensor:
        """Mean cross-entropy in nats, over texts or over the labelled tokens."""
        return self._call(model, batch).loss.float()

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Mean cross-entropy ``loss`` over the split; for classifiers also ``accuracy`` and the additional metrics."""
        rows = self._data[split]
        count = len(rows["input_ids"])
        count = min(count, self._sample or count) if split == "train" else count
        order = rows["attention_mask"][:count].sum(1).argsort()  # grouping rows by length saves padding
        losses, weights, logits = [], [], []
        for chosen in order.split(2 * self.batch_size):
            part = {name: table[chosen] for name, table in rows.items()}
            output = self._call(model, part)
            losses.append(output.loss.double())
            weights.append(self._counted(output, part["labels"]))
            logits.append(output.logits.float() if self._metrics is not None else output.loss)
        weight = torch.stack(weights).double()
        result = {"loss": float((torch.stack(losses) * weight).sum() / weight.sum())}
        if self._metrics is not None:
            scores, labels = torch.cat(logits), rows["labels"][order]
            result["accuracy"] = float((scores.argmax(1) == labels).float().mean())
            result |= self._metrics(scores, labels)
        return result

    def _counted(self, output: Any, labels: Tensor) -> Tensor:
        """The number of labels in a loss. Causal language models shift them, so the first of a row does not count."""
        if labels.ndim == 1:
            return labels.ne(IGNORED).sum()
        if self._shifted is None:
            self._shifted = _shifts(output, labels)
        return (labels[:, 1:] if self._shifted else labels).ne(IGNORED).sum()


def _perturb(parameter: Tensor, generator: torch.Generator) -> None:
    """Change a parameter so little that it does not matter, in place: by 1e-6 of its values, or 1e-6 if they are 0.

    Types that would round this away have a few values changed by their last digits.
    """
    noise, last = 1e-6 * torch.randn(parameter.shape, generator=generator), torch.finfo(parameter.dtype).eps
    if not bool(parameter.any()):
        parameter.add_(noise.to(parameter))
        return
    if last > noise.abs().max():
        chosen = torch.randint(parameter.numel(), (_FEW,), generator=generator)
        digits = 2 * last * noise.flatten()[chosen].sign()
        noise = torch.zeros(parameter.numel()).index_put_((chosen,), digits).view(parameter.shape)
    parameter.mul_(1 + noise.to(parameter))


_FEW = 64


def _shifts(output: Any, labels: Tensor) -> bool:
    """Whether a model's loss is nearer to that of the next token than to that of the same token."""
    logits, width = output.logits.float(), output.logits.shape[1]  # a classifier's have two dimensions
    if logits.ndim != 3 or labels[:, width:].ne(IGNORED).any():
        return False
    labels = labels[:, :width]
    same = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    following = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    return bool((following - output.loss).abs() <= (same - output.loss).abs())


def _checked(split: str, rows: Rows) -> Rows:
    """The rows, with labels in a column as [N]."""
    absent = {"input_ids", "attention_mask", "labels"} - {*rows}
    if absent:
        raise SolError(f"the rows of {split!r} have no {', '.join(sorted(absent))}")
    rows = {name: torch.as_tensor(table) for name, table in rows.items()}
    counts = {name: len(table) for name, table in rows.items()}
    if len({*counts.values()}) > 1 or not len(rows["input_ids"]):
        raise SolError(f"every column of {split!r} must have the same number of rows, at least 1; got {counts}")
    if rows["input_ids"].ndim != 2 or rows["input_ids"].shape != rows["attention_mask"].shape:
        shapes = " and ".join(str(tuple(rows[name].shape)) for name in ("input_ids", "attention_mask"))
        raise SolError(f"input_ids and attention_mask of {split!r} must have one shape, [N, L]; got {shapes}")
    labels = rows["labels"]
    if labels.ndim == 2 and labels.shape[1] == 1 and rows["input_ids"].shape[1] > 1:
        labels = labels.squeeze(1)
    if labels.ndim not in (1, 2):
        raise SolError(f"labels of {split!r} must be [N] or one a token, [N, L], got the shape {tuple(labels.shape)}")
    unlabelled = int(labels.view(len(labels), -1).eq(IGNORED).all(1).sum())
    if unlabelled:
        raise SolError(f"{unlabelled} rows of {split!r} have no label: every label is {IGNORED}; leave these rows out")
    return {**rows, "labels": labels}


def _trimmed(rows: Rows) -> Rows:
    """Drop trailing columns that are padding in all rows. What a decoder reads has a width of its own."""
    full, used = rows["input_ids"].shape[1], rows["attention_mask"].bool().any(0)
    width = int(used.nonzero().max()) + 1 if bool(used.any()) else full
    labels = rows.get("labels")
    kept = {name for name, table in rows.items() if table.ndim < 2 or table.shape[1] != full or "decoder" in name}
    if any("decoder" in name for name in rows) or (
        labels is not None and labels.ndim > 1 and labels[:, width:].ne(IGNORED).any()
    ):
        kept.add("labels")
    return {name: table if name in kept else table[:, :width].contiguous() for name, table in rows.items()}


def bert_glue(
    dataset: str,
    data: str | Path | None = None,
    device: torch.device | str = "cpu",
    *,
    checkpoint: str | None = None,
    horizon: int | None = None,
    rows: int | None = None,
    sample: int | None = 500,
    dtype: torch.dtype | None = None,
    by_length: bool = False,
) -> FineTuning:
    """Fine-tune a whole BERT on a GLUE data set, with batches of 32 and the paper's number of epochs.

    Args:
        dataset: A name of :data:`GLUE`.
        data: Data folder; see :func:`load_glue`.
        device: Device of the models and the data.
        checkpoint: Name or folder of any sequence classifier that transformers loads; see
            ``sol_tasks.pretrained.find_checkpoint``. It is loaded in float32; a head for another number of classes is
            replaced.
        horizon: Inner steps of an episode, T; by default the paper's epochs.
        rows: Number of rows to keep of the shuffled training set; by default all.
        sample: Number of training rows used for training metrics.
        dtype: Autocast precision of the forward pass.
        by_length: See :class:`FineTuning`.

    Raises:
        SolError: The extra is not installed, or the data or the checkpoint cannot be loaded.
    """
    splits = load_glue(dataset, data, rows)
    name = checkpoint or find_checkpoint(data)
    head = {"num_labels": 2, "problem_type": "single_label_classification", "ignore_mismatched_sizes": True}
    model, fresh = load_pretrained("AutoModelForSequenceClassification", name, GET_BERT, **head)
    tokenizer = load_tokenizer(name, GET_BERT)
    agree_on_padding(tokenizer, model, name)
    facts = GLUE[dataset]
    tables = {split: tokenize_pairs(tokenizer, part, facts.length) for split, part in splits.items()}
    steps = horizon or facts.epochs * (len(splits["train"]) // 32)
    options: dict[str, Any] = {"dtype": dtype, "metrics": matthews, "sample": sample, "by_length": by_length}
    return FineTuning(f"bert-{dataset.lower()}", model, fresh, tables, steps, 32, device, **options)


@torch.no_grad()
def bert_head(
    dataset: str,
    data: str | Path | None = None,
    device: torch.device | str = "cpu",
    *,
    checkpoint: str | None = None,
    horizon: int = 100,
    rows: int | None = None,
) -> Classification:
    """A linear classifier on the frozen [CLS] features of a BERT, which are computed once.

    Learning a rule on it takes seconds. As in the paper, the rule is then used on the whole model.

    Args:
        dataset, data, device, checkpoint, rows: As in :func:`bert_glue`.
        horizon: Inner steps of an episode, T.
    """
    whole = bert_glue(dataset, data, device, checkpoint=checkpoint, rows=rows)
    encoder: Any = whole.build(torch.Generator().manual_seed(0)).eval().base_model
    features = {}
    for split, table in whole._data.items():
        inputs = {name: values for name, values in table.items() if name != "labels"}
        parts = []
        for start in range(0, len(table["labels"]), 64):
            part = {name: values[start : start + 64] for name, values in inputs.items()}
            parts.append(encoder(**_trimmed(part)).last_hidden_state[:, 0])
        features[split] = torch.cat(parts), table["labels"]
    size = features["train"][0].shape[1]
    name = f"bert-head-{dataset.lower()}"
    return Classification(name, lambda: nn.Linear(size, 2), features, horizon, 32, device, metrics=matthews)


def instruction_tuning(
    data: str | Path | None,
    device: torch.device | str = "cpu",
    *,
    checkpoint: str | None = None,
    gguf_file: str | None = None,
    model: nn.Module | None = None,
    tokenizer: Any = None,
    length: int = 256,
    horizon: int = 100,
    batch_size: int = 8,
    dtype: torch.dtype | None = None,
    rows: int | None = None,
    sample: int | None = 64,
) -> FineTuning:
    """Fine-tune a causal language model on instructions in Alpaca's form.

    Args:
        data: Folder with ``llm/alpaca*.json`` or ``alpaca*.json``, lists of records. The first file is used.
        device: Device of the models and the data.
        checkpoint: Name or folder of any causal language model that transformers loads; see
            ``sol_tasks.pretrained.find_language_model``. It is loaded in float32.
        gguf_file: Name of a GGUF file in the checkpoint's folder (needs the packages gguf and accelerate).
        model: Replaces the checkpoint's model.
        tokenizer: Replaces the checkpoint's tokenizer.
        length: Tokens per row.
        horizon: Inner steps of an episode, T.
        batch_size: Rows per batch.
        dtype: Autocast precision of the forward pass.
        rows: Number of records to use; by default all.
        sample: Number of training rows used for training metrics.

    Raises:
        SolError: The extra is not installed, or the data or the checkpoint cannot be loaded.
    """
    records = load_alpaca(require_data(data, "llm-alpaca"))[:rows]
    if checkpoint is None:
        checkpoint, gguf_file = find_language_model()
    options = {"gguf_file": gguf_file} if gguf_file else {}
    if model is None:
        model, _ = load_pretrained("AutoModelForCausalLM", checkpoint, GET_SMOLLM2, **options)
    tokenizer = tokenizer or load_tokenizer(checkpoint, GET_SMOLLM2, **options)
    columns = tokenize_instructions(tokenizer, records, length)
    count = len(columns["labels"])
    if count < 10:
        raise SolError(
            f"at least 10 instructions must leave room for an answer in {length} tokens, got {count} of {len(records)}"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    parts = dict(zip(("valid", "test", "train"), order.split([count // 10, count // 10, count - 2 * (count // 10)])))
    splits = {split: {name: column[chosen] for name, column in columns.items()} for split, chosen in parts.items()}
    return FineTuning("llm-alpaca", model, frozenset(), splits, horizon, batch_size, device, dtype=dtype, sample=sample)
