"""What tasks need of their data: it holds, or the message says what does not."""

import math
import warnings

import pytest
import torch
from torch import nn

from sol_learner.task import Stream, same_values, trainable
from sol_symbols import SolError, UpdateRule
from sol_tasks import Attack, FineTuning
from sol_tasks.attack import check_images

IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


def victim():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


BAD = {
    "normalised": ((IMAGES - 0.5) / 0.2, LABELS, r"in \[0, 1\], got values from -2.* normalisation into the victim"),
    "to 255": (IMAGES * 255, LABELS, r"must be in \[0, 1\], got values from .* to 2\d\d"),
    "nan": (IMAGES.masked_fill(IMAGES > 0.9, float("nan")), LABELS, "images hold NaN or infinity; clean the data"),
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


def test_advice_for_images_is_about_these_images():
    for images, advice in ((IMAGES * 255, "divide them by 255$"), ((IMAGES - 0.5) / 0.2, "into the victim$")):
        with pytest.raises(SolError, match=advice):
            check_images(images, LABELS)
    with pytest.raises(SolError, match="images and labels must be tensors, got ndarray and Tensor"):
        check_images(IMAGES.numpy(), LABELS)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, "int32 labels", "rounded"], ids=str)
def test_attacks_take_images_and_labels_in_the_types_that_people_have(kind):
    images, labels = IMAGES.round(), LABELS
    if kind == "int32 labels":
        labels = labels.int()
    elif kind == "rounded":  # normalised and back
        images = images - 3e-8
    else:
        images = images.to(kind)
    task = Attack("attack", victim(), dict.fromkeys(("train", "valid", "test"), (images, labels)))
    model = task.build(torch.Generator().manual_seed(0))
    assert task.loss(model, ()).isfinite()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack = pytest.importorskip("sol_tasks.rule_attack").RuleAttack
    moved = attack(victim(), UpdateRule.parse("sign(g) where lr = 0.25"), steps=2)(images, labels)
    assert 0 <= moved.min() <= moved.max() <= 1
    with pytest.raises(SolError, match="labels must be below the victim's 3 classes, got 3"):
        attack(victim(), UpdateRule.parse("sign(g) where lr = 0.25"), steps=2)(images, labels + 1)


def test_attacks_take_bytes_as_the_data_set_holds_them():
    whole = (IMAGES * 255).byte()
    task = Attack("attack", victim(), dict.fromkeys(("train", "valid", "test"), (whole, LABELS)))
    assert task.build(torch.Generator().manual_seed(0)).images.max() <= 1


def test_a_radius_in_bytes_is_refused():
    with pytest.raises(SolError, match=r"the radius 8 is larger than the range of images, \[0, 1\]; write 8/255"):
        Attack("attack", victim(), dict.fromkeys(("train", "valid", "test"), (IMAGES, LABELS)), radius=8)
    Attack("attack", victim(), dict.fromkeys(("train", "valid", "test"), (IMAGES, LABELS)), norm="l2", radius=3)


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
        ({"labels": CLASSES - 1}, "labels of .* must be at least 0, got -1; leave these nodes out"),
        ({"labels": CLASSES[:5]}, "one for each of 12 nodes"),
        ({"features": FEATURES.to_sparse()}, "features must be a dense matrix"),
        ({"nodes": {**NODES, "train": torch.tensor([0, 1, 1])}}, "nodes of 'train' are given twice: 3 indices of 2"),
        ({"nodes": {**NODES, "train": mask(NODES["train"]).long()}}, "12 indices of 2 nodes; a mask has to be boolean"),
        ({"features": FEATURES.index_fill(0, torch.tensor(3), math.nan)}, "features hold NaN or infinity; fill"),
        ({"nodes": {**NODES, "test": torch.tensor([-1, 2])}}, "nodes of 'test' must be from 0 to 11, got -1 to 2"),
        ({"nodes": {**NODES, "test": torch.tensor([3, 12])}}, "nodes of 'test' must be from 0 to 11, got 3 to 12"),
        ({"nodes": {**NODES, "test": mask(NODES["test"])[:5]}}, "must be indices or a boolean mask of 12 nodes"),
        ({"nodes": {**NODES, "test": NODES["test"][:0]}}, "the split 'test' has no nodes"),
        (
            {"nodes": {**NODES, "test": {3, 4}}},
            "nodes of 'test' must be a tensor, an array or a list of numbers, got set",
        ),
        (
            {"nodes": {**NODES, "test": NODES["train"]}},
            "the splits 'train' and 'test' share 4 nodes; give",
        ),
        ({"labels": None}, "labels must be a tensor, an array or a list of numbers, got NoneType"),
        ({"nodes": {"train": NODES["train"], "val": NODES["valid"], "test": NODES["test"]}}, "rename 'val' to 'valid'"),
    ],
)
def test_what_is_no_graph_is_said(form, message):
    with pytest.raises(SolError, match=message):
        graph_of(**form)


def test_labels_of_nodes_in_no_split_can_be_anything():
    nodes = {**NODES, "train": NODES["train"][1:]}
    labels = CLASSES.index_fill(0, NODES["train"][:1], -1)
    assert graph_of(labels=labels, nodes=nodes).classes == int(labels.max()) + 1


def test_batches_of_geometric_graphs_are_compared():
    data = pytest.importorskip("torch_geometric.data")
    one, other = (data.Data(x=torch.full((3, 2), value), edge_index=torch.zeros(2, 0).long()) for value in (0.0, 1.0))
    assert same_values(one, one.clone())
    assert not same_values(one, other)


def test_graphs_of_scipy_are_taken():
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.coo_matrix((torch.ones(RING.shape[1]).numpy(), RING.numpy()), shape=(12, 12))
    one, other = graph_of(), graph_of(edges=matrix, features=sparse.csr_matrix(FEATURES.numpy()))
    assert {*map(tuple, one.edges.T.tolist())} == {*map(tuple, other.edges.T.tolist())}
    assert torch.equal(one.features.to_dense(), other.features.to_dense())


class Layers(nn.Module):
    """Sums over neighbours, ``depth`` times."""

    def __init__(self, depth, norm=None):
        super().__init__()
        self.linear, self.depth, self.norm = nn.Linear(3, 3), depth, norm or nn.Identity()

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
    for norm in (nn.BatchNorm1d(3), nn.InstanceNorm1d(3, track_running_stats=True)):
        with pytest.raises(SolError, match="norm normalises over all nodes"):
            NodeClassification("task", lambda g, norm=norm: Layers(2, norm), graph, 2)


class Centred(Layers):
    """Takes the mean over all nodes away."""

    def forward(self, graph):
        x = super().forward(graph)
        return x - x.mean(0)


class Standardising(Layers):
    """Normalises over all nodes, by a function, while it trains."""

    def forward(self, graph):
        x = super().forward(graph)
        return nn.functional.batch_norm(x, torch.zeros(3), torch.ones(3), training=self.training)


class Remembering(Layers):
    """Calls its layers with the graph of its constructor."""

    def __init__(self, graph):
        super().__init__(2)
        self.own = graph

    def forward(self, graph):
        return super().forward(self.own)[: len(graph.labels)]


class Caching(Layers):
    cached = True


@pytest.mark.parametrize(
    ("model", "hops", "message"),
    [
        (lambda g: Centred(2), 2, "hops = 2 is too few: .* use more, or hops = None if a layer sees all nodes or"),
        (
            lambda g: Standardising(2),
            2,
            "in training mode, .* a layer normalises over all nodes; use hops",
        ),
        (Remembering, 2, "hops = 2 is too few: .* or the model keeps a graph of its own"),
        (lambda g: Caching(2), 2, "keeps the first graph that it sees; set its cached = False, or use hops = None"),
        (lambda g: Layers(2, nn.Linear(2, 3)), 2, "the model of task raised RuntimeError: .*, with the whole graph"),
        *((lambda g: Layers(2), hops, "hops must be a whole number of at least 1") for hops in (-1, 0, 1.5, "2", True)),
    ],
)
def test_why_a_neighbourhood_does_not_do_is_said(model, hops, message):
    from sol_tasks import NodeClassification

    with pytest.raises(SolError, match=message):
        NodeClassification("task", model, graph_of(), hops)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("trained", ["table", "bias"])
def test_builds_without_a_new_head_differ_a_little_in_every_type(dtype, trained):
    model = Words("next").to(dtype)
    if trained == "bias":  # alone, and 0
        model.requires_grad_(False)
        model.bias = nn.Parameter(torch.zeros(4, dtype=dtype))
    task = FineTuning("task", model, frozenset(), dict.fromkeys(("train", "valid", "test"), ROWS), 5, 2)
    one, again, other = (next(iter(trainable(task.build(torch.Generator().manual_seed(s))))) for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=5 * torch.finfo(dtype).eps, atol=1e-4)


def test_new_layers_begin_as_their_kinds_do():
    model = Words("next")
    model.norm, model.head = nn.LayerNorm(4), nn.Linear(4, 2)
    model.requires_grad_(True)
    fresh = frozenset(name for name, _ in model.named_parameters() if "table" not in name)
    task = FineTuning("task", model, fresh, {"train": ROWS}, 5, 2)
    built = task.build(torch.Generator().manual_seed(0))
    assert (built.norm.weight == 1).all()
    assert (built.norm.bias == 0).all()
    assert 0 < built.head.weight.std() < 0.05
    with pytest.raises(SolError, match="fresh must name parameters of the model, got haed"):
        FineTuning("task", model, frozenset({"haed.weight"}), {"train": ROWS}, 5, 2)
    with pytest.raises(SolError, match="every parameter of the model is frozen; set requires_grad of some"):
        FineTuning("task", model.requires_grad_(False), frozenset(), {"train": ROWS}, 5, 2)


def test_metrics_of_tokens_are_refused():
    with pytest.raises(SolError, match="metrics take one label a row"):
        FineTuning("task", Words("next"), frozenset(), {"train": ROWS}, 5, metrics=lambda a, b: {})
