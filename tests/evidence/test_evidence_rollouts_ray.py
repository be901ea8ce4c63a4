"""Runs on a Ray cluster on loopback: on both of its nodes, and none is lost with one."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from machines import TRAIN, ancestor, assignments, processes_of_runs, told

from esper_lightning.evidence.frontier import rows
from esper_lightning.evidence.frontier.command import main as benchmark
from esper_lightning.evidence.frontier.matched import ROWS_NAME
from esper_lightning.evidence.rollouts.ray_tasks import RayTasks
from esper_lightning.evidence.rollouts.runs import Runs

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install ray")

pytestmark = [pytest.mark.slow, pytest.mark.integration]

MIB = 2**20


AGENT_PORTS = (
    "dashboard_agent_listen_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
)


def node(num_cpus: int) -> dict[str, Any]:
    """Options of a node.

    Where its agents have to find ports, a node gives up after 15 s, which they take on a busy
    machine: https://github.com/ray-project/ray/issues/65983
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in AGENT_PORTS]
        for each in sockets:
            each.bind(("", 0))
        ports = [each.getsockname()[1] for each in sockets]
    return {
        "num_cpus": num_cpus,
        "object_store_memory": 100 * MIB,
        **dict(zip(AGENT_PORTS, ports, strict=True)),
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A node that is not killed."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")  # or it tells its makers
        from ray.cluster_utils import Cluster

        found = Cluster(
            initialize_head=True, head_node_args={"include_dashboard": False, **node(1)}
        )
        yield found
        ray.shutdown()
        found.shutdown()


@pytest.fixture
def second(cluster: Any) -> Iterator[Any]:
    """Another node."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("processes are found by /proc")
    added = cluster.add_node(**node(1))
    yield added
    if added in cluster.worker_nodes:
        cluster.remove_node(added)


class Watch(threading.Thread):
    """Kills the first worker that is seen with a run on the first node, and perhaps the second."""

    def __init__(self, folder: Path, cluster: Any, *, killing: Any = None) -> None:
        super().__init__(daemon=True)
        self._folder, self._cluster, self._killing = folder, cluster, killing
        self.killed_worker = self.killed_node = False
        self._enough = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._enough.set()
        self.join()

    def run(self) -> None:
        while not self._enough.wait(0.05):
            for process in processes_of_runs(self._folder):
                raylet = ancestor(process, lambda line: "raylet/raylet" in line)
                worker = ancestor(process, lambda line: line.startswith("ray::"))
                if raylet is None or worker is None:
                    continue
                if raylet == raylet_of(self._cluster.head_node):
                    if not self.killed_worker:
                        self.killed_worker = True
                        os.kill(worker, signal.SIGKILL)
                elif self._killing is not None and not self.killed_node:
                    assert raylet == raylet_of(self._killing)
                    self.killed_node = True
                    self._cluster.remove_node(self._killing, allow_graceful=False)


def raylet_of(node: Any) -> int:
    found: int = node.all_processes["raylet"][0].process.pid
    return found


def test_rollouts_survive_the_loss_of_a_worker_and_of_a_node(
    cluster: Any, second: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "cluster"
    machines = RayTasks(address=cluster.address)
    with Watch(folder, cluster, killing=second) as watch:
        pairs = Runs(folder=folder, train=TRAIN, jobs=1, machines=machines, share=2)(assignments(5))
    assert watch.killed_worker
    assert watch.killed_node, "it had no run"
    here = Runs(folder=tmp_path / "here", train=TRAIN, jobs=2)(assignments(5))
    assert [told(pair) for pair in pairs] == [told(pair) for pair in here]


def test_the_benchmark_survives_the_loss_of_a_worker(
    cluster: Any, second: Any, tmp_path: Path
) -> None:
    arguments = [
        *("--quick", "--seeds", "0", "--arms", "host", "grown", "widened"),
        *("--train", str(TRAIN), "--directory", str(tmp_path)),
        *("--jobs", "1", "--ray", cluster.address),
    ]
    with Watch(tmp_path, cluster) as watch:
        benchmark(arguments)
    assert watch.killed_worker
    assert {row.arm for row in rows.read(tmp_path / ROWS_NAME)} == {"host", "grown", "widened"}
    assert (tmp_path / "report.md").is_file()
