"""Hugging Face's Trainer and Lightning use the emitted PyTorch file unchanged."""

import pytest
import torch

from sol_symbols import ZOO

transformers = pytest.importorskip("transformers")
lightning = pytest.importorskip("pytorch_lightning")

# Lightning calls what PyTorch deprecates, and recommends worker processes for loading.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]

SETTINGS = {"lr": 1e-3, "weight_decay": 0.01}


def settings_of(name):
    return {"lr": 1e-3} | ({"horizon": 12} if ZOO[name].needs_horizon else {})


class Sentences(torch.utils.data.Dataset):
    """Random tokens; the label is whether there is a 1 among them."""

    def __len__(self):
        return 48

    def __getitem__(self, i):
        tokens = torch.randint(1, 20, (6,), generator=torch.Generator().manual_seed(i))
        return {"input_ids": tokens, "attention_mask": torch.ones(6, dtype=int), "labels": int((tokens == 1).any())}


def tiny_bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForSequenceClassification(config)


def huggingface(folder, kind, settings, resume=None, **arguments):
    """Train the tiny BERT: accumulated gradients, clipped, a schedule with warm-up, a checkpoint halfway."""
    given = {"max_steps": 12, "save_steps": 6} | arguments
    trainer = transformers.Trainer(
        tiny_bert(),
        transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            max_grad_norm=0.5,
            warmup_steps=3,
            lr_scheduler_type="cosine",
            learning_rate=settings["lr"],
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            logging_steps=1,
            **given,
        ),
        train_dataset=Sentences(),
        optimizer_cls_and_kwargs=(kind, settings),
    )
    trainer.train(resume_from_checkpoint=resume)
    rates = [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]
    return [p.detach() for p in trainer.model.parameters()], rates


@pytest.mark.parametrize("precision", [{}, {"bf16": True}], ids=str)
def test_trainer_of_hugging_face(load, tmp_path, precision):
    ours, rates = huggingface(tmp_path / "ours", load(ZOO["adam"]), SETTINGS, **precision)
    theirs, expected = huggingface(tmp_path / "theirs", torch.optim.AdamW, SETTINGS, **precision)
    assert len(rates) == 12
    assert rates == expected
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["lion", "sol-mnistnet"])
def test_trainer_resumes_from_its_checkpoint(load, tmp_path, name):
    kind, settings = load(ZOO[name]), settings_of(name)
    straight, _ = huggingface(tmp_path / "a", kind, settings)
    resumed, _ = huggingface(tmp_path / "b", kind, settings | {"lr": 0.5}, resume=tmp_path / "a/checkpoint-6")
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


class Regression(lightning.LightningModule):
    def __init__(self, kind, settings):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.kind, self.settings = kind, settings

    def training_step(self, batch, _):
        return (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()

    def configure_optimizers(self):
        optimizer = self.kind(self.parameters(), **self.settings)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=12)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def with_lightning(folder, kind, settings, epochs=2, resume=None, **arguments):
    torch.manual_seed(0)
    module = Regression(kind, settings)
    batches = torch.utils.data.DataLoader(torch.randn(48, 4, generator=torch.Generator().manual_seed(1)), 4)
    trainer = lightning.Trainer(
        max_epochs=epochs,  # of 6 steps
        accumulate_grad_batches=2,
        gradient_clip_val=0.5,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    trainer.fit(module, batches, ckpt_path=resume)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return [p.detach() for p in module.parameters()]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_trainer_of_lightning(load, tmp_path, precision):
    ours = with_lightning(tmp_path / "ours", load(ZOO["adam"]), SETTINGS, precision=precision)
    theirs = with_lightning(tmp_path / "theirs", torch.optim.AdamW, SETTINGS, precision=precision)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["lion", "sol-mnistnet"])
def test_lightning_resumes_from_its_checkpoint(load, tmp_path, name):
    kind, settings = load(ZOO[name]), settings_of(name)
    straight = with_lightning(tmp_path, kind, settings)
    with_lightning(tmp_path, kind, settings, epochs=1)
    resumed = with_lightning(tmp_path, kind, settings | {"lr": 0.5}, resume=tmp_path / "1.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))
