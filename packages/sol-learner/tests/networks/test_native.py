"""The compiled C kernel: the same phi, states and meta-gradients as eager tensors, on every operator."""

import dataclasses
import math
import pickle
import shutil
import tempfile

import cloudpickle
import pytest
import torch

from sol_learner import LearnConfig, Learner
from sol_learner.estimators import ESTIMATORS
from sol_learner.inner.optimizees import Optimizees
from sol_learner.inner.task_set import TaskSet
from sol_learner.meta_training import kernel_for
from sol_learner.networks import NetworkOptimizer, SymbolicNetwork, native
from sol_learner.networks.fused import fused_kernel
from sol_learner.runtime.checkpoints import Checkpoints
from sol_learner.runtime.progress import NullProgress
from sol_learner.task import Stream
from sol_symbols import OPERATORS, ZOO, UpdateRule, c_compiler

pytestmark = pytest.mark.skipif(c_compiler.find_compiler() is None, reason="no C compiler")

SMALL = LearnConfig(
    episodes=4, meta_batch=2, tuning_episodes=1, validation_episodes=2, record_episodes=1, library_generations=0,
    generations=0, prune_episodes=1, max_terms=4, front=False, evaluation_episodes=1, baselines=(), unroll=(4,),
)  # fmt: skip


@pytest.fixture
def compiled_anew():
    """Nothing is known of what compilers have made in other tests, nor afterwards of this one's."""
    native._compiled.cache_clear()
    yield
    native._compiled.cache_clear()


def network_of(units, features=("1", "abs(g)", "sqrt(v_hat)", "ld", "2*cd"), start="adam", gates=False, seed=0):
    """All weights positive, so that with positive features every operator is within its domain."""
    generator = torch.Generator().manual_seed(seed)
    network = SymbolicNetwork(ZOO[start], features, units, gates, scale=0.2, generator=generator)
    with torch.no_grad():
        for weight in network.hidden:
            weight.abs_().add_(0.05)
        network.hidden[0][:, network.features.index(ZOO[start].expression)] = 0  # the start's direction has a sign
        network.readout.normal_(generator=generator)
    network.sample_gates(generator)
    return network


def both(network, gradients, thetas, first=1):
    """phi of all steps, last states and the meta-gradient of a window, by either kernel."""
    results = []
    cotangents = torch.randn(gradients.shape, generator=torch.Generator().manual_seed(9), dtype=gradients.dtype)
    for kernel in ("eager", "compiled"):
        optimizer = NetworkOptimizer(network, kernel)
        assert (optimizer._native is not None) == (kernel == "compiled")
        state = optimizer.begin(thetas[0], 40)
        phis = []
        for t, (g, w) in enumerate(zip(gradients, thetas), first):
            phi, state = optimizer.step(g, state, w, t)
            phis.append(phi)
        begun = optimizer.begin(thetas[0], 40)
        pulled = optimizer.vjp(list(gradients), list(thetas), begun, first, cotangents)
        results.append((torch.stack(phis), state, pulled))
    return results


def assert_same(eager, compiled, **tolerance):
    torch.testing.assert_close(compiled[0], eager[0], **tolerance)
    torch.testing.assert_close(compiled[1], eager[1], **tolerance)
    for part, reference in zip(compiled[2], eager[2], strict=True):
        scale = reference.abs().max()
        torch.testing.assert_close(part / scale, reference / scale, **tolerance)


def window(steps=5, shape=(2, 3, 77), dtype=torch.float64, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [0.3 * torch.randn(steps, *shape, generator=generator, dtype=dtype) for _ in range(2)]


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_has_its_value_and_derivative(name):
    network = network_of((("identity", name, name), ("mul", "identity")))
    assert_same(*both(network.double(), *window()), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("gates", [False, True])
@pytest.mark.parametrize("start", ["adam", "lion", "powersign-ld", "sgd"])
def test_the_default_network_from_any_start(start, gates):
    network = SymbolicNetwork(ZOO[start], gates=gates, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        network.readout.normal_(generator=torch.Generator().manual_seed(1))
    network.sample_gates(torch.Generator().manual_seed(2))
    gradients, thetas = window()
    assert_same(*both(network, 0.1 * gradients, thetas, first=7), rtol=1e-9, atol=1e-11)


def test_features_of_the_parameters_and_none_of_states():
    gradients, thetas = window()
    network = network_of((("identity", "mul"),), ("g", "w", "g*w"), start="sgd").double()
    assert_same(*both(network, gradients, thetas), rtol=1e-9, atol=1e-11)
    assert NetworkOptimizer(network, "compiled").begin(thetas[0], 10) == {}


@pytest.mark.parametrize("size", [1, 7, 128, 129, 1000])
def test_neither_size_nor_threads_matter(monkeypatch, size):
    monkeypatch.setattr(native, "_SHARE", 256)
    network, (gradients, thetas) = network_of((("identity", "exp", "mul"),)), window(shape=(size,), dtype=torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            eager, compiled = both(network, gradients, thetas)
            assert_same(eager, compiled, rtol=1e-4, atol=1e-5)
            results.append(compiled)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*(phi for phi, _, _ in results), rtol=0, atol=0)
    torch.testing.assert_close(*(pulled for _, _, pulled in results), rtol=0, atol=0)


def test_what_is_not_finite_stays_so_where_it_was():
    network, (gradients, thetas) = network_of((("identity", "exp", "min", "sign"),)), window(dtype=torch.float32)
    gradients[2, 0, 0, :3] = torch.tensor([math.nan, math.inf, 1e30])
    eager, compiled = both(network, gradients, thetas)
    for value, reference in [(compiled[0], eager[0]), *zip(compiled[1].values(), eager[1].values())]:
        finite = torch.isfinite(reference)
        assert not finite.all()
        torch.testing.assert_close(torch.isfinite(value), finite)
        torch.testing.assert_close(value[finite], reference[finite])


def test_states_are_overwritten_where_they_lie_and_their_values_are_the_same():
    network, (gradients, thetas) = network_of((("identity", "mul"),)), window(dtype=torch.float32)
    optimizer = NetworkOptimizer(network, "compiled")
    state = optimizer.begin(thetas[0], 10)
    apart = {name: value.clone().transpose(0, 1).contiguous().transpose(0, 1) for name, value in state.items()}
    (phi, after), (other, elsewhere) = (optimizer.step(gradients[0], s, thetas[0], 1) for s in (state, apart))
    assert all(after[name].data_ptr() == state[name].data_ptr() for name in state)
    torch.testing.assert_close((phi, after), (other, elsewhere), rtol=0, atol=0)


def test_coordinates_that_it_cannot_compute_with_are_left_to_eager_tensors():
    network = network_of((("identity", "mul"),))
    optimizer = NetworkOptimizer(network, "compiled")
    assert not optimizer._native.fits(torch.zeros(3, dtype=torch.bfloat16))
    assert not optimizer._native.fits(torch.zeros(3, device="meta"))
    doubles = torch.full((4,), 0.1, dtype=torch.float64)  # of a float32 network
    phi, _ = optimizer.step(doubles, optimizer.begin(doubles, 10), doubles, 1)
    assert phi.dtype == torch.float64


def test_without_functions_of_whole_vectors_it_is_only_slower(monkeypatch, compiled_anew):
    network, (gradients, thetas) = network_of((("identity", "exp", "cos"),)), window(dtype=torch.float32)
    with_them = both(network, gradients, thetas)[1]
    monkeypatch.setattr(c_compiler, "_ATTEMPTS", (("--no-such-flag",), ()))
    native._compiled.cache_clear()
    assert_same(with_them, both(network, gradients, thetas)[1], rtol=1e-4, atol=1e-5)


@pytest.fixture(params=["no compiler", "failing compiler", "odd command", "no folder for it"])
def reason(request, monkeypatch, tmp_path, compiled_anew):
    """Takes the compiler away; what a user is told."""
    if request.param == "no folder for it":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
        return "No such file or directory"
    command, told = {
        "no compiler": ("no-such-compiler", "no C compiler"),
        "failing compiler": ("false", "false failed: status 1"),
        "odd command": ("cc '-DX", "no C compiler"),
    }[request.param]
    if command == "false" and shutil.which(command) is None:
        pytest.skip("no program false")
    monkeypatch.setenv("CC", command)
    return told


def test_without_a_compiler_eager_tensors_are_used(reason):
    network, gradients = network_of((("identity", "mul"),)), torch.randn(3, 2, 33)
    with pytest.warns(UserWarning, match=f"cannot compile the kernel, using eager tensors: .*{reason}"):
        optimizer = NetworkOptimizer(network, "compiled")
    assert optimizer.kernel == "eager"
    state = optimizer.begin(gradients[0], 10)
    reference = NetworkOptimizer(network)
    torch.testing.assert_close(
        optimizer.step(gradients[0], state, gradients[0], 1)[0],
        reference.step(gradients[0], reference.begin(gradients[0], 10), gradients[0], 1)[0],
    )


FAILED = 1, "In file included from a.c:\ntwo of its lines: an error\n"


def test_a_compiler_that_fails_is_tried_once_a_process(monkeypatch, compiled_anew):
    calls = []
    monkeypatch.setattr(c_compiler, "_ATTEMPTS", ((),))
    monkeypatch.setattr(c_compiler, "_run", lambda run: calls.append(run) or FAILED)
    with pytest.warns(UserWarning, match="two of its lines: an error"):
        ESTIMATORS["pes"](network_of((("identity",),)), torch.Generator(), kernel="compiled", particles=3)
    assert len(calls) == 1


def test_a_network_of_a_precision_that_c_has_no_name_for_stays_eager():
    network = network_of((("identity", "mul"),)).bfloat16()
    with pytest.warns(UserWarning, match="no code for torch.bfloat16"):
        optimizer = NetworkOptimizer(network, "compiled")
    g = torch.ones(5, dtype=torch.bfloat16)
    assert torch.isfinite(optimizer.step(g, optimizer.begin(g, 10), g, 1)[0]).all()


def test_tensors_that_do_not_belong_together_are_not_read_by_address():
    network = network_of((("identity", "mul"),))
    optimizer = NetworkOptimizer(network, "compiled")
    g = torch.full((4,), 0.1)
    state = optimizer.begin(g, 10)
    phi, _ = optimizer.step(g.double(), optimizer.begin(g, 10), g, 1)
    torch.testing.assert_close(phi.float(), optimizer.step(g, optimizer.begin(g, 10), g, 1)[0])
    with pytest.raises(RuntimeError):
        optimizer.step(torch.ones(400_000), state, torch.ones(400_000), 1)
    with pytest.raises(RuntimeError):
        optimizer.vjp([torch.ones(400_000)], [torch.ones(400_000)], state, 1, torch.ones(1, 400_000))


def test_another_process_can_be_sent_a_network_at_work():
    network, g = network_of((("identity", "mul"),)), torch.full((4,), 0.1)
    optimizer = NetworkOptimizer(network, "compiled")
    phi, _ = optimizer.step(g, optimizer.begin(g, 10), g, 1)
    sent = pickle.loads(cloudpickle.dumps(optimizer))
    assert sent.kernel == "compiled"
    torch.testing.assert_close(sent.step(g, sent.begin(g, 10), g, 1)[0], phi, rtol=0, atol=0)


@pytest.mark.parametrize("kernel", ["eager", "compiled"])
@pytest.mark.parametrize("losses", ["parameters and losses", "losses"])
def test_tasks_in_double_precision(make_task, kernel, losses):
    task, reference = make_task(), make_task()
    if losses == "losses":  # as targets from NumPy make them
        task.loss = lambda model, batch: ((model(batch[0]) - batch[1].double()) ** 2).mean()
    else:
        task = make_task(dtype=torch.float64)
    windows = []
    for each in (task, reference):
        network = SymbolicNetwork(ZOO["adam"], generator=torch.Generator().manual_seed(0))
        made = ESTIMATORS["first-order"](network, torch.Generator().manual_seed(1), kernel=kernel)
        made.begin(Optimizees(each, 0, Stream.TRAIN, range(3)), 1e-2, 12)
        windows.append(made.window(5))
    for part, expected in zip(*(w.meta_gradient for w in windows), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))
    result = Learner([task], dataclasses.replace(SMALL, kernel=kernel)).run()
    assert result.summary["kernel"] == kernel
    assert result.summary["meta_training"]["windows"] == 12


def test_the_summary_names_the_kernel_that_was_at_work(monkeypatch, task, compiled_anew):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.warns(UserWarning, match="cannot compile the kernel"):
        result = Learner([task], dataclasses.replace(SMALL, kernel="compiled")).run()
    assert result.summary["kernel"] == "eager"


class Stopping(NullProgress):
    """Stops meta-training after two episodes, and keeps notes."""

    def __init__(self, stop):
        self.stop, self.notes, self.name = stop, [], ""

    def phase(self, phase, title, count):
        self.name = title

    def step(self, done, **numbers):
        if self.stop and self.name == "meta-training" and done == 2:
            raise SystemExit

    def note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize("compiler_gone", [False, True])
def test_a_run_that_goes_on_by_the_other_kernel_says_so(monkeypatch, task, tmp_path, compiled_anew, compiler_gone):
    monkeypatch.setattr("sol_learner.meta_training._COMPILE_FROM", 1)
    with pytest.raises(SystemExit):
        Learner([task], SMALL, checkpoints=Checkpoints(tmp_path, {}, interval=0), progress=Stopping(True)).run()
    if compiler_gone:
        monkeypatch.setenv("CC", "no-such-compiler")
    shown = Stopping(False)
    Learner([task], SMALL, checkpoints=Checkpoints(tmp_path, {}, resume=True, interval=0), progress=shown).run()
    told = "meta-training began with the compiled kernel and resumes with the eager one"
    assert any(note.startswith(told) for note in shown.notes) == compiler_gone


def test_a_network_is_compiled_once_a_process(compiled_anew):
    for seed in range(3):
        NetworkOptimizer(network_of((("identity", "mul"),), seed=seed), "compiled")
    assert native._compiled.cache_info().misses == 1


def test_auto_asks_for_much_work_and_a_compiler(monkeypatch, task):
    family = TaskSet((task,), (1.0,), 1.0)
    assert kernel_for(LearnConfig(), family) == "eager"
    assert kernel_for(LearnConfig(kernel="compiled"), family) == "compiled"
    assert kernel_for(LearnConfig(episodes=10**6), family) == "compiled"
    assert kernel_for(LearnConfig(episodes=12, estimator="pes", particles=10**5), family) == "compiled"
    assert kernel_for(LearnConfig(episodes=12, horizons=(10, 10**6)), family) == "compiled"
    monkeypatch.setenv("CC", "no-such-compiler")
    assert kernel_for(LearnConfig(episodes=10**6), family) == "eager"


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_estimators_give_the_same_windows_by_either_kernel(estimator, task):
    windows = []
    for kernel in ("eager", "compiled"):
        network = SymbolicNetwork(ZOO["adam"], generator=torch.Generator().manual_seed(0))
        few = {"particles": 2} if estimator == "pes" else {}
        made = ESTIMATORS[estimator](network, torch.Generator().manual_seed(1), kernel=kernel, **few)
        optimizees = Optimizees(task, 0, Stream.TRAIN, range(3), made.num_replicas)
        made.begin(optimizees, 1e-2, task.horizon)
        windows.append([made.window(5) for _ in range(2)][-1])
    eager, compiled = windows
    torch.testing.assert_close(compiled.losses, eager.losses, rtol=1e-4, atol=1e-5)
    for part, reference in zip(compiled.meta_gradient, eager.meta_gradient, strict=True):
        torch.testing.assert_close(part, reference, rtol=1e-2, atol=1e-3 * float(reference.abs().max()))


@pytest.mark.parametrize("gates", [False, True])
def test_the_kernel_of_other_devices_equals_eager_tensors(gates):
    network = network_of((("identity", "mul"), ("exp", "identity")), ("1", "g", "ld", "m_hat"), gates=gates)
    gradients = window(dtype=torch.float32)[0]
    optimizer, reference = NetworkOptimizer(network), NetworkOptimizer(network)
    optimizer._fused = fused_kernel(network, optimizer.features)
    state, expected = optimizer.begin(gradients[0], 10), reference.begin(gradients[0], 10)
    for t, g in enumerate(gradients, 1):
        phi, state = optimizer.step(g, state, g, t)
        value, expected = reference.step(g, expected, g, t)
        torch.testing.assert_close(phi, value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, expected)


def test_where_pytorchs_compiler_fails_eager_tensors_are_used(monkeypatch):
    def failing(*arguments):
        raise torch._dynamo.exc.BackendCompilerFailed(failing, RuntimeError("no g++"), None)

    monkeypatch.setattr(torch, "compile", lambda function, **options: failing)
    network, g = network_of((("identity", "mul"),)), torch.randn(33)
    optimizer, reference = NetworkOptimizer(network), NetworkOptimizer(network)
    optimizer._fused = fused_kernel(network, optimizer.features)
    with pytest.warns(UserWarning, match="cannot compile the fused kernel"):
        phi, state = optimizer.step(g, optimizer.begin(g, 10), g, 1)
    optimizer.step(g, state, g, 2)  # no second warning, which would be an error
    torch.testing.assert_close(phi, reference.step(g, reference.begin(g, 10), g, 1)[0])


def test_a_hyperparameter_of_an_odd_name_does_not_meet_names_of_the_code():
    rule = UpdateRule.parse("x1*g + m*s0 where x1 = 0.5, s0 = 2, lr = 0.1")
    network = SymbolicNetwork(rule, ("g",), (("identity", "mul"),), generator=torch.Generator().manual_seed(0)).double()
    assert_same(*both(network, *window()), rtol=1e-9, atol=1e-11)
