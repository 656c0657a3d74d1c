"""Fragments of emitted PyTorch files; the rest of their text is in the folder ``templates``."""

from __future__ import annotations

from string import Template

from sol_symbols.operators import TINY

CLOSURE = "Recomputes the loss and its gradients, and returns the loss."

CLOSURE_FOR_LOSS = "Returns the loss, which the formula uses; it may recompute it and its gradients."

CLOCK = """
    In schedules, as in t/T, t counts the optimizer's steps; elsewhere, a parameter's own, from its first gradient.
"""

INHERIT = [
    "if self.param_groups:  # the schedule goes on",
    '    param_group = {"clock": int(self.param_groups[0]["clock"]), **param_group}',
]

TICK = '''
def _tick(group):
    """Count a step of the schedule, the same for all parameters; warn at the first step after its end."""
    if group["capturable"]:
        device = next((p.device for p in group["params"]), None)
        group["clock"] = torch.as_tensor(group["clock"], dtype=torch.float32, device=device)
        group["clock"] += 1
        return
    group["clock"] = int(group["clock"]) + 1
    if group["schedule"] and group["horizon"] < group["clock"] <= group["horizon"] + 1:
        count = f"step {group['clock']} of {group['horizon']:g}"
        warnings.warn(f"the schedule has ended: {count}; give horizon in optimizer steps, not in epochs", stacklevel=4)
'''

FOREACH = "Join small tensors and split large ones into chunks of similar size. False: one tensor at a time."

FUSED = "Compile the formula at the first step: as C on the CPU, else by ``torch.compile``. This needs a compiler."

NATIVE = """
        rows = _native.advance(rows, numbers, group["maximize"])
        if not rows:
            return
""".lstrip("\n")

NATIVE_IMPORTS = ["concurrent.futures", "ctypes", "os", "shlex", "subprocess", "tempfile"]

FOREACH_OF_TENSORS = {
    True: "Compute the norms of all tensors at once. False: one tensor at a time.",
    False: "Changes nothing: the formula takes one tensor at a time.",
}

FUSED_OF_TENSORS = "Compile the formula at the first step, which takes up to a minute."

OF_ALL_GROUPS = " Needs to be true in all groups."

FOREACH_OF_ALL = ['foreach = all(group["foreach"] is not False for group in self.param_groups) and not differentiable']

FUSED_OF_ALL = [
    'sharded = any(hasattr(p, "to_local") for group in self.param_groups for p in group["params"])',
    'fused = all(group["fused"] for group in self.param_groups) and not sharded',
    "advance = _advance_fused if fused else _advance",
]

ASKS_NORMS = "    ``yield w, g`` asks for the norms of w and g."

ASKS_SUMS = "    ``yield g, (g, m)`` asks for the norm of g and for the sum of g*m."

ASKS_TOTALS = """
    ``yield [(g, m)]`` asks for the sum over all parameters.
""".rstrip("\n")

ADD_UP = """
        if isinstance(asked[0], list):
            parts = [torch.stack(row) for row in answers]
            dtype = max((x.dtype for x in parts), key=lambda kind: kind.itemsize)
            total = torch.stack([x.to(parts[0].device, dtype) for x in parts]).sum(0)
            answers = [total.to(x) for x in parts]
""".strip("\n")

CHUNKS = '''
def _chunks(running, size=2**20):
    """Yield formulas on parameters of about ``size`` elements together, which bounds the memory of a step."""
    chunk, count = [], 0
    for elements, code in running:
        if chunk and count + elements > size:
            yield chunk
            chunk, count = [], 0
        chunk.append(code)
        count += elements
    if chunk:
        yield chunk


'''.lstrip("\n")

ANSWERS = {
    "tensor": "x",
    "answers": """
        answers = torch._foreach_norm(asks) if foreach and asks else [torch.linalg.vector_norm(x) for x in asks]
""".strip("\n"),
    "sum": "(x * x).sum()",
    "answer": "[x.sqrt() for x in sums]",
}

ANSWERS_WITH_SUMS = {
    "tensor": "x[0] if isinstance(x, tuple) else x",
    "answers": """
        tensors = [x for x in asks if torch.is_tensor(x)]
        norms = torch._foreach_norm(tensors) if foreach and tensors else map(torch.linalg.vector_norm, tensors)
        norms = iter(norms)
        answers = [_sum(x) if isinstance(x, tuple) else next(norms) for x in asks]
""".strip("\n"),
    "sum": "_sum(x if isinstance(x, tuple) else (x, x))",
    "answer": "[x if isinstance(ask, tuple) else x.sqrt() for ask, x in zip(asks, sums)]",
}

SUM = '''

def _sum(factors):
    """Return the sum of the product of one or two tensors."""
    return (factors[0] * factors[1] if len(factors) > 1 else factors[0]).sum()
'''

FUSED_ROWS = Template(
    '''


def _advance_fused(rows, numbers, maximize):
    """Run the formula compiled; return the rows of DTensors, for which it is not."""
    numbers = _stacked(numbers, rows[0][0])
    for row in rows:
        if not hasattr(row[0], "to_local"):
            _compiled($function, row, numbers, maximize)
    return [row for row in rows if hasattr(row[0], "to_local")]
'''.rstrip("\n")
)

FUSED_TOTALS = '''


def _advance_fused(*arguments):
    """Run the formula on one parameter, compiled; yield its part of each list of sums over all parameters."""
    *row, numbers, maximize = arguments
    *first, last = _stages
    totals = []
    for stage in first:
        totals.append((yield [(x,) for x in _compiled(stage, row, numbers, maximize, totals)]))
    _compiled(last, row, numbers, maximize, totals)
'''.rstrip("\n")

ALONE = '''

def _advance_alone(*arguments):
    """Run the formula on one parameter."""
    code = _advance(*arguments)
    asked = _send(code, None)
    while asked is not None:
        asked = _send(code, *_answers([asked], foreach=False))

'''

TO_TOTAL = Template(
    '''

def _advance_to(*arguments):
    """Run the formula on one parameter, with those sums over all parameters that are known, in order, as last argument.

    Unless these are all, change nothing, and return this parameter's part of the next ones.
    """
    *arguments, totals = arguments
    known = len(totals)
    if known < $totals:
        arguments = [x.clone() if torch.is_tensor(x) else x for x in arguments]
    code, given = _advance(*arguments), 0
    asked = _send(code, None)
    while asked is not None:
        if isinstance(asked, list) and given < known:
            answer, given = totals[given], given + 1
        else:
            (answer,) = _answers([asked], foreach=False)
            if isinstance(asked, list):
                return answer
        asked = _send(code, answer)


# Each begins with the formula anew, with one more of the sums. One function would have too many kernels for PyTorch.
_stages = [
$stages
]

'''
)

IS = {"matrices": "p.dim() > 1", "vectors": "p.dim() < 2"}
"""Whether a tensor is of the kind."""

ORTH = {
    "count": "x.numel()",
    "dimensions": "x.dim()",
    "root": "x.numel() ** 0.5",
    "largest": f"torch.clamp(x.abs().amax(), min={TINY})",
    "norm": "torch.clamp(torch.linalg.vector_norm(x), min=1)",
    "matrix": "x.flatten(1)",
    "one": "torch.eye(matrix.shape[0], dtype=x.dtype, device=x.device)",
}
"""See :func:`~sol_export.source.helpers`."""

POLAR = '''


def _polar(x):
    """Return ``_orth`` of a tensor, in its own precision under autocast; of a DTensor, this process's part of it."""
    kind = x.device.type if torch.amp.is_autocast_available(x.device.type) else "cpu"
    with torch.autocast(kind, enabled=False):
        factor = _orth(x.full_tensor() if hasattr(x, "to_local") else x)
    if not hasattr(x, "to_local"):
        return factor
    from torch.distributed.tensor import DTensor, Replicate

    mesh = x.device_mesh
    return DTensor.from_local(factor, mesh, [Replicate()] * mesh.ndim).redistribute(placements=x.placements)
'''

OWN = {
    "orth": "_polar({x})",
    **{mask: f"{{x}} if {test} else torch.zeros_like({{x}})" for mask, test in IS.items()},
}

TOTALS = {
    "all_dot": ("{0}", ("({x}, {y})",)),
    "all_rms": (
        "torch.sqrt({0} / torch.clamp({1}, min=1))",
        ("({x}, {x})", "(torch.full((), {x}.numel(), dtype={x}.dtype, device={x}.device),)"),
    ),
    "gmean": (
        "torch.exp({0} / torch.clamp({1}, min=1)) * ({1} > 0)",
        ("(torch.log(torch.where({x} > 0, {x}, 1)),)", "(({x} > 0).to({x}.dtype),)"),
    ),
}
"""See :func:`~sol_export.source.reductions`; norms and other sums are yielded, and answered for all tensors at once."""
