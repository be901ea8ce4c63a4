"""Gates: what was measured, beside what was asked."""

from enum import Enum

import msgspec


class Gate(str, Enum):
    """The six questions a seed must answer on its way."""

    G0_SANITY = "G0"
    G1_GRADIENT_HEALTH = "G1"
    G2_STABILITY = "G2"
    G3_INTERFACE = "G3"
    G4_SYSTEM_IMPACT = "G4"
    G5_RESET = "G5"


class Comparison(str, Enum):
    """How a measured value must stand to its threshold."""

    AT_LEAST = ">="
    AT_MOST = "<="


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One value beside its threshold. A missing value (None) never passes."""

    name: str
    value: float | None
    comparison: Comparison
    threshold: float
    unit: str = ""

    @property
    def passed(self) -> bool:
        """True when the value is there and on the right side of the threshold (NaN never is)."""
        if self.value is None:
            return False
        if self.comparison is Comparison.AT_LEAST:
            return self.value >= self.threshold
        return self.value <= self.threshold

    def __str__(self) -> str:
        value = "missing" if self.value is None else f"{self.value:.4g}"
        unit = f" {self.unit}" if self.unit else ""
        mark = "" if self.passed else " (fails)"
        return f"{self.name} {value} {self.comparison.value} {self.threshold:.4g}{unit}{mark}"


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one gate at one boundary, with every measured value."""

    gate: Gate
    measurements: tuple[Measurement, ...]

    @property
    def passed(self) -> bool:
        """True when every measurement passes."""
        return all(measurement.passed for measurement in self.measurements)

    @property
    def failures(self) -> tuple[Measurement, ...]:
        """The measurements that do not pass."""
        return tuple(m for m in self.measurements if not m.passed)

    def __str__(self) -> str:
        told = self.measurements if self.passed else self.failures
        verdict = "passed" if self.passed else "failed"
        return f"{self.gate.value} {verdict}: {'; '.join(str(m) for m in told)}"
