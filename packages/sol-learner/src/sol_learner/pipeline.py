"""The full pipeline, from tasks to a rule: tune, meta-train, read out, fit the library, prune, polish, compare."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from importlib import metadata
from typing import Any

import cloudpickle
import numpy
import sympy
import torch

from sol_learner.comparing.comparison import Comparison
from sol_learner.comparing.protocol import compare
from sol_learner.config import LearnConfig
from sol_learner.inner.episodes import Optimizer, RuleOptimizer
from sol_learner.inner.rates import PRIORS
from sol_learner.inner.references import has_matrices, reference
from sol_learner.inner.side_by_side import obstacle, vectorizes
from sol_learner.inner.task_set import TaskSet
from sol_learner.meta_training import MetaTrainer, MetaTraining, network_generator
from sol_learner.mixture import TaskMixture, drawn_task
from sol_learner.networks.eql import SymbolicNetwork
from sol_learner.planning import Cost, Plan, measured_cost, planned
from sol_learner.runtime.checkpoints import Checkpoints
from sol_learner.runtime.clock import Clock, Interrupted
from sol_learner.runtime.progress import NullProgress, Phase, Progress, Timed
from sol_learner.runtime.ranks import Ranks
from sol_learner.runtime.workers import Constant, Workers, memory
from sol_learner.search.candidates import CandidateEvaluator
from sol_learner.search.front import FrontPoint, best_points, held, measured_front
from sol_learner.search.polishing import Polished, polish
from sol_learner.search.pruning import prune
from sol_learner.search.samples import Samples, record
from sol_learner.search.terms import fit_library, split
from sol_learner.search.validity import failures, losses_elsewhere
from sol_learner.starting import Start, StartFinder, Tuning, reference_of, starts_of
from sol_learner.task import Stream, Task, build_optimizee, calling, device_of, require_task, with_horizon
from sol_symbols import ZOO, SolError, UpdateRule, Vocabulary, feature_evaluator

__all__ = ["LearnResult", "Learner", "learn", "readout_error", "suitable_jobs"]

SEARCHES = (Phase.LIBRARY, Phase.POLISH, Phase.FRONT)
"""The phases that run a CMA-ES search."""

_COPIES = 5  # a training holds the size of its model so often: parameters, gradients, states, and a temporary


@dataclass
class LearnResult:
    """The result of a run. Parts that an interrupted run did not reach are ``None`` or empty.

    Attributes:
        rule: The learned rule, with its learning rate and horizon.
        readout: The network's complete formula.
        readout_error: Largest difference between network and formula on recorded states, relative to the largest phi.
        front: Rules of several lengths with their losses on the validation stream.
        comparisons: One per task: learned rule and tuned baselines on held-out seeds.
        summary: Configuration, versions, timings and all numbers; JSON-serializable.
    """

    rule: UpdateRule
    readout: UpdateRule
    readout_error: float
    front: list[FrontPoint]
    comparisons: list[Comparison]
    summary: dict[str, Any] = field(default_factory=dict)


def learn(
    *tasks: Task,
    budget: float | str | None = None,
    config: LearnConfig | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> UpdateRule:
    """Learn one update rule for one or several tasks.

    Args:
        tasks: Objects that satisfy :class:`~sol_learner.Task`.
        budget: Time for the run, in seconds or as text (``"5min"``), for which it is planned; unlimited by default.
        config: Settings; the defaults suit small tasks on a CPU.
        progress: Progress reporter, for example ``open_progress()``; silent by default.
        settings: Individual settings that override ``config``; see :class:`~sol_learner.LearnConfig`. ``effort``
            (quick, normal or thorough) and ``preset`` (default or paper) stand for several of them.

    Returns:
        The rule with its learning rate. ``rule.save(path)`` writes it; sol-export turns it into an optimizer.

    Raises:
        SolError: A setting is invalid, an argument is not a task, no learning rate trains it, or every window of
            meta-training diverged.
    """
    config = LearnConfig.from_mapping({"baselines": (), "evaluation_episodes": 1, **settings}, config)
    return Learner(tasks, config, progress=progress, clock=Clock(budget)).run().rule


def suitable_jobs(tasks: Sequence[Task], config: LearnConfig) -> int:
    """A good number of worker processes: on the CPU PyTorch's thread count, at most the population, otherwise 1.

    Trainings of small and middle size share cores better as processes than as threads of one. Tasks that cannot be
    pickled stay in this process, and so does the meta-training of models one after another. The data and a model with
    its states, in every process, get a quarter of the memory.
    """
    size = 1
    for task in tasks:
        mixed = isinstance(task, TaskMixture)
        if device_of(task).type != "cpu" or (config.episodes and not mixed and not vectorizes(task)):
            return 1
        try:
            size += len(cloudpickle.dumps(task))
        except Exception:  # third-party objects can raise anything
            return 1
        own = drawn_task(task, 0, Stream.TUNE, 0) if isinstance(task, TaskMixture) else task
        with calling(own, "build"):
            model = build_optimizee(own, 0, Stream.TUNE, 0)
        size += _COPIES * sum(parameter.nbytes for parameter in model.parameters())
    return max(1, min(torch.get_num_threads(), config.population, memory() // 4 // size))


class Learner:
    """A learning run: its phases, in order, and their shared state.

    Args:
        tasks: The tasks that the rule is learned for.
        config: Settings; the defaults suit small tasks on a CPU.
        checkpoints: Checkpoints to write and to resume from.
        progress: Progress reporter; silent by default.
        clock: Time limit. A cancelled or expired clock ends the current phase early; the best result so far is used.
        ranks: Processes that share meta-training and polishing.
        workers: Processes that share polishing.

    Raises:
        SolError: There is no task, two tasks have the same name, or an argument is not a task; or a feature, unit,
            direction or decay cannot be parsed.
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        tasks: Sequence[Task],
        config: LearnConfig | None = None,
        *,
        checkpoints: Checkpoints | None = None,
        progress: Progress | None = None,
        clock: Clock | None = None,
        ranks: Ranks | None = None,
        workers: Workers | None = None,
    ) -> None:
        for task in tasks:
            if isinstance(task, type):
                raise SolError(f"not a task: {task.__name__} is a class; pass an object, {task.__name__}(...)")
            require_task(drawn_task(task, 0, Stream.TRAIN, 0) if isinstance(task, TaskMixture) else task)
        names = [task.name for task in tasks]
        if not tasks:
            raise SolError("at least one task is required")
        if len({*names}) < len(names):
            raise SolError(f"task names must be unique, got {', '.join(names)}")
        self.given = self.config = config or LearnConfig()
        self.members = tuple(
            with_horizon(task, self.config.steps) if self.config.steps and not isinstance(task, TaskMixture) else task
            for task in tasks
        )
        self.tasks = tuple(task for task in self.members if not isinstance(task, TaskMixture))
        self.checkpoints, self.progress, self.clock = (
            checkpoints or Checkpoints(),
            progress or NullProgress(),
            clock or Clock(),
        )
        self.ranks, self.workers = ranks or Ranks(), workers or Workers()
        self.reference = reference_of(self.config)
        self.start = ZOO[{"auto": "adam", "prior": PRIORS[0]}.get(self.config.start, self.config.start)]
        self.timings = dict[str, float]()
        self._plan: Plan | None = None
        self.searches, self.less = list[dict[str, Any]](), list[str]()
        self._now = Phase.TUNE, 0.0
        self.checked, self.gave_start = 0, False
        self._constants = dict[str, Constant[Task]]()
        if self.config.episodes and _reduces(self.start.expression, self.start.vocabulary):
            raise SolError(
                f"cannot meta-train a network from {self.config.start}: it has values per tensor; set episodes to 0 or "
                f"start to an elementwise rule, such as adam"
            )
        if not _reduces(self.start.expression, self.start.vocabulary):
            self.network()
        for text in (*self.config.directions, *self.config.decays, *self.config.features):
            if _reduces(self.start.vocabulary.parse(text), self.start.vocabulary):
                raise SolError(f"cannot learn from {text}: it has values per tensor or per run; use elementwise terms")

    @torch.inference_mode(False)
    @torch.enable_grad()
    def run(self) -> LearnResult:
        """Run all phases.

        Raises:
            SolError: No learning rate trains one of the tasks, or every window diverges.
            Interrupted: The clock was cancelled before there was any result.
        """
        for task in self.tasks:
            fault = obstacle(task) if getattr(task, "vectorizable", True) else None
            if fault is not None:
                self.progress.note(f"training models of {task.name} one after another: {fault.reason}")
        self._follow(self.plan())
        shared = self.workers.constant(self.members)
        self._constants = {task.name: self.workers.constant(task) for task in self.tasks}
        alone = any(not vectorizes(task) for task in self.tasks)
        if alone:  # the processes tune, too
            self.workers.map(abs, [0] * self.workers.jobs)
        with self._phase(Phase.TUNE):
            begun = StartFinder(
                self.members,
                self.config,
                self._guarded,
                self.checkpoints,
                self.progress,
                self.clock,
                self.workers,
                shared,
            ).run()
        self.start, task_set, lr = begun.rule, begun.task_set, begun.lr
        self._follow(self._replanned(begun.trainings))
        config = self.config
        evaluator = self._candidate_evaluator(task_set, shared)
        if not alone:
            evaluator.start_workers(self.start, lr, -(-self.config.population // self.workers.jobs))
        start = replace(self.start, lr=lr).with_horizon(task_set.horizon or self.start.horizon or 100)
        if self.start.name in starts_of(self.members, config) or _reduces(self.start.expression, self.start.vocabulary):
            training, readout, error, wide = MetaTraining[Any](None), start, 0.0, start
        else:
            with self._phase(Phase.META_TRAIN):
                trainer = self.trainer(task_set, lr)
                training = trainer.train(self.checkpoints)
                if training.dropped and not training.windows:
                    raise SolError(training.advice)
            with self._phase(Phase.LIBRARY):
                readout, error, wide = self.fit_library(task_set, lr, trainer, evaluator)
        with self._phase(Phase.PRUNE):
            samples = self._record(wide, lr, evaluator)
            short = prune(wide, self._most_terms, samples, evaluator, config.prune_episodes, self.progress)
        with self._phase(Phase.POLISH):
            polished = self.polish(short[-1] if short else wide, samples, evaluator, config.generations, Phase.POLISH)
            polished = self.not_worse(polished, start, evaluator)
        with self._phase(Phase.CHECK):
            polished, valid = self.valid_choice(polished)
            trainings = self._trainings(training, begun, evaluator)
        self.gave_start = polished.rule == start
        if self.gave_start:
            self.progress.note("no better rule was found: giving the start")
        with self._phase(Phase.FRONT):
            front = self.front(polished.rule, short, samples, evaluator) if config.front else []
            if polished.rule not in [point.rule for point in front]:
                front = [FrontPoint(polished.rule, math.inf if polished.loss is None else polished.loss), *front]
        provenance = {
            "learned on": task_set.name,
            "start": self.start.name,
            "seed": config.seed,
            "sol": metadata.version("sol-learner"),
        }
        rule = replace(polished.rule, name=f"{self.members[0].name}-optimizer", provenance=provenance)
        result = LearnResult(rule, readout, error, front, [])
        with self._phase(Phase.COMPARE):
            result.comparisons = self.compare(rule, begun.tunings, sum(trainings.values()))
        self.checkpoints.save(force=True)
        result.summary = self._summary(result, training, polished, begun)
        result.summary |= {"valid": valid}
        result.summary |= {"gradient_rms": samples.gradient_rms, "kernel": training.kernel, "trainings": trainings}
        result.summary |= {"front_trainings": evaluator.trainings + self.checked - trainings["search"]}
        return result

    @contextmanager
    def _phase(self, phase: Phase) -> Iterator[None]:
        """Time a phase, which ends in time for those after it; tuning and comparing are never cut short."""
        budget, plan, start = self.clock.budget, self._plan, time.monotonic()
        if budget is None or plan is None or phase in (Phase.TUNE, Phase.COMPARE):
            self.clock.allow(math.inf)
        else:
            self.clock.allow(1 - plan.after(phase) / budget)
        self._now = phase, self.clock.elapsed
        yield
        self.timings[phase.value] = round(time.monotonic() - start, 3)

    # -- the plan --------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """The plan of the run; it times a few steps of a training."""

        def made() -> Any:
            tasks = [
                drawn_task(task, self.config.seed, Stream.TUNE, 0) if isinstance(task, TaskMixture) else task
                for task in self.members
            ]
            costs = [measured_cost(task, self.config.seed, self.workers.jobs) for task in tasks]
            names = ("fixed", "each", "plain")
            fixed, each, plain = (sum(getattr(cost, name) for cost in costs) / len(costs) for name in names)
            cost = Cost(fixed, each, min(cost.most for cost in costs), self.workers.jobs, plain=plain)
            if self._guarded:
                own = reference(0, Stream.TUNE, 0, max(task.horizon for task in self.tasks))
                one = measured_cost(own, self.config.seed, 1)
                cost = replace(cost, reference=one.seconds(1, 5), level=one.alone)
            return planned(self.config, len(self.members), cost, self.clock.budget, self._left).record()

        return Plan.from_record(self.checkpoints.once("plan", made), self.clock.budget)

    def _replanned(self, trainings: int) -> Plan:
        """The plan for what follows tuning, by how long its trainings took."""
        before = self._plan
        assert before is not None

        def made() -> Any:
            tuning, took = before.of(Phase.TUNE), self.timings[Phase.TUNE.value]
            factor = took / trainings * tuning.trainings / tuning.seconds if tuning.seconds else 1.0
            factor = min(max(factor, 0.1), 10.0)
            numbers = {name: factor * getattr(before.cost, name) for name in ("fixed", "each", "reference", "level")}
            cost = replace(before.cost, **numbers)
            sizes = (len(self.members), cost, self.clock.budget, self._left, tuning.trainings)
            return planned(self.config, *sizes).record()

        return Plan.from_record(self.checkpoints.once("plan/tuned", made), self.clock.budget)

    @property
    def _guarded(self) -> bool:
        """Whether rules must train the reference networks, too."""
        config = self.config
        return config.guard and not config.episodes and bool(config.priors) and self._networks

    @cached_property
    def _networks(self) -> bool:
        """Whether all tasks train networks."""
        return len(self.tasks) == len(self.members) and all(has_matrices(task) for task in self.tasks)

    @property
    def _most_terms(self) -> int:
        """Terms that the rule may have, with weight decay."""
        return self.config.max_terms + ("wd" in self.start.values)

    @property
    def _left(self) -> float | None:
        """Seconds that are left of the budget."""
        return None if self.clock.budget is None else self.clock.budget - self.clock.elapsed

    def _follow(self, plan: Plan) -> None:
        """Use a plan, and report it if it is the first or changes the settings."""
        if self._plan is None or plan.config != self.config:
            for line in plan.lines():
                self.progress.note(line)
        if self._plan is None:
            self.progress = Timed(self.progress, self._seconds_left)
        self._plan, self.config = plan, plan.config
        self.less += [what for what in plan.less if what not in self.less]

    def _seconds_left(self) -> float:
        """Seconds until the end, by the plan."""
        phase, begun = self._now
        if self._plan is None:
            return 0.0
        return self._plan.after(phase) + max(0.0, self._plan.of(phase).seconds - (self.clock.elapsed - begun))

    # -- phases ----------------------------------------------------------------------------------------------

    def trainer(self, task_set: TaskSet, lr: float) -> MetaTrainer[SymbolicNetwork]:
        """The meta-trainer of a fresh network on the tasks' device."""
        network = self.network().to(device_of(self.tasks[0]))
        return MetaTrainer(task_set, network, lr, self.config, self.progress, self.clock, self.ranks)

    def network(self) -> SymbolicNetwork:
        """A fresh network."""
        config, generator = self.config, network_generator(self.config.seed)
        return SymbolicNetwork(self.start, config.features, config.units, gates=config.gates, generator=generator)

    def _candidate_evaluator(self, task_set: TaskSet, shared: Constant[tuple[Task, ...]]) -> CandidateEvaluator:
        """The evaluator of rules, starting at the first training episode that meta-training does not use."""
        spent = self.config.episodes * self.config.meta_batch * self.ranks.size
        return CandidateEvaluator(
            task_set,
            self.config.seed,
            spent,
            self.config.validation_episodes,
            self.clock,
            self.checkpoints,
            self.ranks,
            self.workers,
            shared,
        )

    def _record(self, optimizer: Optimizer | UpdateRule, lr: float, evaluator: CandidateEvaluator) -> Samples:
        """Record the states that ``optimizer`` sees and, if it is a rule with values per tensor, its terms."""
        config, vocabulary = self.config, self.start.vocabulary
        defaults = {name: h.default for name, h in vocabulary.hyperparameters.items() if h.default is not None}
        values = {**defaults, **{name: v for name, v in self.start.values.items() if v is not None}}
        episodes = evaluator.fresh(config.record_episodes)
        terms: list[sympy.Expr] = []
        if isinstance(optimizer, UpdateRule):
            values |= {name: v for name, v in optimizer.values.items() if v is not None}
            terms = split(optimizer)[0] if _reduces(optimizer.expression, vocabulary) else []
            optimizer = RuleOptimizer(optimizer)
        sizes = (config.seed, episodes, config.record_coordinates)
        return record(evaluator.task_set, optimizer, lr, values, vocabulary, *sizes, terms=terms)

    def fit_library(
        self, task_set: TaskSet, lr: float, trainer: MetaTrainer[SymbolicNetwork], evaluator: CandidateEvaluator
    ) -> tuple[UpdateRule, float, UpdateRule]:
        """The readout, its error, and the best rule over the library, searched from the readout."""
        config = self.config
        readout = trainer.network.rule(lr, task_set.horizon)
        samples = self._record(trainer.estimator.optimizer, lr, evaluator)
        error = readout_error(trainer.network, readout, samples)
        wide = fit_library(readout, samples, config.directions, config.decays, config.own_terms, config.scale_free)
        if task_set.horizon is not None:  # a readout without a schedule has no horizon
            wide = wide.with_horizon(task_set.horizon)
        return readout, error, self.polish(wide, samples, evaluator, config.library_generations, Phase.LIBRARY).rule

    def polish(
        self, rule: UpdateRule, samples: Samples, evaluator: CandidateEvaluator, generations: int, phase: Phase
    ) -> Polished:
        """Improve the constants of the rule; ``phase`` is one of :data:`SEARCHES`."""
        config = self.config
        settings: dict[str, Any] = {
            "population": config.population,
            "episodes": config.polish_episodes,
            "sigma": config.sigma,
            "descent_steps": config.descent_steps if phase == Phase.POLISH else 0,
            "constants": config.constants,
            "shapes": len(self.members) > 1,
            "seed": len(SEARCHES) * config.seed + SEARCHES.index(phase),
        }
        reserve = 0.0 if self._plan is None or self.clock.budget is None else self._plan.validation
        polished = polish(
            rule,
            samples,
            evaluator,
            generations=generations,
            phase=phase,
            progress=self.progress,
            reserve=reserve,
            **settings,
        )
        done = {"generations": len(polished.history), "evaluations": len(polished.history) * config.population}
        self.searches.append({"of": phase.value, "terms": len(split(rule)[0]), **settings, **done})
        return polished

    def not_worse(self, polished: Polished, start: UpdateRule, evaluator: CandidateEvaluator) -> Polished:
        """The result, or the run's start if that is better on the validation stream and not too long."""
        if polished.start == start and polished.others:
            return polished  # they were compared
        try:
            with self.clock.reserving(-math.inf):
                before, after = evaluator.validated([start, polished.rule])
        except Interrupted:
            self.progress.note("stopped before the rule was compared with its start")
            return polished
        if after <= before:
            return polished
        self.progress.note(
            f"the rule is worse than its start on the validation stream: {after:.4g}, start {before:.4g}"
        )
        if start.complexity.terms > self._most_terms:
            self.progress.note(f"the start has {start.complexity.terms} terms, more than max_terms: keeping the rule")
            return polished
        return replace(polished, rule=start, loss=before, others=((start, before),), start=start)

    def _elsewhere(self, key: str, rules: Sequence[UpdateRule]) -> dict[str, list[float]]:
        """Loss of each rule on each variant of each task, by description.

        Raises:
            Interrupted: By the clock.
        """
        config, table = self.config, dict[str, list[float]]()
        for task in self.tasks if rules and config.check_episodes else ():
            self.clock.check()
            kinds = self._guarded, config.check == "rate"
            sizes = (config.seed, config.check_episodes, config.objective, self.workers, self.clock, *kinds)
            measure = partial(losses_elsewhere, rules, self._constants[task.name], *sizes)
            losses = self.checkpoints.once(f"{key}/{task.name}", measure)
            self.checked += len(losses) * len(rules) * config.check_episodes
            table |= {f"{task.name}: {variant}": row for variant, row in losses.items()}
        return table

    def valid_choice(self, polished: Polished) -> tuple[Polished, dict[str, dict[str, float]]]:
        """The best of the search's rules that fails on the fewest variants of the task, and what it was measured by.

        Returns:
            The choice, and for each task and variant the mean objective of ``start`` and of ``learned``.
        """
        rules = polished.contenders
        try:
            table = self._elsewhere("valid", rules)
        except Interrupted:
            self.progress.note("skipped the check of the rule on variants of the task")
            return polished, {}
        if not table:
            return polished, {}
        failed = [failures(table, number) for number in range(len(rules))]
        chosen = min(range(len(rules)), key=lambda number: len(failed[number]))
        if chosen:
            self.progress.note(f"refused {chosen} rules that fail on variants of the task: {', '.join(failed[0])}")
        if failed[chosen]:
            self.progress.note(f"the rule fails on variants of the task: {', '.join(failed[chosen])}")
        rule, loss = polished.others[chosen]
        start = rules.index(polished.start) if polished.start in rules else chosen
        shown = {what: {"start": row[start], "learned": row[chosen]} for what, row in table.items()}
        return replace(polished, rule=rule, loss=loss), shown

    def front(
        self, rule: UpdateRule, longer: Sequence[UpdateRule], samples: Samples, evaluator: CandidateEvaluator
    ) -> list[FrontPoint]:
        """The rule, the longer rules that it was pruned from, and shorter rules that it is pruned to.

        At three quarters of its terms, the rule is polished again; pruning continues from the result.
        """
        config, shorter = self.config, [rule]
        kept = (rule.complexity.terms * 3 + 3) // 4
        shorter += prune(rule, kept, samples, evaluator, config.polish_episodes, self.progress, Phase.FRONT)
        if config.front_generations and len(shorter) > 1:
            polished = self.polish(shorter[-1], samples, evaluator, config.front_generations, Phase.FRONT).rule
            shorter += [polished] if polished != shorter[-1] else []
        shorter += prune(shorter[-1], 1, samples, evaluator, config.polish_episodes, self.progress, Phase.FRONT)
        points = measured_front([*longer[:-1], *shorter], evaluator, self.progress)
        best = best_points(points)
        try:
            return held(points, best, self._elsewhere("front", [point.rule for point in best]))
        except Interrupted:
            return points

    def compare(
        self, rule: UpdateRule, tunings: dict[str, tuple[float, Tuning]], trainings: int = 0
    ) -> list[Comparison]:
        """Compare the learned rule with tuned baselines on held-out seeds of each task, time permitting.

        Args:
            rule: The learned rule.
            tunings: What :meth:`tune` returned.
            trainings: Trainings that the rule cost.
        """
        config, comparisons = self.config, []
        reference = f"{self.reference.name}-constant"
        rules = {"learned": rule, **{name: ZOO[name] for name in config.baselines}}
        rules |= {reference: self.reference} if config.baselines and tunings else {}
        each = config.baseline_trainings or max(1, trainings // max(1, len(config.baselines)))
        try:
            for task in self.tasks:
                rate, measured = tunings.get(task.name, (math.nan, []))
                comparison = compare(
                    self._constants.get(task.name, task),
                    rules,
                    seed=config.seed,
                    episodes=config.evaluation_episodes,
                    trainings=each,
                    objective=config.objective,
                    tuned={reference: (rate, measured)} if measured else {},
                    references=[reference] if config.baselines and measured else [],
                    spent={"learned": trainings, reference: len(measured) * config.tuning_episodes},
                    threads=torch.get_num_threads(),
                    workers=self.workers,
                    progress=self.progress,
                    clock=self.clock,
                    checkpoints=self.checkpoints,
                )
                comparisons.append(comparison)
        except Interrupted:
            self.progress.note("skipped the comparison with the baselines")
        finally:
            self.workers.close()
        return comparisons

    # -- the record ------------------------------------------------------------------------------------------

    def _trainings(
        self, training: MetaTraining[SymbolicNetwork], begun: Start, evaluator: CandidateEvaluator
    ) -> dict[str, int]:
        """Trainings that each part of the learner spent on the rule, whole or in windows, without the front."""
        config, several = self.config, len(self.tasks)
        episodes = max((int(record["episode"]) for record in training.history), default=0)
        validations = sum("loss" in record for record in training.history)
        per_episode = config.meta_batch * self.ranks.size
        return {
            "tuning": begun.trainings,
            "meta-training": episodes * per_episode + validations * config.validation_episodes * several,
            "recording": 2 * config.record_episodes * several,
            "search": evaluator.trainings + self.checked,
        }

    def _summary(
        self,
        result: LearnResult,
        training: MetaTraining[SymbolicNetwork],
        polished: Polished,
        begun: Start,
    ) -> dict[str, Any]:
        modules = {"torch": torch.__version__, "sympy": sympy.__version__, "numpy": numpy.__version__}
        return {
            "tasks": [task.name for task in self.members],
            "horizon": [getattr(task, "horizon", None) for task in self.members],
            "config": asdict(self.given),
            "plan": None if self._plan is None else self._plan.record() | {"less": self.less},
            "gave_start": self.gave_start,
            "rule": str(result.rule),
            "digest": result.rule.digest,
            "complexity": asdict(result.rule.complexity),
            "interrupted": self.clock.cancelled,
            "budget": self.clock.budget,
            "tuning": {
                "rule": self.start.name,
                "lr": begun.lr,
                "starts": begun.objectives,
                "tasks": {name: {"lr": rate, "measured": table} for name, (rate, table) in begun.tunings.items()},
            },
            "meta_training": {
                "loss": training.loss,
                "history": training.history,
                "windows": training.windows,
                "dropped": training.dropped,
                "divergences": training.divergences,
            },
            "readout": {"terms": result.readout.complexity.terms, "error": result.readout_error},
            "front": [{"terms": p.terms, "loss": p.loss, "rule": str(p.rule)} for p in result.front],
            "searches": self.searches,
            "polish": {"generations": len(polished.history), "loss": polished.loss, "history": polished.history},
            "verdicts": {c.task: verdict.line for c in result.comparisons if (verdict := c.verdict()) is not None},
            "comparison": [comparison.record() for comparison in result.comparisons],
            "seconds": self.timings,
            "versions": {"sol": metadata.version("sol-learner"), "python": platform.python_version(), **modules},
            "threads": torch.get_num_threads(),
            "ranks": self.ranks.size,
            "jobs": self.workers.jobs,
            "machine": platform.machine(),
        }


def _reduces(expression: sympy.Expr, vocabulary: Vocabulary) -> bool:
    """Whether an expression has values per tensor or per run."""
    return feature_evaluator((expression,), vocabulary, torch).program.reduces


@torch.no_grad()
def readout_error(network: SymbolicNetwork, rule: UpdateRule, samples: Samples) -> float:
    """Largest |network - rule| over the samples, relative to the largest |network|; both in float64."""
    parameters = {name: value.double() for name, value in network.named_parameters()}
    phi = torch.func.functional_call(network, parameters, (samples.evaluate(network.features),))
    (formula,) = samples.evaluate([rule.expression])
    return float((phi - formula).abs().max() / phi.abs().max())
