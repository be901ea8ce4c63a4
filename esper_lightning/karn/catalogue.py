"""The catalogue: one row for each blueprint, in the order of their ids.

To add one: write its class in the file of its family, and its row here. Ids are given by family:
BP001 affine, BP005 squeeze-excite, BP008 convolution, BP018 attention, BP024 MLP, BP030 low-rank.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from esper_lightning.karn.affine import ChannelAffine, VectorAffine
from esper_lightning.karn.attention import SpatialAttention
from esper_lightning.karn.blueprint import Blueprint, Tier
from esper_lightning.karn.causal import CausalConv, TokenAttention
from esper_lightning.karn.convolution import (
    BottleneckConv,
    ConvNeXt,
    ConvResidual,
    DepthwiseSeparable,
    DilatedConv,
    InvertedResidual,
)
from esper_lightning.karn.low_rank import LowRank, ParallelLowRank
from esper_lightning.karn.mlp import GatedMlp, MlpResidual, ParallelMlp
from esper_lightning.karn.parallel_convolution import (
    ParallelConv,
    ParallelInverted,
    ParallelPointwise,
)
from esper_lightning.karn.parameter_space import Choice, Range
from esper_lightning.karn.squeeze_excite import SqueezeExcite
from esper_lightning.kasmina.branch import Branch
from esper_lightning.leyline import FeatureKind, ParameterValue, SlotShape, UnknownBlueprint

_SPATIAL = frozenset({FeatureKind.SPATIAL})
_TOKENS = frozenset({FeatureKind.TOKENS})
_FEATURES = frozenset({FeatureKind.VECTOR, FeatureKind.TOKENS})

_ROWS = (
    Blueprint(
        id="BP001",
        name="channel_affine",
        branch=ChannelAffine,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.02,
        curriculum_stage=1,
        approval="2026-11 v1",
        citation="Perez et al. 2018, arXiv:1709.07871",
    ),
    Blueprint(
        id="BP002",
        name="vector_affine",
        branch=VectorAffine,
        kinds=_FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.02,
        curriculum_stage=1,
        approval="2026-11 v1",
        citation="Liu et al. 2022, arXiv:2205.05638",
    ),
    Blueprint(
        id="BP005",
        name="squeeze_excite",
        branch=SqueezeExcite,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=1,
        parameters={"reduction": Range(1, 16, 4)},
        approval="2026-11 v1",
        citation="Hu et al. 2018, arXiv:1709.01507",
    ),
    Blueprint(
        id="BP008",
        name="conv_residual",
        branch=ConvResidual,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=1,
        parameters={"kernel_size": Choice((3, 5), 3)},
        approval="2026-11 v1",
        citation="He et al. 2016, arXiv:1603.05027",
    ),
    Blueprint(
        id="BP009",
        name="depthwise_separable",
        branch=DepthwiseSeparable,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.1,
        curriculum_stage=1,
        parameters={"kernel_size": Choice((3, 5, 7), 3)},
        approval="2026-11 v1",
        citation="Howard et al. 2017, arXiv:1704.04861",
    ),
    Blueprint(
        id="BP010",
        name="inverted_residual",
        branch=InvertedResidual,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=2,
        parameters={"expansion": Range(1, 8, 4)},
        approval="2026-11 v1",
        citation="Sandler et al. 2018, arXiv:1801.04381",
    ),
    Blueprint(
        id="BP011",
        name="convnext",
        branch=ConvNeXt,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=2,
        parameters={"expansion": Range(1, 8, 4)},
        approval="2026-11 v1",
        citation="Liu et al. 2022, arXiv:2201.03545",
    ),
    Blueprint(
        id="BP012",
        name="dilated_conv",
        branch=DilatedConv,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=2,
        parameters={"dilation": Range(2, 8, 2)},
        approval="2026-11 v1",
        citation="Yu & Koltun 2016, arXiv:1511.07122",
    ),
    Blueprint(
        id="BP013",
        name="bottleneck_conv",
        branch=BottleneckConv,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.1,
        curriculum_stage=2,
        parameters={"reduction": Range(1, 8, 2)},
        approval="2026-11 v1",
        citation="He et al. 2016, arXiv:1512.03385",
    ),
    Blueprint(
        id="BP014",
        name="parallel_conv",
        branch=ParallelConv,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=1,
        parameters={"expansion": Range(0.25, 8.0, 4.0)},
        approval="2026-11 v1",
        citation="He et al. 2016, arXiv:1512.03385",
    ),
    Blueprint(
        id="BP015",
        name="parallel_pointwise",
        branch=ParallelPointwise,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=1,
        approval="2026-11 v1",
        citation="He et al. 2019, arXiv:1812.01187",
    ),
    Blueprint(
        id="BP016",
        name="parallel_inverted",
        branch=ParallelInverted,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=2,
        parameters={"expansion": Range(0.25, 8.0, 4.0)},
        approval="2026-11 v1",
        citation="Sandler et al. 2018, arXiv:1801.04381",
    ),
    Blueprint(
        id="BP017",
        name="causal_conv",
        branch=CausalConv,
        kinds=_TOKENS,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=1,
        parameters={"expansion": Range(0.25, 8.0, 2.0), "kernel_size": Choice((3, 5, 7), 3)},
        approval="2026-11 v1",
        citation="Wu et al. 2019, arXiv:1901.10430",
    ),
    Blueprint(
        id="BP018",
        name="spatial_attention",
        branch=SpatialAttention,
        kinds=_SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.25,
        curriculum_stage=3,
        parameters={"num_heads": Range(1, 8, 4)},
        approval="2026-11 v1",
        citation="Wang et al. 2018, arXiv:1711.07971",
    ),
    Blueprint(
        id="BP019",
        name="token_attention",
        branch=TokenAttention,
        kinds=_TOKENS,
        tier=Tier.PRODUCTION,
        risk=0.2,
        curriculum_stage=2,
        parameters={"expansion": Range(0.25, 4.0, 1.0), "num_heads": Range(1, 8, 4)},
        approval="2026-11 v1",
        citation="Vaswani et al. 2017, arXiv:1706.03762",
    ),
    Blueprint(
        id="BP024",
        name="mlp_residual",
        branch=MlpResidual,
        kinds=_FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.1,
        curriculum_stage=1,
        parameters={"expansion": Range(0.25, 8.0, 4.0)},
        approval="2026-11 v1",
        citation="Vaswani et al. 2017, arXiv:1706.03762",
    ),
    Blueprint(
        id="BP025",
        name="gated_mlp",
        branch=GatedMlp,
        kinds=_FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=2,
        parameters={"expansion": Range(0.25, 8.0, 2.5)},
        approval="2026-11 v1",
        citation="Shazeer 2020, arXiv:2002.05202",
    ),
    Blueprint(
        id="BP026",
        name="parallel_mlp",
        branch=ParallelMlp,
        kinds=_FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.1,
        curriculum_stage=1,
        parameters={"expansion": Range(0.25, 8.0, 4.0)},
        approval="2026-11 v1",
        citation="Zhang et al. 2019, arXiv:1901.09321",
    ),
    Blueprint(
        id="BP030",
        name="low_rank",
        branch=LowRank,
        kinds=_FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=1,
        parameters={"rank": Range(1, 64, 8)},
        approval="2026-11 v1",
        citation="Hu et al. 2022, arXiv:2106.09685",
    ),
    Blueprint(
        id="BP031",
        name="parallel_low_rank",
        branch=ParallelLowRank,
        kinds=_FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=1,
        parameters={"rank": Range(1, 64, 8)},
        approval="2026-11 v1",
        citation="Hu et al. 2022, arXiv:2106.09685",
    ),
)

CATALOGUE: Mapping[str, Blueprint] = MappingProxyType({row.name: row for row in _ROWS})
"""Every blueprint by its name, in the order of their ids."""


def get(name: str) -> Blueprint:
    """The blueprint called ``name``.

    Raises:
        UnknownBlueprint: there is none.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    close = get_close_matches(name, CATALOGUE)
    hint = f"did you mean {' or '.join(repr(match) for match in close)}? " if close else ""
    raise UnknownBlueprint(f"no blueprint {name!r}; {hint}the catalogue has {', '.join(CATALOGUE)}")


def build(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    """Build a blueprint for a slot: the ``BuildBranch`` that slots are handed.

    Raises:
        UnknownBlueprint: there is no blueprint ``name``.
        InvalidArgument: it does not fit ``shape``, or does not take ``parameters``.
    """
    return get(name).build(shape, parameters)
