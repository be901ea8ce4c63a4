"""What a controller's decision costs, and whether anything makes it fail.

Each policy decides at plausible boundaries of one host, with 16 slots, 40 layers and every
blueprint that there is, in turns, on one thread; and at boundaries that no run should have, those
that a policy is validated on, where it must neither fail nor choose what could not be carried out.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch

from esper_lightning.evidence.report import table, write
from esper_lightning.karn import CATALOGUE, Blueprint, Tier
from esper_lightning.leyline import (
    Comparison,
    FeatureKind,
    FeatureMap,
    Gate,
    GateResult,
    LayerState,
    Measurement,
    Objective,
    SeedStage,
    SeedState,
    SlotShape,
    SystemState,
    legal_commands,
)
from esper_lightning.simic.validation.hostile_states import boundaries, violations
from esper_lightning.tamiyo import (
    GrowthBudget,
    Heuristic,
    Never,
    Periodic,
    Policy,
    RandomPolicy,
)
from esper_lightning.tamiyo.learned import Learned, PolicyNetwork, StoredPolicy
from esper_lightning.tamiyo.learned.stored import DEFAULT

NUM_SLOTS, NUM_LAYERS = 16, 40
"""Of the host that decisions are timed on; the slots are among the layers."""

EPOCHS_PER_RUN = 100

REPEATS = 5
"""Of each decision that is timed."""

BUDGETS = {
    "default": GrowthBudget(),
    "no limit": GrowthBudget(max_growth=None),
    "all limits": GrowthBudget(max_parameters=10**6, max_growth=2.0, max_flops_growth=2.0),
}
"""Under which hostile boundaries are decided."""

Maker = Callable[[GrowthBudget, Mapping[str, Blueprint]], Policy]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long one policy takes to decide, in milliseconds.

    Attributes:
        policy: which.
        first_ms: the first decision of a new policy in a warm process, all prices unknown.
        p50_ms: median of all later ones.
        p95_ms: of twenty, one is longer.
        p99_ms: of a hundred, one is longer.
        max_ms: the longest of them.
        least_p95_ms: as ``p95_ms``, of the least time that each decision took in any repetition:
            what it costs where nothing disturbs it.
        num: decisions.
        choices: of all decisions, that were not to wait.
    """

    policy: str
    first_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    least_p95_ms: float
    num: int
    choices: int


class Sturdiness(msgspec.Struct, frozen=True, kw_only=True):
    """What became of hostile boundaries.

    Attributes:
        policy: which.
        num: boundaries.
        crashes: at which it raised.
        illegal: at which it chose what could not be carried out.
        kinds: how often it chose what.
        examples: of what went wrong, in words.
    """

    policy: str
    num: int
    crashes: int
    illegal: int
    kinds: dict[str, int]
    examples: tuple[str, ...]


def makers(stored: StoredPolicy) -> dict[str, Maker]:
    """Every policy that decides in this process."""
    every = list(Tier)
    return {
        "never": lambda *_: Never(),
        "random": lambda budget, catalogue: RandomPolicy(
            action_rate=0.5, tiers=every, budget=budget, catalogue=catalogue
        ),
        "periodic": lambda budget, catalogue: Periodic(
            period=1, start=1, blueprints=list(catalogue)[:8], budget=budget, catalogue=catalogue
        ),
        "heuristic": lambda budget, catalogue: Heuristic(
            min_epoch=1, overlap=True, tiers=every, budget=budget, catalogue=catalogue
        ),
        "learned": lambda budget, catalogue: Learned(
            policy=stored, tiers=every, budget=budget, catalogue=catalogue
        ),
        "learned, drawn": lambda budget, catalogue: Learned(
            policy=stored, sample=True, tiers=every, budget=budget, catalogue=catalogue
        ),
    }


def latency(policies: Mapping[str, Maker], *, num: int, seed: int) -> list[Latency]:
    """Time ``num`` decisions of each, in turns; a new policy every 100 epochs.

    Each is decided :data:`REPEATS` times, by new policies that remember the same.
    """
    wall: dict[str, list[float]] = {name: [] for name in policies}
    least: dict[str, list[float]] = {name: [] for name in policies}
    first: dict[str, list[float]] = {name: [] for name in policies}
    chosen: Counter[str] = Counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        while len(least[next(iter(least))]) < num:
            passes = [_one_run(policies, chosen, seed=seed) for _ in range(REPEATS)]
            for name in policies:
                took = np.array([each[name] for each in passes])
                first[name] += took[:, 0].tolist()
                wall[name] += took[:, 1:].ravel().tolist()
                least[name] += took[:, 1:].min(axis=0).tolist()
            seed += 1
    finally:
        torch.set_num_threads(threads)
    return [
        _latency(name, first[name], wall[name], least[name], choices=chosen[name])
        for name in policies
    ]


def _one_run(
    policies: Mapping[str, Maker], chosen: Counter[str], *, seed: int
) -> dict[str, list[float]]:
    """Seconds of each decision of new policies, which take turns."""
    made = {name: make(GrowthBudget(), CATALOGUE) for name, make in policies.items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for state in plausible(EPOCHS_PER_RUN, seed=seed):
        for name, policy in made.items():
            began = time.perf_counter()
            choices = policy.decide(state)
            seconds[name].append(time.perf_counter() - began)
            chosen[name] += sum(bool(choice.slot) for choice in choices)
    return seconds


def _latency(
    name: str,
    first: Sequence[float],
    wall: Sequence[float],
    least: Sequence[float],
    *,
    choices: int,
) -> Latency:
    # The first policy of all also loads what the process has not used before.
    later = first[1:] or first
    p50, p95, p99 = 1e3 * np.percentile(np.asarray(wall), [50, 95, 99])
    return Latency(
        policy=name,
        first_ms=1e3 * max(later),
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        max_ms=1e3 * max(wall),
        least_p95_ms=float(1e3 * np.percentile(np.asarray(least), 95)),
        num=len(wall),
        choices=choices,
    )


def sturdiness(name: str, make: Maker, *, num: int, seed: int) -> Sturdiness:
    """Let one policy decide at ``num`` hostile boundaries, a part of them with nothing to plant."""
    kinds: Counter[str] = Counter()
    crashes = illegal = 0
    examples: list[str] = []
    cases: list[tuple[GrowthBudget, Mapping[str, Blueprint]]] = [
        (budget, CATALOGUE) for budget in BUDGETS.values()
    ]
    if name != "periodic":  # which must be told what to plant
        cases.append((BUDGETS["default"], {}))
    for number, (budget, catalogue) in enumerate(cases):
        policy = make(budget, catalogue)
        share = num // len(cases) + (number < num % len(cases))
        for state in boundaries(share, seed=seed + number):
            try:
                choices = policy.decide(state)
            except Exception as error:  # pylint: disable=broad-exception-caught
                crashes += 1
                examples.append(repr(error))
                continue
            flaws = violations(state, choices, budget=budget, catalogue=catalogue)
            illegal += bool(flaws)
            examples += flaws
            kinds.update(choice.kind.value for choice in choices)
    return Sturdiness(
        policy=name,
        num=num,
        crashes=crashes,
        illegal=illegal,
        kinds=dict(sorted(kinds.items())),
        examples=tuple(dict.fromkeys(examples))[:5],
    )


def plausible(num: int, *, seed: int) -> Iterator[SystemState]:
    """Boundaries of a run as they could be: half of the slots take images, the others tokens."""
    draw = random.Random(seed)
    layers, slots = _host()
    host = sum(layer.num_parameters for layer in layers)
    for epoch in range(num):
        yield SystemState(
            run_id="plausible",
            epoch=epoch,
            max_epochs=num + 1,
            global_step=10 * (epoch + 1),
            steps_per_epoch=10,
            objective=Objective(name="val/loss", value=0.3 + 0.8**epoch + 0.01 * draw.random()),
            metrics={"val/loss": 0.3},
            slots=tuple(_slot(draw, path, shape, epoch) for path, shape in slots.items()),
            host_parameters=host,
            num_parameters=host,
            host_flops=1e9,
            flops=1e9,
            layers=layers,
            learning_rate=0.1 * (1 - epoch / num),
        )


def _host() -> tuple[tuple[LayerState, ...], dict[str, SlotShape]]:
    paths = [
        f"stage{number // 10}.block{number // 2 % 5}.part{number % 2}"
        for number in range(NUM_LAYERS)
    ]
    layers = tuple(
        LayerState(
            path=path,
            module="Conv2d" if place % 2 else "LayerNorm",
            num_parameters=1000 * (1 + place),
            # Each block is skipped, too.
            reads=tuple(paths[before] for before in (place - 1, place - 3) if before >= 0),
        )
        for place, path in enumerate(paths)
    )
    slots = {}
    for number, path in enumerate(paths[1 : 2 * NUM_SLOTS : 2]):
        features = 16 * (1 + number)
        if number % 2:
            feature_map = FeatureMap(FeatureKind.TOKENS, (64, features))
        else:
            feature_map = FeatureMap(FeatureKind.SPATIAL, (features, 32, 32))
        slots[path] = SlotShape(feature_map, feature_map)
    return layers, slots


def _slot(draw: random.Random, path: str, shape: SlotShape, epoch: int) -> SeedState:
    stages = (SeedStage.DORMANT, SeedStage.DORMANT, SeedStage.TRAINING, SeedStage.PROBATIONARY)
    stage = draw.choice(stages)
    lives = stage is not SeedStage.DORMANT
    gain = draw.gauss(0.0, 0.05) if stage is SeedStage.PROBATIONARY else None
    measured = Measurement(name="gain", value=gain, comparison=Comparison.AT_LEAST, threshold=0.01)
    gate = GateResult(gate=Gate.G4_SYSTEM_IMPACT, measurements=(measured,))
    return SeedState(
        slot=path,
        stage=stage,
        age=draw.randint(0, 9),
        shape=shape,
        base_parameters=1000,
        pressure=draw.random(),
        blueprint=draw.choice(list(CATALOGUE)) if lives else "",
        num_parameters=500 if lives else 0,
        alpha=1.0 if lives else 0.0,
        gradient_norm=draw.random() if lives else None,
        gain=gain,
        rent=None if gain is None else 0.01,
        cohort=max(0, epoch - 9) if lives else None,
        gate=None if gain is None else gate,
        legal=legal_commands(stage),
        num_culls=draw.choice((0, 0, 1)),
    )


def render(latencies: Sequence[Latency], hostile: Sequence[Sturdiness]) -> str:
    """Two Markdown tables."""
    times = [
        [
            each.policy,
            *(f"{value:.2f}" for value in (each.p50_ms, each.p95_ms, each.p99_ms, each.max_ms)),
            f"{each.least_p95_ms:.2f}",
            f"{each.first_ms:.2f}",
            f"{each.choices / each.num:.1f}",
            str(each.num),
        ]
        for each in latencies
    ]
    header = ["policy", "p50 ms", "p95 ms", "p99 ms", "max ms", "undisturbed p95 ms", "first ms"]
    found = [
        [
            each.policy,
            str(each.num),
            str(each.crashes),
            str(each.illegal),
            ", ".join(f"{kind} {num}" for kind, num in each.kinds.items()),
        ]
        for each in hostile
    ]
    return "\n\n".join(
        (
            table([*header, "choices", "decisions"], times),
            table(["policy", "hostile boundaries", "crashes", "illegal", "chosen"], found),
        )
    )


def policy_file(path: Path | None) -> StoredPolicy:
    """The policy to measure; one that was not trained where none is named and none comes along."""
    if path is not None or DEFAULT.is_file():
        return StoredPolicy.load(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return StoredPolicy.of(PolicyNetwork(), name="untrained", version=1)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence controller")
    parser.add_argument("--decisions", type=int, default=1000, help="of each policy, at least 500")
    parser.add_argument("--hostile", type=int, default=10_000, help="boundaries for each policy")
    parser.add_argument("--policy", type=Path, help="a learned one, instead of the default one")
    parser.add_argument("--seed", type=int, default=0, help="of the boundaries")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/controller.json"))
    options = parser.parse_args(arguments)
    stored = policy_file(options.policy)
    policies = makers(stored)
    latencies = latency(policies, num=options.decisions, seed=options.seed)
    hostile = [
        sturdiness(name, make, num=options.hostile, seed=options.seed)
        for name, make in policies.items()
    ]
    figures = {"policy": stored.card, "latency": latencies, "hostile": hostile}
    write(options.out, " ".join(["controller", *arguments]), figures)
    print(render(latencies, hostile))
