"""A signature is by one of the keys; the key is the user's alone, the same in all processes."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from esper_lightning.leyline import InvalidArgument, Signer, UnusableKey, installation_key
from esper_lightning.leyline.folders import cache_home, config_home
from esper_lightning.leyline.signing import DIGEST_BYTES

OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has no key yet."""
    monkeypatch.delenv("ESPER_LEYLINE_SECRET", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


# Signer


def test_a_signature_holds_for_its_bytes_and_no_others() -> None:
    signer = Signer(NEW)
    signature = signer.sign(b"data")
    assert len(signature) == 64
    assert signer.verify(b"data", signature)
    assert signature == Signer(NEW).sign(b"data")
    for position in range(len(signature)):
        other = "0" if signature[position] != "0" else "1"
        changed = signature[:position] + other + signature[position + 1 :]
        assert not signer.verify(b"data", changed)
    for written in (signature.upper(), f" {signature}", f"{signature}\n"):
        assert not signer.verify(b"data", written)
    for data in (b"", b"datA", b"data ", b"dat"):
        assert not signer.verify(data, signature)


@pytest.mark.parametrize("signature", ["", "0", "ü" * 64, "\ud800" * 64, "0" * 10**6])
def test_what_is_no_signature_is_none(signature: str) -> None:
    assert not Signer(NEW).verify(b"data", signature)


def test_it_is_the_known_answer_of_hmac_sha256() -> None:
    # RFC 4231, test case 1.
    signature = Signer(b"\x0b" * 20).sign(b"Hi There")
    assert signature == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"


def test_a_signature_may_be_bytes() -> None:
    signer = Signer(NEW)
    digest = signer.digest(b"data")
    assert (len(digest), digest.hex()) == (DIGEST_BYTES, signer.sign(b"data"))
    assert signer.check(b"data", digest)
    assert Signer(OLD, previous=[NEW]).check(b"data", digest)
    assert not Signer(OLD).check(b"data", digest)
    for other in (b"", digest[:-1], digest + b"x", b"x" + digest[1:], digest.hex().encode()):
        assert not signer.check(b"data", other)
    for other in (b"", b"datA", b"data "):
        assert not signer.check(other, digest)


def test_a_previous_key_verifies_and_does_not_sign() -> None:
    old, both, new = Signer(OLD), Signer(NEW, previous=[OLD]), Signer(NEW)
    assert both.verify(b"data", old.sign(b"data"))
    assert both.verify(b"data", new.sign(b"data"))
    assert new.verify(b"data", both.sign(b"data"))
    assert not old.verify(b"data", both.sign(b"data"))
    assert not new.verify(b"data", old.sign(b"data"))


def test_a_short_key_is_refused() -> None:
    Signer(b"s" * 16)
    with pytest.raises(InvalidArgument, match="a key has 15 bytes; .* needs at least 16"):
        Signer(b"s" * 15)
    with pytest.raises(InvalidArgument, match="a key has 0 bytes"):
        Signer(NEW, previous=[b""])


def test_a_signer_does_not_give_its_key_away() -> None:
    signer = Signer(b"a very secret key")
    assert "secret" not in repr(signer)
    assert not hasattr(signer, "__dict__")
    for give in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="a Signer is not pickled"):
            give(signer)


# The key


def test_the_variable_is_the_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "sechzehn Bytes ü")
    assert installation_key() == "sechzehn Bytes ü".encode()
    assert list(home.iterdir()) == []


def test_a_short_variable_is_refused_and_not_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "hunter2")
    with pytest.raises(InvalidArgument, match="ESPER_LEYLINE_SECRET has 7 bytes") as error:
        installation_key()
    assert "hunter2" not in str(error.value)


def test_a_key_is_made_once_for_the_user_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "")
    key = installation_key()
    path = home / ".config" / "esper_lightning" / "secret"
    assert len(key) == 32
    assert path.read_bytes() == key == installation_key()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["secret"]


def test_two_users_have_two_keys(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = installation_key()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "other"))
    assert installation_key() != mine
    assert (home / "other" / "esper_lightning" / "secret").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o666])
def test_a_key_that_others_can_read_is_refused(home: Path, mode: int) -> None:
    installation_key()
    path = config_home() / "secret"
    path.chmod(mode)
    with pytest.raises(UnusableKey, match=f"mode {mode:o}: others can read it.*chmod 600"):
        installation_key()
    path.chmod(0o600)
    installation_key()


def test_a_key_file_that_was_cut_off_is_refused(home: Path) -> None:
    installation_key()
    path = config_home() / "secret"
    path.write_bytes(b"short")
    with pytest.raises(UnusableKey, match="secret has 5 bytes;.*delete it"):
        installation_key()


def test_where_no_key_can_be_made_the_variable_is_named(home: Path) -> None:
    (home / ".config").write_text("a file")
    with pytest.raises(UnusableKey, match="cannot be made or read.*set ESPER_LEYLINE_SECRET"):
        installation_key()


def test_processes_that_begin_at_once_agree_on_a_key(home: Path) -> None:
    script = (
        "import sys; from esper_lightning.leyline import installation_key; "
        "print('ready', flush=True); sys.stdin.readline(); print(installation_key().hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HOME": str(home)},
        )
        for _ in range(6)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    keys = {process.communicate("\n", timeout=60)[0] for process in processes}
    assert keys == {installation_key().hex() + "\n"}


# Folders


def test_a_relative_folder_of_the_environment_is_ignored(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_home() == home / ".cache" / "esper_lightning"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "c"))
    assert cache_home() == home / "c" / "esper_lightning"
