"""Low-rank adapters on a policy, whose own weights stay as they are.

They are those of Hu et al. 2021 (LoRA, arXiv:2106.09685), as PEFT makes them.
"""

import copy
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from esper_lightning.leyline import DecodeError, InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.simic.learning.advantages import check_share
from esper_lightning.tamiyo.learned import PolicyNetwork, StoredPolicy

ENCODER = ("query", "key", "value", "output", "expand", "project")
DECODER = (
    "kind",
    "slot_query",
    "slot_key",
    "blueprint_query",
    "blueprint_key",
    "pair",
    "pair_context",
    "pair_score",
    "share_expand",
    "share",
    "chosen_slot",
    "chosen_blueprint",
    "update",
)
TARGETS = (*ENCODER, *DECODER)
"""Linear layers that get an adapter: those of the encoder's blocks and of the decoder, and the last
one of the value, which has the name of an attention's. The embeddings of features do not."""

RETRAINED = ("value_expand",)
"""Layers that are trained as a whole, in a copy: cloning leaves the value as it was drawn at
random, and a change of low rank to that is not enough."""

NOTE_NAME = "esper_adapter.json"
"""File name of what PEFT does not keep, beside its own two."""


class Note(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What belongs to saved adapters.

    Attributes:
        base: name of the policy that they are for.
        base_version: of it.
        base_digest: :func:`digest_of` its network.
        version: of the policy that they make of it.
    """

    base: str
    base_version: int
    base_digest: str
    version: int


def digest_of(network: nn.Module) -> str:
    """SHA-256 of a policy network's own weights and scales, with adapters around them or not."""
    told = hashlib.sha256()
    own = {
        _own_name(key): value for key, value in network.state_dict().items() if not _is_added(key)
    }
    for key in sorted(own):
        value = own[key].detach().cpu().contiguous()
        told.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        told.update(value.numpy().tobytes())
    return told.hexdigest()


class Adapted(nn.Module):
    """A policy network with adapters, at first equal to its base in all that it says.

    Args:
        base: the policy; its network is copied.
        rank: of the adapters.
        alpha: what they add is scaled by ``alpha / rank``.
        dropout: before each adapter, in training. Ratios of probabilities become noisy by it.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    def __init__(
        self, base: StoredPolicy, *, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_whole("rank", rank, least=1)
        check_number("alpha", alpha)
        check_share("dropout", dropout)
        if not 0 < alpha < float("inf") or dropout == 1:
            raise InvalidArgument(
                f"alpha must be above 0 and dropout below 1, got {alpha} and {dropout}"
            )
        options: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
        config = LoraConfig(
            target_modules=list(TARGETS), modules_to_save=list(RETRAINED), **options
        )
        self.base = base.card
        self.base_digest = digest_of(base.network)
        self.peft: Any = get_peft_model(_plain(base), config)

    @property
    def network(self) -> PolicyNetwork:
        """The network that is evaluated, its linear layers with adapters around them."""
        found = self.peft.base_model.model
        assert isinstance(found, PolicyNetwork)
        return found

    @contextmanager
    def base_alone(self) -> Iterator[PolicyNetwork]:
        """The network without what was learned, inside."""
        with self.peft.disable_adapter():
            yield self.network

    def learned(self) -> dict[str, Tensor]:
        """The weights that are trained, by their names in :meth:`state_dict`."""
        return {key: value for key, value in self.state_dict().items() if _is_added(key)}

    def check_frozen(self) -> None:
        """Make sure that the base is what it was.

        Raises:
            InvalidArgument: something trained or replaced it.
        """
        found = digest_of(self.network)
        if found != self.base_digest:
            raise InvalidArgument(
                f"the weights of the base {self.base.name}@{self.base.version} have the digest "
                f"{found}, they had {self.base_digest}: train the parameters that require "
                f"gradients and no others"
            )

    def merged(
        self, *, name: str, version: int, provenance: Mapping[str, Any] | None = None
    ) -> StoredPolicy:
        """A policy of plain layers that decides as this one does, within rounding.

        Args:
            name: of the policy.
            version: of it.
            provenance: where it comes from; base and its digest are added.

        Raises:
            InvalidArgument: the base is no longer what it was, or weights are not finite.
        """
        self.check_frozen()
        network = copy.deepcopy(self.peft).merge_and_unload()
        assert isinstance(network, PolicyNetwork)
        base = {
            "name": self.base.name,
            "version": self.base.version,
            "digest": self.base_digest,
            "provenance": self.base.provenance.get("by"),
        }
        return StoredPolicy.of(
            network, name=name, version=version, provenance={**(provenance or {}), "base": base}
        )

    def save(self, folder: Path | str, *, version: int) -> None:
        """Write the adapters as PEFT writes them, and a note of the base beside them.

        Args:
            folder: is made; files of the same names in it are replaced.
            version: of the policy that they make of the base.
        """
        place = Path(folder)
        self.peft.save_pretrained(place, save_embedding_layers=False)
        note = Note(
            base=self.base.name,
            base_version=self.base.version,
            base_digest=self.base_digest,
            version=version,
        )
        (place / NOTE_NAME).write_bytes(msgspec.json.encode(note) + b"\n")

    @classmethod
    def load(cls, folder: Path | str, base: StoredPolicy) -> tuple["Adapted", Note]:
        """Read what :meth:`save` wrote, ready to be trained further.

        Args:
            folder: with the files.
            base: the policy that the adapters are for; PEFT itself takes any of the same sizes.

        Raises:
            InvalidArgument: a file is missing, or they are for another base.
            DecodeError: the note is none.
        """
        place = Path(folder)
        missing = [
            name
            for name in (NOTE_NAME, "adapter_config.json", "adapter_model.safetensors")
            if not (place / name).is_file()
        ]
        if missing:
            raise InvalidArgument(f"{place} has no {missing[0]}; name a folder of saved adapters")
        try:
            note = msgspec.json.decode((place / NOTE_NAME).read_bytes(), type=Note)
        except msgspec.MsgspecError as error:
            raise DecodeError(f"{place / NOTE_NAME} is damaged: {error}") from error
        found = digest_of(base.network)
        if found != note.base_digest:
            raise InvalidArgument(
                f"the adapters in {place} are for {note.base}@{note.base_version} with the digest "
                f"{note.base_digest}, got {base.card.name}@{base.card.version} with {found}"
            )
        return cls._around(base, place), note

    @classmethod
    def _around(cls, base: StoredPolicy, place: Path) -> "Adapted":
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.base, made.base_digest = base.card, digest_of(base.network)
        made.peft = PeftModel.from_pretrained(_plain(base), str(place), is_trainable=True)
        return made


def _plain(base: StoredPolicy) -> Any:
    """A copy of the network, which PEFT takes as any module though it names one of transformers."""
    return copy.deepcopy(base.network)


def _is_added(key: str) -> bool:
    return "lora_" in key or ".modules_to_save." in key


def _own_name(key: str) -> str:
    return key.replace(".base_layer.", ".").replace(".original_module.", ".")
