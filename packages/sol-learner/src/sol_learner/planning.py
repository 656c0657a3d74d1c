"""The plan of a run: trainings and seconds of each phase, from a few timed steps, and what fits into a budget.

Trainings side by side share a part of their cost: w of them take ``fixed + w each`` seconds. Both numbers are measured
before the run, and corrected by what tuning took. If the plan exceeds the budget, the run leaves out its least useful
parts, in the order of :data:`LESS`, and shortens the search. The baselines get as many trainings as the learner spends,
so that a shorter search makes the comparison shorter, too.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from sol_learner.config import LearnConfig
from sol_learner.inner.episodes import OBJECTIVE_SPLITS, RuleOptimizer, run_episodes
from sol_learner.inner.full_gradient import GRADIENT_COST
from sol_learner.inner.rates import nearby_rates
from sol_learner.inner.references import CHOOSING, REFERENCES
from sol_learner.inner.side_by_side import vectorizes
from sol_learner.runtime.progress import Phase
from sol_learner.task import Stream, Task
from sol_symbols import ZOO, UpdateRule

__all__ = ["LESS", "Cost", "Plan", "Stage", "measured_cost", "planned"]

LESS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("", {}),
    ("polishing on the front", {"front_generations": 0}),
    ("the front", {"front": False}),
    (
        "half of the episodes",
        {"tuning_episodes": 2, "validation_episodes": 4, "check_episodes": 1, "evaluation_episodes": 5},
    ),
    ("half of the candidates", {"population": 8, "polish_episodes": 1, "prune_episodes": 2, "record_episodes": 2}),
    ("tuning Adam", {"start": "prior", "tuning_episodes": 1}),
    ("more episodes", {"validation_episodes": 2, "evaluation_episodes": 3, "record_episodes": 1, "prune_episodes": 1}),
    ("the check on variants, but for the rate", {"check": "rate", "check_episodes": 3}),
    ("the reference networks", {"guard": False}),
    (
        "the check of the rate, the comparison with baselines",
        {"check_episodes": 0, "baselines": (), "validation_episodes": 1, "evaluation_episodes": 1},
    ),
)
"""What a run leaves out that does not fit, first of all the least useful part, and the settings that say so."""

ENOUGH = 4
"""Generations of a search that is worth more than what would have to be left out for it, but for the comparison."""

_WIDTH = 8  # trainings side by side in the second measurement
_LEAST_SECONDS = 0.5  # of a measurement
_STARTING, _WRITING = 4.0, 4.0  # seconds to start processes, and to write the files of a run
_VARIANTS = 13
_VARIANT = 1.3  # cost of a training on a variant, on average
_META = 3.0  # cost of a step of meta-training
_VALIDATED = 6  # rules that a search validates
_DECAYED = 6  # starts with weight decay: two kinds at two rates, and more where it helps, up to 20


@dataclass(frozen=True)
class Cost:
    """Seconds of trainings: w side by side take ``fixed + w each``.

    Attributes:
        fixed, each: As above, on one process.
        most: Trainings that run side by side at most.
        jobs: Processes.
        reference: Seconds of a reference training, several side by side. A guarded search has one for two trainings,
            a choice :data:`~sol_learner.inner.references.CHOOSING` for a rule.
        level: Seconds of a reference training alone. Each reference has one first, with ``sol-general``.
        plain: What a training with Adam takes, as a share of one with ``sol-general``.
    """

    fixed: float
    each: float
    most: int
    jobs: int
    reference: float = 0.0
    level: float = 0.0
    plain: float = 1.0

    @property
    def alone(self) -> float:
        """Seconds of one training."""
        return self.fixed + self.each

    def seconds(self, trainings: float, width: float, jobs: int | None = None) -> float:
        """Seconds of trainings, ``width`` side by side in each of the processes."""
        width = max(1.0, min(width, self.most))
        return trainings * (self.fixed / width + self.each) / (self.jobs if jobs is None else jobs)


def measured_cost(task: Task, seed: int, jobs: int) -> Cost:
    """Time a few steps of one training, and of several side by side if the task allows it."""
    alone = _seconds(task, seed, 1)
    plain = min(_seconds(task, seed, 1, ZOO["adam"]) / alone, 1.0)
    if not vectorizes(task):
        return Cost(0.0, alone, 1, jobs, plain=plain)
    each = max((_seconds(task, seed, _WIDTH) - alone) / (_WIDTH - 1), 0.02 * alone)
    return Cost(max(alone - each, 0.0), each, 64, jobs, plain=plain)


def _seconds(task: Task, seed: int, count: int, rule: UpdateRule = ZOO["sol-general"]) -> float:
    """Seconds of ``count`` trainings side by side with their evaluation."""
    spent, steps = 0.0, 0
    episodes = run_episodes(task, RuleOptimizer(rule), rule.lr or 1e-2, seed, Stream.TUNE, range(count))
    next(episodes)  # without the first step, which allocates
    while steps < task.horizon and (steps < 3 or spent < _LEAST_SECONDS):
        start = time.perf_counter()
        _, optimizees, _ = next(episodes)
        spent, steps = spent + time.perf_counter() - start, steps + 1
    start = time.perf_counter()
    for split in OBJECTIVE_SPLITS:
        optimizees.evaluate(split)
    return spent / steps * task.horizon + time.perf_counter() - start


@dataclass(frozen=True)
class Stage:
    """A phase of the plan.

    Attributes:
        phase: The phase.
        trainings: Its trainings, about.
        seconds: What they take, about.
    """

    phase: Phase
    trainings: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """See the module.

    Attributes:
        config: The settings of the run.
        stages: Its phases that are still to come.
        cost: What the plan reckons with.
        less: What was left out for the budget.
        budget: In seconds.
    """

    config: LearnConfig
    stages: tuple[Stage, ...]
    cost: Cost
    less: tuple[str, ...] = ()
    budget: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of all stages, with starting and writing."""
        return sum(stage.seconds for stage in self.stages) + _overhead(self.cost.jobs, self.budget)

    def after(self, phase: Phase) -> float:
        """Seconds of what follows a phase, with writing."""
        order = [*Phase]
        later = [stage.seconds for stage in self.stages if order.index(stage.phase) > order.index(phase)]
        return sum(later) + _overhead(1, self.budget)

    @property
    def validation(self) -> float:
        """Seconds of the validation at the end of a search."""
        episodes = self.config.validation_episodes
        references = _VALIDATED * CHOOSING * self.cost.reference if self.config.guard else 0.0
        return self.cost.seconds(_VALIDATED * episodes, 4 * episodes) + references / self.cost.jobs

    def of(self, phase: Phase) -> Stage:
        """The stage of a phase."""
        return next((stage for stage in self.stages if stage.phase == phase), Stage(phase, 0, 0.0))

    def lines(self) -> list[str]:
        """The plan as text."""
        cost, processes = self.cost, f"{self.cost.jobs} process{'es' if self.cost.jobs > 1 else ''}"
        wide = f", {cost.fixed / 16 + cost.each:.3g} s each of 16 side by side" if cost.most > 1 else ""
        lines = [f"plan: one training takes {cost.alone:.3g} s{wide}; {processes}"]
        lines += [
            f"  {stage.phase.value:<10} {stage.trainings:>6,} trainings {_time(stage.seconds):>8}"
            for stage in self.stages
            if stage.trainings
        ]
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + self.seconds))
        lines.append(f"  done in {_time(self.seconds)}, at {end}")
        if self.budget is not None and self.seconds > self.budget:
            lines.append(f"  the budget of {_time(self.budget)} is too small for even the smallest plan; raise it")
        if self.less:
            lines.append(f"  left out for the budget of {_time(self.budget or 0)}: {', '.join(self.less)}")
        return lines

    def record(self) -> dict[str, Any]:
        """The plan, JSON-serializable."""
        stages = [asdict(stage) | {"seconds": round(stage.seconds, 1)} for stage in self.stages]
        return {"config": asdict(self.config), "stages": stages, "cost": asdict(self.cost), "less": [*self.less]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], budget: float | None) -> Plan:
        """The plan that :meth:`record` wrote."""
        stages = tuple(Stage(Phase(row["phase"]), row["trainings"], row["seconds"]) for row in record["stages"])
        config = LearnConfig.from_mapping(record["config"])
        return cls(config, stages, Cost(**record["cost"]), tuple(record["less"]), budget)


def planned(
    config: LearnConfig,
    tasks: int,
    cost: Cost,
    budget: float | None = None,
    left: float | None = None,
    spent: int | None = None,
) -> Plan:
    """The longest plan that fits.

    Args:
        config: Settings, which the plan does not exceed.
        tasks: Number of tasks.
        cost: What trainings cost.
        budget: Of the run, in seconds.
        left: Seconds that are left of it.
        spent: Trainings of tuning, if that is over.
    """
    less: list[str] = []
    begun = {"start", "guard"} if spent is not None else set[str]()
    order = [(what, changes) for what, changes in LESS if not begun & {*changes}]
    for what, changes in order:
        smaller = _less(config, changes)
        less += [what] if smaller != config else []
        config = smaller

        plan = partial(_plan, config, tasks, cost, budget, spent, tuple(less))
        if left is None or plan(1.0).seconds <= left:
            return plan(1.0)
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if plan(middle).seconds <= left else (low, middle)
        found = plan(low)
        generations = found.config.generations
        if generations < config.generations:  # time decides how much of one more
            longer = replace(found.config, generations=generations + 1)
            found = replace(found, config=longer, less=(*less, f"{config.generations - generations} generations"))
        enough = 0 if what == order[-2][0] else min(ENOUGH, config.generations)
        if found.seconds <= left and generations >= enough:
            return found
    return found


def _plan(
    config: LearnConfig,
    tasks: int,
    cost: Cost,
    budget: float | None,
    spent: int | None,
    less: tuple[str, ...],
    share: float,
) -> Plan:
    """The plan with a share of the search."""
    shorter = _shortened(config, share)
    over = () if spent is None else (Phase.TUNE,)
    return Plan(shorter, _stages(shorter, tasks, cost, spent or 0, over), cost, less, budget)


def _overhead(jobs: int, budget: float | None) -> float:
    seconds = _WRITING + (_STARTING if jobs > 1 else 0.0)
    return seconds if budget is None else min(seconds, 0.1 * budget)


def _less(config: LearnConfig, changes: Mapping[str, Any]) -> LearnConfig:
    """The settings with the changes that reduce them."""
    if "check" in changes:  # more episodes of one variant, in place of fewer of many
        return replace(config, **changes) if config.check == "variants" and config.check_episodes else config
    kept: dict[str, Any] = {}
    for name, value in changes.items():
        now = getattr(config, name)
        if name == "start":
            kept |= {name: value} if now == "auto" and not config.episodes else {}
        elif name == "baselines" or value < now:
            kept[name] = value
    return replace(config, **kept)


def _shortened(config: LearnConfig, share: float) -> LearnConfig:
    """The settings with a share of the search."""
    names = ("episodes", "library_generations", "descent_steps", "generations")
    numbers: dict[str, Any] = {name: int(share * getattr(config, name)) for name in names}
    if config.episodes:  # without any, another start would be taken
        numbers["episodes"] = max(1, numbers["episodes"])
    return replace(config, **numbers)


def _stages(config: LearnConfig, tasks: int, cost: Cost, spent: int, over: Collection[Phase]) -> tuple[Stage, ...]:
    """Every phase with its trainings and their seconds."""
    guarded, choosing = (0.5, CHOOSING) if config.guard and cost.reference else (0.0, 0)  # of a training, of a choice
    general = not config.episodes and bool(config.priors)
    wide = config.population * config.polish_episodes / cost.jobs
    stages = (config.generations > 0) + (config.descent_steps > 0)  # of polishing
    tuning_jobs = 1 if cost.most > 1 else None  # side by side in this process, or one after another in all
    chosen = 1 + (_VALIDATED - 1) * stages
    validated = chosen * config.validation_episodes * tasks
    found: list[Stage] = []

    def add(
        phase: Phase,
        *parts: tuple[float, float, int | None],
        searched: float = 0.0,
        rules: float = 0.0,
        levels: int = 0,
        plain: Sequence[tuple[float, float]] = (),
    ) -> None:
        """Parts: trainings, their width, and the processes if not all. ``searched`` trainings have references, and so
        has a choice among ``rules``; ``levels`` of them are new. ``plain`` parts are those of hand-made optimizers."""
        if phase not in over:
            references = guarded * searched + choosing * rules
            seconds = sum(cost.seconds(count, width, jobs) for count, width, jobs in parts)
            seconds += cost.plain * sum(cost.seconds(*part) for part in plain)
            guards = references * cost.reference + (levels * cost.level if guarded else 0.0)
            seconds += guards / (tuning_jobs if phase == Phase.TUNE and tuning_jobs else cost.jobs)
            trainings = sum(part[0] for part in parts) + sum(count for count, _ in plain) + references
            found.append(Stage(phase, round(trainings), seconds))

    starts = len(nearby_rates(ZOO["sol-general"])) + _DECAYED + len(config.priors[1:])
    rates = (0 if config.start != "auto" and general and tasks == 1 else 18) + (starts if general else 0)
    rates += 9 if tasks > 1 else 0
    tuned = (rates * config.tuning_episodes * tasks, 9 * config.tuning_episodes, tuning_jobs)
    add(Phase.TUNE, tuned, rules=starts if general else 0, levels=CHOOSING if general else 0)
    terms = len(config.directions) * len(config.decays) + config.own_terms
    if general:
        terms = len(ZOO["sol-general"].terms)
    else:
        validations = config.episodes // max(config.validate_every, 1) * config.validation_episodes
        episodes = config.episodes * config.meta_batch
        add(
            Phase.META_TRAIN,
            (_META * episodes, config.meta_batch, 1),
            (validations * tasks, config.validation_episodes, 1),
        )
        searched = config.library_generations * config.population * config.polish_episodes * tasks
        add(
            Phase.LIBRARY,
            (searched, wide, None),
            (_VALIDATED * config.validation_episodes * tasks, 4 * config.validation_episodes, None),
            (config.record_episodes * tasks, config.record_episodes, 1),
        )
    pruned = _pruning(terms, config.max_terms) * config.prune_episodes
    recorded = (config.record_episodes * tasks, config.record_episodes, 1)
    add(Phase.PRUNE, (pruned * tasks, wide, None), recorded, searched=pruned)
    searched = config.generations * config.population * config.polish_episodes * tasks
    descended = GRADIENT_COST * config.descent_steps * config.polish_episodes * tasks
    descent = (descended, config.polish_episodes / cost.jobs, None)
    validation = (validated, 4 * config.validation_episodes, None)
    levels = REFERENCES + CHOOSING if searched else CHOOSING
    add(
        Phase.POLISH,
        descent,
        (searched, wide, None),
        validation,
        searched=searched / tasks,
        rules=chosen,
        levels=levels,
    )
    checks = (1.0 if config.check == "rate" else _VARIANT * _VARIANTS) * config.check_episodes * tasks
    add(Phase.CHECK, (_VALIDATED * checks, _VALIDATED * config.check_episodes, None))
    spent += sum(stage.trainings for stage in found)
    terms = min(terms, config.max_terms)
    if config.front:
        polished = config.front_generations * config.population
        pruned = (_pruning(terms, 1) + polished) * config.polish_episodes * tasks
        add(
            Phase.FRONT,
            (pruned, wide, None),
            (terms * config.validation_episodes * tasks, 4 * config.validation_episodes, None),
            (terms * checks, terms * config.check_episodes, None),
            searched=pruned / tasks,
            rules=terms,
        )
    count = len(config.baselines)
    each = (config.baseline_trainings or spent // count) if count else 0
    runs = config.evaluation_episodes * tasks
    others = [(each * count * tasks, 8), (count * runs, 1)]
    add(Phase.COMPARE, ((2 if count else 1) * runs, 1, None), plain=others)
    return tuple(found)


def _pruning(terms: int, least: int) -> int:
    """Rules that pruning measures."""
    count = 0
    while terms > least:
        count += terms
        terms -= 2 if terms > 12 and terms - least > 1 else 1
    return count


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"
