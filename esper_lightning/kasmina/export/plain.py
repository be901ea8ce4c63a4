"""A grown network without its slots: what is left when nothing grows any more."""

import copy
from typing import Any

from torch import Tensor, nn

from esper_lightning.kasmina.branch import branch_output
from esper_lightning.kasmina.export.errors import NotExportable
from esper_lightning.kasmina.feature_maps import first_argument
from esper_lightning.kasmina.graft import replace_everywhere
from esper_lightning.kasmina.record import SeedRecord
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.kasmina.stand_in import StandIn
from esper_lightning.leyline import GrownSeed, InvalidArgument, SeedStage

_SILENT = (SeedStage.GERMINATED, SeedStage.TRAINING)
_RAMPS = (SeedStage.BLENDING, SeedStage.CULLED)


class Grown(StandIn):
    """A host module with what has grown on it, fixed as it was when the slot was taken away.

    Args:
        slot: whose modules become this one's. A live seed that acts on the output stays, with the
            weight that it has; one that does not is left out.

    Attributes:
        branches: names and parameters of what has grown here.
    """

    alpha: Tensor | None

    def __init__(self, slot: SeedSlot) -> None:
        super().__init__(slot.base_layer)
        acts = slot.seed is not None and slot.record.stage not in _SILENT
        self.fossils = slot.fossils
        self.seed = slot.seed if acts else None
        self.register_buffer("alpha", slot.alpha if slot.record.stage in _RAMPS else None)
        self.branches = [_named(fossil) for fossil in slot.record.fossils]
        if acts and slot.record.seed is not None:
            self.branches.append(_named(slot.record.seed))
        self._sets_input_aside = slot.record.mutates_input and slot.reads_input
        self._stand()

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The host module's output with what has grown added, in the order in which it grew."""
        x: Any = first_argument(self.base_layer, args, kwargs)
        if self._sets_input_aside:
            x = x.clone()
        h: Tensor = self.base_layer(*args, **kwargs)
        for fossil in self.fossils:
            h = h + branch_output(fossil, x, h)
        if self.seed is None:
            return h
        output = branch_output(self.seed, x, h)
        return h + (output if self.alpha is None else self.alpha * output)


def plain(network: nn.Module, *, with_seeds: bool = False) -> nn.Module:
    """A copy of ``network`` that holds no slot, with the same output in eval mode.

    Args:
        network: grown, left as it is.
        with_seeds: keep live seeds as they stand, but for those that do not act on the output yet.

    Raises:
        NotExportable: a seed is alive, and ``with_seeds`` is not set.
        InvalidArgument: ``network`` is no module.
    """
    if not isinstance(network, nn.Module):
        raise InvalidArgument(f"export takes an nn.Module, got {type(network).__name__}")
    if not with_seeds:
        _check_settled(network)
    holder = nn.Sequential(copy.deepcopy(network))
    for slot in [module for module in holder.modules() if isinstance(module, SeedSlot)]:
        grown = Grown(slot)
        bare = not grown.fossils and grown.seed is None
        replace_everywhere(holder, slot, slot.base_layer if bare else grown)
    return holder[0]


def grown_on(network: nn.Module) -> list[str]:
    """What has grown on a network without slots, a line for each branch."""
    return [
        f"{path.replace('.base_layer', '')}: {branch}"
        for path, part in network.named_modules()
        if isinstance(part, Grown)
        for branch in part.branches
    ]


def _check_settled(network: nn.Module) -> None:
    for slot in network.modules():
        if isinstance(slot, SeedSlot) and slot.record.seed is not None:
            raise NotExportable(
                f"slot {slot.path!r} holds a seed in {slot.record.stage.name} "
                f"({slot.record.seed.blueprint}), which is not a part of the network yet; "
                f"fossilise or cull it, or export with with_seeds=True: that keeps live seeds as "
                f"they stand, and leaves out those that do not act on the output"
            )


def _named(branch: GrownSeed | SeedRecord) -> str:
    given = ", ".join(f"{name}={value}" for name, value in branch.parameters.items())
    return f"{branch.blueprint}({given})"
