"""The benchmark of the bus: it runs, and nothing is lost. Never how long anything took."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from esper_lightning.evidence.__main__ import main
from esper_lightning.evidence.bus import (
    command,
    contracts,
    instructions,
    kills,
    servers,
    speed,
    training,
)
from esper_lightning.leyline import MESSAGES, Signer, pack, unpack, unseal
from esper_lightning.leyline.signing import SECRET_VARIABLE
from esper_lightning.oona import FIELD, Role


@pytest.fixture
def server() -> Iterator[servers.Server]:
    names = list(servers.programs())
    if not names:
        pytest.skip("no server is there")
    with servers.started(names[0]) as running:
        yield running


@pytest.mark.slow
@pytest.mark.integration
def test_bus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bus.json"
    main(["bus", "--quick", "--out", str(out)])
    told = json.loads(out.read_text())
    assert told["command"].startswith("bus --quick")
    figures, here = told["figures"], list(servers.programs())
    assert [figure["kind"] for figure in figures["contracts"]] == list(MESSAGES)
    printed = capsys.readouterr().out
    for missing in set(command.MISSING) - set(here):
        assert command.MISSING[missing] in printed
    if not here:
        pytest.skip("no server is there")
    states = [speed.UP, speed.HUNG, speed.DEAD]
    assert [(each["server"], each["state"]) for each in figures["publishing"]] == [
        (name, state) for name in here for state in states
    ]
    for each in figures["publishing"]:
        assert each["lost"] == 0
        assert each["num"] == command.QUICK.publishes
        for way in ("", "put_", "wake_"):
            assert each[f"{way}p99_us"] >= each[f"{way}p50_us"] > 0
    assert [(each["server"], each["message"]) for each in figures["latency"]] == [
        (name, kind) for name in here for kind in ("telemetry", "report")
    ]
    assert all(each["p95_ms"] >= each["p50_ms"] > 0 for each in figures["latency"])
    assert len(figures["throughput"]) == 3 * len(here)
    assert all(each["best_per_s"] >= each["per_s"] > 0 for each in figures["throughput"])
    faults = [training.NO_FAULT, training.HUNG, training.DEAD, training.FULL, training.SLOW]
    assert [each["state"] for each in figures["training"]] == faults
    for each in figures["training"]:
        assert each["server"] == here[0]
        assert each["pairs"] == each["identical"] == 1
        assert each["kept"] > 0 == each["lost"]
        assert each["step_ratio"]["value"] > 0
    assert [each["server"] for each in figures["kills"]] == here
    for each in figures["kills"]:
        assert (each["kills"], each["messages"]) == (2, 2 * kills.PER_KILL)
        assert (each["missing"], each["twice"], each["dead_letters"]) == (0, 0, 0)
    assert "| server | it is | publishing |" in printed


def test_servers_that_are_not_there_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "programs", dict)
    level = logging.getLogger("esper_lightning").level
    main(["bus", "--quick", "--servers", "redis", "--out", str(tmp_path / "bus.json")])
    assert logging.getLogger("esper_lightning").level == level
    assert "redis is not measured: redis-server is not installed" in capsys.readouterr().out
    figures = json.loads((tmp_path / "bus.json").read_text())["figures"]
    assert figures.keys() == {"contracts"}


def test_every_message_that_travels_is_measured() -> None:
    assert contracts.EXAMPLES.keys() == MESSAGES.keys()
    for kind, make in contracts.EXAMPLES.items():
        message = make()
        assert unpack(pack(message), MESSAGES[kind]) == message
        assert contracts.measure(kind, repeats=2).packed_bytes == len(pack(message))
    state = contracts.state()
    assert (len(state.slots), len(state.metrics)) == (4, 8)


def test_what_is_kept_is_counted_by_id(server: servers.Server) -> None:
    publisher = server.publisher()
    for number in range(3):
        publisher.publish(contracts.report(number))
    publisher.publish(contracts.packet())
    assert publisher.flush(20)
    assert publisher.close()
    reports = [pack(contracts.report(number)) for number in range(3)]
    assert server.kept() == (dict.fromkeys(reports, 1), 0)
    stream = server.settings.streams[Role.NORMAL]
    with server.connect() as connection:
        _, fields = connection.read(stream, after=b"0")[1]
        assert unseal(fields[FIELD], Signer(servers.KEY), stream="normal").payload == reports[1]
        connection.add(stream, fields)
    assert server.kept() == (dict.fromkeys(reports, 1), 1)
    server.kill()
    server.restart()
    assert server.kept()[1] == 1
    server.empty()
    assert server.kept() == ({}, 0)


def test_the_key_leaves_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in ("a key of somebody else", None):
        if before is None:
            monkeypatch.delenv(SECRET_VARIABLE)
        else:
            monkeypatch.setenv(SECRET_VARIABLE, before)
        with training.key_in_environment():
            assert os.environ[SECRET_VARIABLE] == servers.KEY.decode()
        assert os.environ.get(SECRET_VARIABLE) == before


def test_instructions_are_compared_with_those_of_a_run_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(name: str, state: str, epochs: int) -> int:
        assert (name, epochs) == (here, command.COUNTED_EPOCHS)
        return {instructions.NO_BUS: 4_000_000_000, training.SLOW: 4_040_000_000}.get(
            state, 4_004_000_000
        )

    here = next(iter(servers.programs()), None)
    if here is None:
        pytest.skip("no server is there")
    monkeypatch.setattr(instructions, "PROGRAM", "sh")
    monkeypatch.setattr(instructions, "count", count)
    out = tmp_path / "bus.json"
    main(["bus", "--instructions", "--out", str(out)])
    told = json.loads(out.read_text())["figures"]["instructions"]
    assert [each["state"] for each in told] == [instructions.NO_BUS, *instructions.STATES]
    assert [each["ratio"] for each in told] == [1.0, *[1.001] * 4, 1.01]
    assert told[0]["millions"] == 1000.0
    assert "| 200 ms slow | 1010.0 | 1.0100 |" in capsys.readouterr().out


def test_to_count_instructions_takes_valgrind(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instructions, "PROGRAM", "no_such_program")
    with pytest.raises(SystemExit):
        main(["bus", "--instructions"])
    assert "needs valgrind" in capsys.readouterr().err
