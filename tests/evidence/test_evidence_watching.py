"""What it costs to be seen: that it is measured, and changes nothing. Never how long it took."""

import json
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from esper_lightning.evidence import scraping, watching
from esper_lightning.evidence.__main__ import main
from esper_lightning.evidence.onlooker import Onlooker
from esper_lightning.nissa.alerts import RULES
from esper_lightning.nissa.metrics.registry import MetricsRegistry
from esper_lightning.nissa.metrics.serving import MetricsServer


@pytest.mark.slow
@pytest.mark.integration
def test_watching(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "watching.json"
    main(["watching", "--quick", "--out", str(out)])
    told = json.loads(out.read_text())
    assert told["command"].startswith("watching --quick")
    everything, scrape = told["figures"]["everything"], told["figures"]["scrape"]
    assert everything["identical"]
    assert everything["epochs"] == scrape["steps"]["epochs"] == 2
    assert min(everything["scrapes"], everything["frames"], everything["posts"]) > 0
    for ratio in ("step", "epoch", "worst", "cpu"):
        assert everything[f"{ratio}_ratio"]["value"] > 0
    steps = scrape["steps"]
    assert steps["seeds"] == scraping.SLOTS == 64
    assert steps["scrapes"] > 0
    for name in (scraping.LEFT_ALONE, scraping.SCRAPED):
        assert steps["p99_ms"][name] >= steps["p50_ms"][name] > 0
    assert [each["what"] for each in scrape["durations"]] == [
        "a scrape of a run at rest",
        "a scrape while it trains",
        "what Nissa adds to a step",
        f"working out {len(RULES)} rules",
    ]
    for each in scrape["durations"]:
        assert each["p95_us"] >= each["p50_us"] > 0
        assert each["num"] > 0
    printed = capsys.readouterr().out
    assert f"| {watching.SEEN} | measured |" in printed
    assert "| same weights at the end | yes |" in printed
    assert "| 64 slots | p50 us |" in printed


def test_an_onlooker_scrapes_until_it_is_told_to_pause() -> None:
    registry = MetricsRegistry(run="a")
    with closing(MetricsServer(registry, 0)) as server, Onlooker(every_s=0.01) as onlooker:
        onlooker.look(f"http://{server.address}/metrics")
        time.sleep(1.0)
        onlooker.pause()
        for _ in range(2):
            urllib.request.urlopen(onlooker.webhook, data=b"{}", timeout=10).close()
        seen = onlooker.end()
    assert len(seen.scrape_s) > 1
    assert (seen.posts, seen.frames, seen.failures) == (2, 0, 0)


def test_an_onlooker_ends_with_who_asked_for_it() -> None:
    with pytest.raises(RuntimeError, match="no more"), Onlooker() as onlooker:
        raise RuntimeError("no more")
    assert onlooker._process.returncode is not None
