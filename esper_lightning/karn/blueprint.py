"""Blueprints: what is known about a branch before one is built."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.parameter_space import Choice, Range
from esper_lightning.leyline import (
    Attachment,
    FeatureKind,
    InvalidArgument,
    ParameterValue,
    SlotShape,
)

SPATIAL = frozenset({FeatureKind.SPATIAL})
TOKENS = frozenset({FeatureKind.TOKENS})
FEATURES = frozenset({FeatureKind.VECTOR, FeatureKind.TOKENS})
"""Of branches that work on the last dimension alone."""

NO_PARAMETERS: Mapping[str, ParameterValue] = MappingProxyType({})


class Tier(str, Enum):
    """How far a blueprint is trusted.

    PRODUCTION is offered by default, EXPERIMENTAL on request; ADVERSARIAL is built to do harm and
    serves drills only.
    """

    PRODUCTION = "production"
    EXPERIMENTAL = "experimental"
    ADVERSARIAL = "adversarial"


@dataclass(frozen=True, kw_only=True, slots=True)
class Blueprint:
    """One entry of the catalogue.

    Attributes:
        id: ``BP001`` and so on, of your own with other capitals; never used twice.
        name: what commands and configuration call it.
        branch: the class that it builds.
        kinds: feature maps it can be attached to.
        tier: how far it is trusted.
        risk: of harming its host, 0 (a few scales) to 1 (built to harm).
        curriculum_stage: 1 for what a policy is offered first; a higher stage is offered once it
            handles the lower ones.
        parameters: what the constructor takes beside the shape, and what each may be.
        approval: when the entry was last reviewed, and its version.
        citation: the paper that the branch comes from.
    """

    id: str
    name: str
    branch: type[CountableBranch]
    kinds: frozenset[FeatureKind]
    tier: Tier
    risk: float
    curriculum_stage: int
    parameters: Mapping[str, Range | Choice] = field(default_factory=dict)
    approval: str
    citation: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z]{2,8}\d{3}", self.id):
            raise InvalidArgument(
                f"a blueprint id is two to eight capitals and three digits, got {self.id!r}"
            )
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise InvalidArgument(f"{self.id}: a name is in snake_case, got {self.name!r}")
        if not 0 <= self.risk <= 1:
            raise InvalidArgument(f"{self.id}: risk must be between 0 and 1, got {self.risk}")
        if self.curriculum_stage < 1:
            raise InvalidArgument(
                f"{self.id}: curriculum_stage must be at least 1, got {self.curriculum_stage}"
            )
        for what in ("kinds", "approval", "citation"):
            if not getattr(self, what):
                raise InvalidArgument(f"{self.id}: {what} must not be empty")

    @property
    def attachment(self) -> Attachment:
        """Where the branch reads."""
        return self.branch.attachment

    @property
    def zero_at_birth(self) -> bool:
        """Whether its output is exactly 0 until its first update."""
        return self.branch.zero_at_birth

    def fits(self, shape: SlotShape) -> bool:
        """Whether the branch can be built for ``shape``."""
        kinds = {self.branch.reads(shape).kind, shape.output.kind}
        return len(kinds) == 1 and kinds <= self.kinds and self.branch.fits(shape)

    def resolve(
        self, parameters: Mapping[str, ParameterValue] = NO_PARAMETERS
    ) -> dict[str, ParameterValue]:
        """``parameters`` checked, with the defaults of those that are not named.

        An integer is accepted where a float is asked, and becomes one.

        Raises:
            InvalidArgument: unknown parameter, wrong type, or out of range (NaN included).
        """
        for name, value in parameters.items():
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise InvalidArgument(
                    f"blueprint {self.name!r} has no parameter {name!r} (given {value!r}); "
                    f"its parameters: {known}"
                )
        resolved: dict[str, ParameterValue] = {}
        for name, allowed in self.parameters.items():
            value = parameters.get(name, allowed.default)
            accepted = allowed.accept(value)
            if accepted is None:
                raise InvalidArgument(
                    f"blueprint {self.name!r} takes {name} as {allowed}, got {value!r}"
                )
            resolved[name] = accepted
        return resolved

    def cost(
        self, shape: SlotShape, parameters: Mapping[str, ParameterValue] = NO_PARAMETERS
    ) -> Cost:
        """Parameters and forward FLOPs of one sample, by formula: nothing is built.

        Raises:
            InvalidArgument: it does not fit ``shape``, or does not take ``parameters``.
        """
        return self.branch.cost(shape, **self._checked(shape, parameters))

    def num_parameters(
        self, shape: SlotShape, parameters: Mapping[str, ParameterValue] = NO_PARAMETERS
    ) -> int:
        """Number of trainable scalars; see :meth:`cost`."""
        return self.cost(shape, parameters).parameters

    def num_flops(
        self, shape: SlotShape, parameters: Mapping[str, ParameterValue] = NO_PARAMETERS
    ) -> int:
        """Forward FLOPs of one sample; see :meth:`cost`."""
        return self.cost(shape, parameters).flops

    def build(
        self, shape: SlotShape, parameters: Mapping[str, ParameterValue] = NO_PARAMETERS
    ) -> CountableBranch:
        """A new branch with weights from the global torch generator.

        Raises:
            InvalidArgument: it does not fit ``shape``, or does not take ``parameters``.
        """
        return self.branch(shape, **self._checked(shape, parameters))

    def _checked(
        self, shape: SlotShape, parameters: Mapping[str, ParameterValue]
    ) -> dict[str, ParameterValue]:
        if not self.fits(shape):
            raise InvalidArgument(
                f"blueprint {self.name!r} ({self.attachment.value}, "
                f"{'/'.join(sorted(kind.value for kind in self.kinds))}) does not fit {shape}; "
                f"`fitting(shape)` lists those that do"
            )
        return self.resolve(parameters)
