"""Names of streams are distinct; a server that others use needs a key that its users share."""

import copy
import pickle
from pathlib import Path

import pytest

from esper_lightning.leyline import InvalidArgument, KeyRequired, Signer
from esper_lightning.oona.settings import LENGTHS, STREAMS, Role, Settings, signer


def test_every_role_has_a_name_a_length_and_a_stream_of_dead_letters() -> None:
    settings = Settings()
    assert settings.url == "auto"
    assert settings.streams == {
        Role.NORMAL: "oona.normal",
        Role.EMERGENCY: "oona.emergency",
        Role.TELEMETRY: "oona.telemetry",
        Role.POLICY: "oona.policy",
    }
    assert settings.lengths == {
        Role.NORMAL: 100_000,
        Role.EMERGENCY: 10_000,
        Role.TELEMETRY: 20_000,
        Role.POLICY: 1_000,
    }
    assert settings.dead_letters(Role.POLICY) == "oona.policy.dead"


def test_what_is_told_stands_beside_the_defaults_and_changes_no_others() -> None:
    told = {Role.NORMAL: "lab"}
    settings = Settings(streams=told, lengths={Role.NORMAL: 5})
    told[Role.NORMAL] = "changed"
    assert settings.streams == STREAMS | {Role.NORMAL: "lab"}
    assert settings.lengths == LENGTHS | {Role.NORMAL: 5}
    assert Settings().streams == STREAMS


def test_a_role_may_be_told_as_a_word() -> None:
    assert Settings(streams={"policy": "lab"}).streams[Role.POLICY] == "lab"  # type: ignore[dict-item]


def test_settings_reach_another_process_as_they_are() -> None:
    settings = Settings(url="memory://", streams={Role.NORMAL: "lab"})
    assert pickle.loads(pickle.dumps(settings)) == settings == copy.deepcopy(settings)


@pytest.mark.parametrize(
    ("streams", "told"),
    [
        ({Role.NORMAL: ""}, "the normal stream has no name"),
        ({Role.NORMAL: "  "}, "the normal stream has no name"),
        ({Role.NORMAL: "oona.policy"}, "both called 'oona.policy'"),
        ({Role.NORMAL: "oona.policy.dead"}, "dead letters of the policy stream.*both called"),
        ({Role.POLICY: "oona.normal.dead"}, "dead letters of the normal stream.*both called"),
        ({"urgent": "lab"}, "no stream is for 'urgent'; there are normal, emergency"),
    ],
)
def test_names_are_there_and_distinct(streams: dict[Role, str], told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        Settings(streams=streams)


def test_a_stream_keeps_something() -> None:
    with pytest.raises(InvalidArgument, match="telemetry stream keeps at least 1 entry, got 0"):
        Settings(lengths={Role.TELEMETRY: 0})
    with pytest.raises(InvalidArgument, match="url is empty"):
        Settings(url=" ")


@pytest.mark.parametrize(
    ("url", "found"),
    [(None, "redis://here"), ("auto", "redis://here"), ("memory://", "memory://")],
)
def test_an_address_that_is_told_wins_over_the_environment(url: str | None, found: str) -> None:
    environ = {"REDIS_URL": "redis://here", "OONA_POLICY_STREAM": "lab", "OONA_NORMAL_STREAM": ""}
    settings = Settings.from_environment(url, environ)
    assert settings.url == found
    assert settings.streams == STREAMS | {Role.POLICY: "lab"}


def test_an_empty_environment_is_the_default() -> None:
    assert Settings.from_environment(environ={}) == Settings()
    assert Settings.from_environment(environ={"REDIS_URL": ""}) == Settings()


def test_two_streams_of_one_name_are_found_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OONA_NORMAL_STREAM", "lab")
    assert Settings.from_environment().streams[Role.NORMAL] == "lab"
    monkeypatch.setenv("OONA_POLICY_STREAM", "lab")
    with pytest.raises(InvalidArgument, match="both called 'lab'"):
        Settings.from_environment()


@pytest.mark.parametrize("is_shared", [True, False])
def test_the_key_of_the_environment_is_for_every_server(key: bytes, is_shared: bool) -> None:
    assert signer(is_shared).verify(b"message", Signer(key).sign(b"message"))


def test_a_shared_server_needs_a_key_that_was_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ESPER_LEYLINE_SECRET")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(KeyRequired, match="ESPER_LEYLINE_SECRET is not set.*at least 16 bytes"):
        signer(is_shared=True)
    assert not list(tmp_path.iterdir())
    own = signer(is_shared=False)
    assert signer(is_shared=False).verify(b"message", own.sign(b"message"))


def test_while_a_key_is_replaced_the_one_before_is_believed(
    monkeypatch: pytest.MonkeyPatch, key: bytes
) -> None:
    before = Signer(key)
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "the key that comes after it")
    assert not signer(is_shared=True).verify(b"message", before.sign(b"message"))
    monkeypatch.setenv("ESPER_LEYLINE_PREVIOUS_SECRET", key.decode())
    after = signer(is_shared=True)
    assert after.verify(b"message", before.sign(b"message"))
    assert not before.verify(b"message", after.sign(b"message"))


def test_a_short_key_before_this_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPER_LEYLINE_PREVIOUS_SECRET", "short")
    with pytest.raises(InvalidArgument, match="PREVIOUS_SECRET has 5 bytes.*at least 16"):
        signer(is_shared=False)
