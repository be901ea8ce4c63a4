"""The files of ``infra/``: what the code makes, and nothing in them that the code does not have."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from esper_lightning.nissa.alerts import OBJECTIVES, RULES
from esper_lightning.nissa.alerts.rule_file import WINDOWS_S, burn_rate_name, remaining_name
from esper_lightning.nissa.alerts.yaml_text import yaml_text
from esper_lightning.nissa.infra import infra_files
from esper_lightning.nissa.infra.__main__ import main
from esper_lightning.nissa.infra.dashboards import BOARDS
from esper_lightning.nissa.infra.settings import DATA_SOURCE, MACHINE, METRICS_PORT, SERVER_PORT
from esper_lightning.nissa.metrics import METRICS, series_names
from esper_lightning.nissa.server import create_app

INFRA = Path(__file__).parents[2] / "infra"
OURS = re.compile(r"\b(?:tolaria|kasmina|tamiyo|simic|oona|tezzeret|urza|nissa)_[a-z][a-z_]*\b")
RECORDED = {
    name
    for each in OBJECTIVES
    for name in (
        *(burn_rate_name(each, window) for window in (*WINDOWS_S, 30 * 86_400)),
        remaining_name(each),
    )
}


@pytest.mark.parametrize("name", infra_files())
def test_a_file_is_what_the_code_makes(name: str) -> None:
    text = (INFRA / name).read_text(encoding="utf-8")
    assert text == infra_files()[name], "python -m esper_lightning.nissa.infra"


def test_no_other_file_lies_in_the_folders_that_are_made() -> None:
    made = {INFRA / name for name in infra_files()}
    there = {path for path in INFRA.rglob("*") if path.is_file() and path.parent != INFRA}
    assert there == made


def test_every_name_of_ours_exists() -> None:
    known = {name for metric in METRICS.values() for name in series_names(metric)}
    known |= {rule.name for rule in RULES}
    for path in INFRA.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert set(OURS.findall(text)) <= known, path
            assert set(re.findall(r"esper:[a-z_]+:[a-z_0-9]+", text)) <= RECORDED, path


def test_every_metric_that_is_not_a_label_of_others_is_on_a_dashboard() -> None:
    shown = " ".join(infra_files()[f"grafana/dashboards/{name}.json"] for name in BOARDS)
    missing = [
        name
        for name in METRICS
        if name not in shown
        and name not in infra_files()["prometheus/rules.yml"]
        and name not in ("tezzeret_compile_seconds_total", "tamiyo_policy_changes_total")
    ]
    assert missing == []


def test_dashboards_name_our_source_and_labels_that_there_are() -> None:
    for name in BOARDS:
        board = json.loads(infra_files()[f"grafana/dashboards/{name}.json"])
        assert board["uid"] == f"esper-{name}"
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
        assert len(places) == len(board["panels"])
        for panel in board["panels"]:
            assert panel["datasource"]["uid"] == DATA_SOURCE
            for target in panel["targets"]:
                _check_labels(target["expr"], target["legendFormat"])


def _check_labels(promql: str, legend: str) -> None:
    asked = set(re.findall(r"\{\{(\w+)\}\}", legend))
    asked |= {each for by in re.findall(r"by \(([^)]*)\)", promql) for each in by.split(", ")}
    known = {"run", "rank", "le"}
    for name in OURS.findall(promql):
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        known |= set(METRICS.get(name, METRICS.get(base, None)).labels)  # type: ignore[union-attr]
    assert asked <= known, (promql, legend)


def test_the_settings_reach_each_other() -> None:
    scraped = yaml.safe_load(infra_files()["prometheus/prometheus.yml"])
    targets = scraped["scrape_configs"][0]["static_configs"][0]["targets"]
    assert f"{MACHINE}:{METRICS_PORT}" in targets
    compose = yaml.safe_load((INFRA / "docker-compose.monitoring.yml").read_text(encoding="utf-8"))
    services = compose["services"]
    assert scraped["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == [
        "alertmanager:9093"
    ]
    source = yaml.safe_load(infra_files()["grafana/provisioning/datasources/prometheus.yml"])
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert set(services) == {"prometheus", "alertmanager", "grafana"}
    provider = yaml.safe_load(infra_files()["grafana/provisioning/dashboards/esper.yml"])
    path = provider["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{path}:ro" in services["grafana"]["volumes"]
    text = (INFRA / "docker-compose.monitoring.yml").read_text(encoding="utf-8")
    assert f"nissa.port={METRICS_PORT}" in text
    assert f"{MACHINE}:{SERVER_PORT}" in targets
    assert f"NISSA_HOSTS={MACHINE} uvicorn" in text  # under another name it answers nobody


@pytest.mark.parametrize(("hosts", "status"), [([], 400), ([MACHINE], 200)])
def test_mission_control_answers_prometheus_where_it_is_told_to(
    hosts: list[str], status: int, tmp_path: Path
) -> None:
    app = create_app(runs=[], folder=tmp_path, token="a-token-for-tests-only", hosts=hosts)
    scrape = TestClient(app, base_url=f"http://{MACHINE}:{SERVER_PORT}")
    assert scrape.get("/metrics").status_code == status


@pytest.mark.parametrize("path", sorted(INFRA.glob("docker-compose*.yml")), ids=lambda p: p.name)
def test_nothing_listens_beyond_this_machine(path: Path) -> None:
    compose: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            is_folder = source.startswith("./")
            assert (INFRA / source).is_dir() if is_folder else source in compose["volumes"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_settings() -> None:
    path = INFRA / "prometheus" / "prometheus.yml"
    done = subprocess.run(
        ["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed")
def test_amtool_takes_the_routes() -> None:
    path = INFRA / "alertmanager" / "alertmanager.yml"
    done = subprocess.run(
        ["amtool", "check-config", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_writes_and_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--out", str(tmp_path)]
    assert main([*folder, "--check"]) == 1
    assert not list(tmp_path.iterdir())
    assert main(folder) == 0
    assert main([*folder, "--check"]) == 0
    (tmp_path / "prometheus" / "rules.yml").write_text("groups: []\n", encoding="utf-8")
    capsys.readouterr()
    assert main([*folder, "--check"]) == 1
    assert capsys.readouterr().out.count("is not what the code makes") == 1


@pytest.mark.parametrize(
    "value",
    [
        {"a": ["x", {"b": [], "c": {}}, ["d", "e"]], "on": "off", "n": None, "t": "true"},
        {"text": 'quoted "so" \\ {{x}}: # no comment', "number": 1.5, "flag": True, "empty": ""},
        [],
        "é: ü",
    ],
)
def test_yaml_is_read_as_it_was_meant(value: Any) -> None:
    assert yaml.safe_load(yaml_text(value)) == value
