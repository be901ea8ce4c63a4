"""Where nothing may depend on what was compiled in time, Tezzeret does nothing."""

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from compiled_runs import run, trained
from runs import same

from esper_lightning.callbacks import Tezzeret
from esper_lightning.leyline import InvalidArgument
from esper_lightning.tezzeret import Tally
from esper_lightning.urza import Library


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "the key of these tests")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library(tmp_path / "library") as opened:
        yield opened


@pytest.mark.parametrize("deterministic", [True, "warn"])
def test_with_deterministic_algorithms_it_is_idle(
    library: Library, deterministic: Any, caplog: pytest.LogCaptureFixture
) -> None:
    alone, _, _ = run(None, deterministic=deterministic)
    caplog.set_level(logging.INFO)
    tezzeret = Tezzeret(library=library.root, compile=True)
    module, _, trainer = run(tezzeret, deterministic=deterministic)
    assert same(trained(module), trained(alone))
    assert "seeds run eager: with deterministic=true" in caplog.text
    assert tezzeret.tally == Tally()
    assert "growth/compiled" not in trainer.callback_metrics
    assert not (library.root / "tezzeret").exists()


def test_without_a_library_it_is_idle_and_makes_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tezzeret = Tezzeret(library=tmp_path / "none")
    module, _, _ = run(tezzeret)
    assert same(trained(module), trained(run(None)[0]))
    assert f"there is no library in {tmp_path / 'none'}" in caplog.text
    assert not (tmp_path / "none").exists()
    assert tezzeret.tally == Tally()


def test_a_library_that_cannot_be_used_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    run(Tezzeret(library=tmp_path / "file", compile=True), epochs=1)
    assert "seeds run eager: " in caplog.text
    assert "cannot be used" in caplog.text


def test_beside_other_ranks_it_is_idle(library: Library) -> None:
    trainer: Any = SimpleNamespace(world_size=2)
    assert Tezzeret(library=library.root)._why_idle(trainer) == "2 ranks train together"


def test_the_users_own_library_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPER_URZA_ROOT", str(tmp_path))
    assert Tezzeret().library == tmp_path
    assert Tezzeret(library=str(tmp_path / "other")).library == tmp_path / "other"


@pytest.mark.parametrize("values", [{"limit": 0}, {"timeout": 0.0}])
def test_wrong_values_are_refused(values: Any) -> None:
    with pytest.raises(InvalidArgument, match="limit is at least 1 and timeout more than 0"):
        Tezzeret(**values)
