"""A whole run in which seeds are really compiled."""

import csv
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from compiled_runs import Inline
from launching import composed
from torch import Tensor, nn

from esper_lightning.callbacks import tezzeret as callback_module
from esper_lightning.tezzeret import Compiled, Workshop, is_supported


@pytest.mark.slow
@pytest.mark.skipif(not is_supported(), reason="compiling ahead needs torch 2.10 or later")
@pytest.mark.usefixtures("nothing_stays")
def test_seeds_of_a_run_are_compiled_and_train_as_eager_ones(
    entry: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads are replaced, so that it waits for the compiler before the seed is planted."""
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "the key of these tests")
    monkeypatch.setattr(callback_module, "ThreadPoolExecutor", Inline)
    ran: list[bool] = []
    call = Compiled.__call__

    def noting(self: Compiled, branch: nn.Module, x: Tensor) -> Tensor:
        before = self._tally.fallbacks
        out = call(self, branch, x)
        ran.append(self._tally.fallbacks == before)
        return out

    monkeypatch.setattr(Compiled, "__call__", noting)
    defaults: Any = Workshop.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "min_speedup", 0.0)
    monkeypatch.setenv("ESPER_URZA_ROOT", str(tmp_path / "library"))
    common = (
        "host=mlp",
        "kasmina.slots=[layers.1]",
        "kasmina.rules.gates.price_per_parameter=0",
        "kasmina.rules.gates.doubt=0",
        "tamiyo=periodic",
        "tamiyo.policy.start=2",
        "tamiyo.policy.blueprints=[parallel_mlp]",
        "data.subset=96",
        "threads=1",
        "trainer.max_epochs=8",
        "trainer.deterministic=false",
        "trainer.log_every_n_steps=1",
        "print_config=false",
        "callbacks.live_table=null",
    )
    curves = []
    for number, chosen in enumerate(("tezzeret.compile=true", "tezzeret=none")):
        folder = tmp_path / f"run{number}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch, when it loads code
            entry.train(composed(*common, chosen, output_dir=folder))
        with (folder / "csv" / "metrics.csv").open() as metrics:
            rows = [*csv.DictReader(metrics)]
        curves.append([float(row["val/loss"]) for row in rows if row.get("val/loss")])
        if number == 0:
            told = [float(row["growth/compiled"]) for row in rows if row.get("growth/compiled")]
            assert max(told) >= 1
            assert sum(ran) >= 6, "steps of training, but for those whose operations are counted"
    assert len(curves[0]) >= 8
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
