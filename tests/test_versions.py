"""The two files of pinned versions keep to what pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOR_CONTRIBUTORS = {"docs", "dev"}


def asked_for(*extras: str) -> list[Requirement]:
    """What is named in the dependencies and the extras, but for the project's own extras."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [r for r in map(Requirement, lines) if r.name != PROJECT["name"]]


def pins(file: str) -> dict[str, Version]:
    """Versions by canonical names; a line that pins nothing is an error."""
    found: dict[str, Version] = {}
    for line in (ROOT / file).read_text().splitlines():
        if line and not line.startswith("#"):
            pin = re.fullmatch(r"([\w.-]+)==([\w.]+)", line)
            assert pin, f"{file}: {line} is no pin"
            name = canonicalize_name(pin[1])
            assert name not in found, f"{file}: {name} twice"
            found[name] = Version(pin[2])
    return found


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-lowest.txt"])
@pytest.mark.parametrize("requirement", asked_for(*EXTRAS), ids=str)
def test_a_pinned_version_is_allowed(file: str, requirement: Requirement) -> None:
    version = pins(file)[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=False), f"{file}: {version}"


@pytest.mark.parametrize(
    "requirement", asked_for(*sorted(EXTRAS.keys() - FOR_CONTRIBUTORS)), ids=str
)
def test_the_lowest_version_that_is_allowed_is_the_one_tested(requirement: Requirement) -> None:
    (lowest,) = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
    assert pins("constraints-lowest.txt")[canonicalize_name(requirement.name)] == lowest


def test_every_extra_for_users_is_in_dev() -> None:
    reached, waiting = set(), ["dev"]
    while waiting:
        extra = waiting.pop()
        reached.add(extra)
        own = [Requirement(r) for r in EXTRAS[extra] if Requirement(r).name == PROJECT["name"]]
        waiting += [other for requirement in own for other in requirement.extras]
    assert reached == set(EXTRAS)
