"""Several processes grow one network: equal bit for bit on all of them, and the host's own.

Processes are forked from a server that has imported what they need and has never trained. Runs of
the same number of ranks follow each other in the same processes.
"""

import math
import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import rank_runs
import torch
from runs import same
from torch import Tensor

from esper_lightning.leyline import Incubation

pytestmark = pytest.mark.integration

LONGEST_S = 600
"""A process that takes longer hangs; all runs of a launch take a minute on two free cores."""
KINDS = [kind.value for kind in Incubation]
SMALL = [
    *(f"stages-{kind}" for kind in KINDS),
    *(f"isolated-{kind}" for kind in KINDS),
    *(
        "isolated-none",
        "accumulated",
        "optioned",
        "halved",
        "governed",
        "taken_back",
        "drawn",
        "foreign",
        "violated",
        "resumed",
    ),
]
LARGE = [*(f"stages-{kind}" for kind in KINDS), "isolated-straight_through", "isolated-none"]

Told = dict[str, Any]
Launch = Callable[..., tuple[dict[str, list[Told]], list[int | None]]]


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Run some of :data:`rank_runs.RUNS`; what each rank told, and the exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rank_runs"])

    def begin(size: int, *names: str) -> tuple[dict[str, list[Told]], list[int | None]]:
        folder = tmp_path_factory.mktemp("ranks")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = (size, port, folder, names)
        ranks = [
            context.Process(target=rank_runs.part, args=(rank, *arguments)) for rank in range(size)
        ]
        # The server, which starts with the first process, is told of no other path.
        places = {str(Path(rank_runs.__file__).parent / up) for up in (".", "..", "../kasmina")}
        with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(places)):
            for rank in ranks:
                rank.start()
        for rank in ranks:
            rank.join(LONGEST_S)
        codes = [rank.exitcode for rank in ranks]
        for rank in ranks:
            rank.kill()
        return {name: _told(folder / name, size) for name in names}, codes

    return begin


def _told(folder: Path, size: int) -> list[Told]:
    files = [folder / f"rank{rank}.pt" for rank in range(size)]
    return [torch.load(file, weights_only=False) for file in files if file.exists()]


@pytest.fixture(scope="module")
def two(launch: Launch) -> dict[str, list[Told]]:
    told, codes = launch(2, *SMALL)
    assert codes == [0, 0]
    return told


@pytest.fixture(scope="module")
def four(launch: Launch) -> dict[str, list[Told]]:
    told, codes = launch(4, *LARGE)
    assert codes == [0] * 4
    return told


@pytest.fixture(params=["two", "four"])
def several(request: pytest.FixtureRequest) -> dict[str, list[Told]]:
    told: dict[str, list[Told]] = request.getfixturevalue(request.param)
    return told


def _agree(ranks: Sequence[Told]) -> None:
    first = ranks[0]
    for other in ranks[1:]:
        for name in ("digests", "stages", "interventions", "records", "flops", "samples"):
            assert other[name] == first[name], name


@pytest.mark.parametrize("kind", KINDS)
def test_all_ranks_are_equal_after_every_boundary(
    several: dict[str, list[Told]], kind: str
) -> None:
    ranks = several[f"stages-{kind}"]
    _agree(ranks)
    first = ranks[0]
    assert len(set(first["digests"])) == rank_runs.EPOCHS + 1
    seen = {stage for _, _, stage in first["stages"]}
    apart = set() if kind == "direct" else {"TRAINING", "BLENDING", "SHADOWING"}
    assert seen >= {"GERMINATED", "PROBATIONARY", "FOSSILIZED", "CULLED", "EMBARGOED"} | apart
    size = len(ranks)
    assert first["samples"] == rank_runs.EPOCHS * math.ceil(rank_runs.ROWS / size) * size


@pytest.mark.parametrize("kind", ["straight_through", "shadow"])
def test_the_host_is_bit_identical_with_a_seed_in_isolation(
    two: dict[str, list[Told]], kind: str
) -> None:
    for alone, beside in zip(two["isolated-none"], two[f"isolated-{kind}"], strict=True):
        assert alone["stages"] != beside["stages"]
        assert "TRAINING" in {stage for _, _, stage in beside["stages"]}
        assert same(_host(alone), _host(beside))


def test_so_it_is_with_four_ranks(four: dict[str, list[Told]]) -> None:
    for alone, beside in zip(four["isolated-none"], four["isolated-straight_through"], strict=True):
        assert same(_host(alone), _host(beside))


def _host(told: Told) -> dict[str, Tensor]:
    host: dict[str, Tensor] = told["host"]
    assert len(host) > 8
    return host


def test_accumulation_clipping_and_bfloat16(two: dict[str, list[Told]]) -> None:
    _agree(two["accumulated"])
    _agree(two["halved"])


def test_whatever_is_commanded_happens_on_all(two: dict[str, list[Told]]) -> None:
    for runs in zip(*(rank["runs"] for rank in two["drawn"]), strict=True):
        _agree(runs)
        assert len(runs[0]["stages"]) > 8


def test_options_of_the_strategy(two: dict[str, list[Told]]) -> None:
    for runs in zip(*(rank["runs"] for rank in two["optioned"]), strict=True):
        _agree(runs)
    plain = two["stages-straight_through"][0]["digests"]
    viewed, static, _ = two["optioned"][0]["runs"]
    assert viewed["digests"] == static["digests"] == plain


def test_a_rollback_and_its_cull_happen_on_all(two: dict[str, list[Told]]) -> None:
    ranks = two["governed"]
    _agree(ranks)
    assert len(ranks[0]["interventions"]) == 1
    assert "blamed: 4" in ranks[0]["interventions"][0]
    assert all(torch.isfinite(value).all() for value in ranks[0]["weights"].values())


def test_so_does_one_that_was_asked_for(two: dict[str, list[Told]]) -> None:
    _agree(two["taken_back"])
    first = two["taken_back"][0]
    restored = [each.rpartition("epoch ")[2] for each in first["interventions"]]
    assert restored == ["0", "3", "6"]
    happened = [(slot, stage) for _, slot, stage in first["stages"]]
    assert {("4", "PROBATIONARY"), ("0", "FOSSILIZED"), ("0", "CULLED")} <= set(happened)
    names = set(first["weights"])
    assert any(name.startswith("host.0.seed") for name in names), "neither a fossil nor culled"
    assert not any(name.startswith("host.4.seed") for name in names), "not planted"


def test_what_each_rank_measures_by_itself_divides_nobody(two: dict[str, list[Told]]) -> None:
    _agree(two["foreign"])
    assert two["foreign"][0]["metrics"]["val/loss"] != two["foreign"][1]["metrics"]["val/loss"]


def test_what_one_rank_saw_of_a_seed_is_true_on_all(two: dict[str, list[Told]]) -> None:
    ranks = two["violated"]
    _agree(ranks)
    assert any(stage == "CULLED" for _, _, stage in ranks[0]["stages"])


def test_a_resumed_run_is_the_same_on_all(two: dict[str, list[Told]]) -> None:
    for rank in two["resumed"]:
        for point, again in rank["after"].items():
            assert again["digests"][-1] == rank["digests"][-1], point
            assert again["records"] == rank["records"], point
            assert again["flops"] == rank["flops"], point
            assert again["samples"] == rank["samples"], point
    _agree(two["resumed"])


def test_ranks_tell_each_other_tensors_of_every_type(launch: Launch) -> None:
    told, _ = launch(3, "spoken")
    assert len(told["spoken"]) == 3
    for each in told["spoken"]:
        assert [tensor.flatten()[:1].tolist() for tensor in each["averaged"]] == [
            *([1.0], [1.0], [1 + 2j], [], [1.0])
        ]
        assert [tensor.flatten().tolist() for tensor in each["taken"]] == [
            *([True, False], [7], [1, 1], [1.0] * 4)
        ]
        assert each["gathered"] == [{"rank": rank} for rank in range(3)]


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_train_what_one_would(launch: Launch, size: int) -> None:
    told, codes = launch(size, "as_one")
    one, _ = launch(1, "as_one")
    assert codes == [0] * size
    ours, theirs = told["as_one"][0], one["as_one"][0]
    assert ours["stages"] == theirs["stages"]
    assert ours["samples"] == theirs["samples"]
    assert ours["flops"] == pytest.approx(theirs["flops"], rel=1e-6)
    for name, value in theirs["weights"].items():
        if not name.endswith("_extra_state"):
            torch.testing.assert_close(ours["weights"][name], value, rtol=0, atol=1e-12)


def test_a_mistake_on_the_first_rank_ends_all_with_its_reason(launch: Launch) -> None:
    told, codes = launch(2, "mistaken", "disagreeing")
    assert codes == [0, 0]
    first, second = (each["error"] for each in told["mistaken"])
    assert first == "ZeroDivisionError: a policy with a mistake"
    assert second.startswith("OtherRankFailed: rank 1 stops because rank 0 failed: ZeroDivision")
    for each in told["disagreeing"]:
        assert "ranks [1] hold another network than rank 0" in each["error"]


def test_an_error_of_one_rank_ends_the_others(launch: Launch) -> None:
    told, codes = launch(2, "broken")
    first, second = (each["error"] for each in told["broken"])
    assert second == "ZeroDivisionError: this rank alone"
    assert first.startswith("RuntimeError"), "of the connection that was closed"
    assert codes == [0, 0], "none hung, and had to be killed"


def test_the_death_of_one_rank_ends_the_others(launch: Launch) -> None:
    told, codes = launch(2, "dying")
    (survivor,) = told["dying"]
    assert survivor["error"].startswith("RuntimeError"), "of the connection that was closed"
    assert codes == [0, -9]
