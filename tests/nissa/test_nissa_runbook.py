"""The runbook: every alert and every drill stands in it, and rules lead to its sections."""

import re
from pathlib import Path

import yaml

from esper_lightning.nissa.alerts import RULES
from esper_lightning.nissa.alerts.rule_file import RUNBOOK, rule_file
from esper_lightning.nissa.drills import DRILLS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / RUNBOOK).read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\S+)$\n+(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_every_alert_has_its_section_and_no_other_has_one() -> None:
    assert set(SECTIONS) == {rule.name for rule in RULES}


def test_a_section_tells_how_soon_somebody_should_look() -> None:
    for rule in RULES:
        assert SECTIONS[rule.name].startswith(f"**{rule.severity.value.capitalize()}.** "), (
            rule.name
        )


def test_the_rules_of_prometheus_lead_to_the_sections() -> None:
    (alerts, _) = yaml.safe_load(rule_file())["groups"]
    for rule in alerts["rules"]:
        page, _, section = rule["annotations"]["runbook"].partition("#")
        assert (page, section) == (RUNBOOK, rule["alert"])
        assert section in SECTIONS


def test_the_page_tells_what_each_drill_watches() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \| .*? \|$", PAGE, re.MULTILINE))
    assert set(rows) == set(DRILLS)
    for name, drill in DRILLS.items():
        assert tuple(re.findall(r"\[(\w+)\]", rows[name])) == drill.alerts
