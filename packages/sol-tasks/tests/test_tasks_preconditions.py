"""What tasks need of their data: it holds, or the message says what does not."""

import math
import warnings

import pytest
import torch
from torch import nn

from sol_learner.task import Stream
from sol_symbols import SolError, UpdateRule
from sol_tasks import Attack, FineTuning

IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


def victim():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


BAD = {
    "normalised": ((IMAGES - 0.5) / 0.2, LABELS, r"in \[0, 1\], got values from -2.* normalisation into the victim"),
    "to 255": (IMAGES * 255, LABELS, r"must be in \[0, 1\], got values from .* to 2\d\d"),
    "nan": (IMAGES.masked_fill(IMAGES > 0.9, float("nan")), LABELS, r"must be in \[0, 1\], got values from nan"),
    "int32": ((IMAGES * 255).int(), LABELS, r"must be floats in \[0, 1\], got torch.int32; divide bytes by 255"),
    "none": (IMAGES[:0], LABELS[:0], "no images to attack"),
    "column": (IMAGES, LABELS[:, None], r"one for each of 6 images, \[N\]; got torch.int64 of shape \(6, 1\)"),
    "one-hot": (IMAGES, torch.eye(3)[LABELS], r"got torch.float32 of shape \(6, 3\)"),
    "fewer": (IMAGES, LABELS[:4], r"one for each of 6 images.*shape \(4,\)"),
    "negative": (IMAGES, LABELS - 1, "labels must be at least 0, got -1"),
}


@pytest.mark.parametrize("name", BAD)
def test_attacks_refuse_what_is_no_image_in_the_unit_cube(name):
    images, labels, message = BAD[name]
    good = (IMAGES, LABELS)
    with pytest.raises(SolError, match=f"valid: .*{message}"):
        Attack("attack", victim(), {"train": good, "valid": (images, labels), "test": good})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack = pytest.importorskip("sol_tasks.rule_attack").RuleAttack
    with pytest.raises(SolError, match=message):
        attack(victim(), UpdateRule.parse("sign(g) where lr = 0.25"), steps=2)(images, labels)


def test_attacks_take_bytes_as_the_data_set_holds_them():
    whole = (IMAGES * 255).byte()
    task = Attack("attack", victim(), dict.fromkeys(("train", "valid", "test"), (whole, LABELS)))
    assert task.build(torch.Generator().manual_seed(0)).images.max() <= 1


@pytest.mark.parametrize("options", [{"radius": 0}, {"radius": -1}, {"horizon": 0}, {"images": 0}])
def test_attacks_have_a_radius_and_steps(options):
    with pytest.raises(SolError, match="must be positive"):
        Attack("attack", victim(), dict.fromkeys(("train", "valid", "test"), (IMAGES, LABELS)), **options)


COUNT = 12
FEATURES = torch.rand(COUNT, 3, generator=torch.Generator().manual_seed(1))
RING = torch.tensor([[i, (i + d) % COUNT] for i in range(COUNT) for d in (1, -1)]).T
CLASSES = torch.arange(COUNT) % 3
NODES = {"train": torch.arange(4), "valid": torch.arange(4, 8), "test": torch.arange(8, COUNT)}


def graph_of(features=FEATURES, edges=RING, labels=CLASSES, nodes=NODES):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch_geometric")
        from sol_tasks import Graph

        return Graph.of(features, edges, labels, nodes)


def mask(rows):
    return torch.zeros(COUNT, dtype=torch.bool).index_fill(0, rows, True)


@pytest.mark.parametrize(
    "form",
    [
        {"nodes": {split: mask(rows) for split, rows in NODES.items()}},
        {"labels": CLASSES[:, None]},
        {"labels": CLASSES.int()},
        {"nodes": {split: rows.int() for split, rows in NODES.items()}},
        {"nodes": {split: mask(rows).numpy() for split, rows in NODES.items()}},
        {"nodes": {split: rows.tolist() for split, rows in NODES.items()}},
        {"nodes": {split: mask(rows).tolist() for split, rows in NODES.items()}},
        {"features": FEATURES.numpy(), "edges": RING.numpy(), "labels": CLASSES.tolist()},
    ],
)
def test_other_forms_of_a_graph_are_the_same_graph(form):
    one, other = graph_of(), graph_of(**form)
    assert torch.equal(one.labels, other.labels)
    assert all(torch.equal(rows, other.nodes[split]) for split, rows in one.nodes.items())


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"edges": RING.T}, r"edges must be int64, \[2, E\], got torch.int64 of shape \(24, 2\); transpose it"),
        ({"edges": RING + 1}, "edges must join nodes 0 to 11, got 1 to 12"),
        ({"edges": RING.float()}, "edges must be int64"),
        ({"labels": CLASSES.float()}, "labels must be integers"),
        ({"labels": torch.eye(3)[CLASSES]}, r"labels must be integers.*shape \(12, 3\)"),
        ({"labels": CLASSES - 1}, "labels must be at least 0, got -1"),
        ({"labels": CLASSES[:5]}, "one for each of 12 nodes"),
        ({"features": FEATURES.to_sparse()}, "features must be a dense matrix"),
        ({"nodes": {**NODES, "train": torch.tensor([0, 1, 1])}}, "nodes of 'train' are given twice: 3 indices of 2"),
        ({"nodes": {**NODES, "train": mask(NODES["train"]).long()}}, "12 indices of 2 nodes; a mask has to be boolean"),
        ({"features": FEATURES.index_fill(0, torch.tensor(3), math.nan)}, "features hold NaN or infinity; fill"),
        ({"nodes": {**NODES, "test": torch.tensor([-1, 2])}}, "nodes of 'test' must be from 0 to 11, got -1 to 2"),
        ({"nodes": {**NODES, "test": torch.tensor([3, 12])}}, "nodes of 'test' must be from 0 to 11, got 3 to 12"),
        ({"nodes": {**NODES, "test": mask(NODES["test"])[:5]}}, "must be indices or a boolean mask of 12 nodes"),
        ({"nodes": {**NODES, "test": NODES["test"][:0]}}, "the split 'test' has no nodes"),
        ({"nodes": {"train": NODES["train"], "val": NODES["valid"], "test": NODES["test"]}}, "rename 'val' to 'valid'"),
    ],
)
def test_what_is_no_graph_is_said(form, message):
    with pytest.raises(SolError, match=message):
        graph_of(**form)


class Layers(nn.Module):
    """Sums over neighbours, ``depth`` times."""

    def __init__(self, depth, norm=False):
        super().__init__()
        self.linear, self.depth = nn.Linear(3, 3), depth
        self.norm = nn.BatchNorm1d(3) if norm else nn.Identity()

    def forward(self, graph):
        x = graph.features.to_dense()
        for _ in range(self.depth):
            x = x.index_add(0, graph.edges[1], x[graph.edges[0]])
        return self.norm(self.linear(x))


def test_hops_are_checked_against_the_whole_graph():
    from sol_tasks import NodeClassification

    graph = graph_of()
    NodeClassification("task", lambda g: Layers(2), graph, 2)
    with pytest.raises(SolError, match=r"hops = 1 is too few: outputs at the nodes of 'train' differ.* use hops = 2"):
        NodeClassification("task", lambda g: Layers(2), graph, 1)
    with pytest.raises(SolError, match="norm normalises over all nodes"):
        NodeClassification("task", lambda g: Layers(2, norm=True), graph, 2)


class Output:
    def __init__(self, loss, logits):
        self.loss, self.logits = loss, logits


class Words(nn.Module):
    """A model of tokens with transformers' interface; its loss is of the same token, the next one or the row."""

    def __init__(self, kind):
        super().__init__()
        self.table, self.kind = nn.Embedding(7, 4), kind

    def forward(self, input_ids, attention_mask, labels):
        x = self.table(input_ids)
        if self.kind == "row":
            x = (x * attention_mask[..., None]).sum(1)
            return Output(nn.functional.cross_entropy(x, labels.view(-1)), x)
        shift = self.kind == "next"
        given, wanted = (x[:, :-1], labels[:, 1:]) if shift else (x, labels)
        loss = nn.functional.cross_entropy(given.reshape(-1, 4), wanted.reshape(-1), ignore_index=-100)
        return Output(loss, x)


def rows_of(kind, side, count=9, width=6):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.arange(count) % (width - 2) + 2
    places = torch.arange(width).expand(count, width)
    used = places < lengths[:, None] if side == "right" else places >= width - lengths[:, None]
    ids = torch.randint(1, 7, (count, width), generator=generator)
    labels = torch.randint(0, 4, (count, width), generator=generator).masked_fill(~used, -100)
    return {"input_ids": ids * used, "attention_mask": used.long(), "labels": labels} | (
        {"labels": torch.arange(count) % 4} if kind == "row" else {}
    )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["same", "next", "row"])
def test_losses_are_those_of_the_model_on_whole_rows(kind, side):
    rows = rows_of(kind, side)
    model = Words(kind)
    task = FineTuning("task", model, frozenset(), dict.fromkeys(("train", "valid", "test"), rows), 5, 2)
    expected = model(**rows).loss
    assert task.loss(model, rows).item() == pytest.approx(expected.item(), rel=1e-6)
    assert task.evaluate(model, "test")["loss"] == pytest.approx(expected.item(), rel=1e-6)


def test_labels_in_a_column_are_those_of_rows():
    rows = rows_of("row", "right")
    column = {**rows, "labels": rows["labels"][:, None]}
    one, other = (FineTuning("t", Words("row"), frozenset(), {"train": r}, 5, 2) for r in (rows, column))
    generator = lambda: torch.Generator().manual_seed(Stream.TRAIN.value)  # noqa: E731
    a, b = (next(task.batches("train", generator()))["labels"] for task in (one, other))
    assert torch.equal(a, b)


ROWS = rows_of("next", "right")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_mask": None}, "the rows of 'train' have no attention_mask"),
        ({"labels": ROWS["labels"][:4]}, "must have the same number of rows"),
        (
            {"labels": ROWS["labels"].clone().index_fill(0, torch.tensor([1, 2]), -100)},
            "2 rows of 'train' have no label",
        ),
        ({"attention_mask": ROWS["attention_mask"][:, :3]}, r"must have one shape, \[N, L\]"),
        ({"labels": ROWS["labels"][:, :, None]}, r"must be \[N\] or one a token"),
        ({name: table[:0] for name, table in ROWS.items()}, "at least 1"),
    ],
)
def test_rows_that_no_loss_can_be_computed_of_are_said(change, message):
    rows = {name: table for name, table in (ROWS | change).items() if table is not None}
    with pytest.raises(SolError, match=message):
        FineTuning("task", Words("next"), frozenset(), {"train": rows}, 5)


def test_metrics_of_tokens_are_refused():
    with pytest.raises(SolError, match="metrics take one label a row"):
        FineTuning("task", Words("next"), frozenset(), {"train": ROWS}, 5, metrics=lambda a, b: {})
