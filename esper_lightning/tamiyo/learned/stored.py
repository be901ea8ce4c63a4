"""A policy as a file: safetensors with a card of what it is. Nothing in it is code.

The layout is that of safetensors (its README, "Format"): eight bytes with the length of a JSON
header, the header, the numbers. The card is JSON text in the header's ``__metadata__``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from esper_lightning.leyline import DecodeError, InvalidArgument
from esper_lightning.tamiyo.learned.network import Architecture, PolicyNetwork
from esper_lightning.tamiyo.observation import KINDS, VERSION

FORMAT = 1
"""Of the card. Another one is refused."""

MAX_POLICY_BYTES = 2**25
"""The largest architecture that is allowed has 27 MB of weights."""

MAX_HEADER_BYTES = 2**20
"""The header of the largest architecture, with its provenance, is far below."""

DEFAULT = Path(__file__).with_name("default.safetensors")
"""The policy that comes with this package, which learned from runs."""

CLONED = Path(__file__).with_name("cloned.safetensors")
"""What it began with: the heuristic, cloned."""

_CARD = "esper_policy"
_KINDS = tuple(kind.value for kind in KINDS)
_LENGTH_BYTES = 8


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a policy is.

    Attributes:
        name: of the policy, under which it is published.
        version: at least 1; a higher one replaces a lower.
        architecture: sizes of its network.
        provenance: where it comes from, JSON: data, seeds, how well it agrees.
        observation: version of the features that it learned from.
        kinds: what it chooses between, in the order of its outputs.
        format: of this card.
    """

    name: str
    version: int
    architecture: Architecture
    provenance: dict[str, Any] = {}
    observation: int = VERSION
    kinds: tuple[str, ...] = _KINDS
    format: int = FORMAT

    def __post_init__(self) -> None:
        if not self.name or self.version < 1:
            raise InvalidArgument(
                f"a policy has a name and a version of at least 1, got {self.name!r}, version "
                f"{self.version}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """A network and what it is.

    Attributes:
        card: what it is.
        network: in evaluation mode, without gradients.
    """

    card: Card
    network: PolicyNetwork

    @classmethod
    def of(
        cls,
        network: PolicyNetwork,
        *,
        name: str,
        version: int,
        provenance: Mapping[str, Any] | None = None,
    ) -> "StoredPolicy":
        """What is to be stored; the network's weights are copied.

        Raises:
            InvalidArgument: no name, a version below 1, or weights that are not finite.
        """
        card = Card(
            name=name,
            version=version,
            architecture=network.architecture,
            provenance=dict(provenance or {}),
        )
        weights = {key: value.detach().clone() for key, value in network.state_dict().items()}
        broken = _broken(weights)
        if broken:
            raise InvalidArgument(f"weights of a policy are finite, those of {broken} are not")
        return cls(card=card, network=_built(card.architecture, weights))

    @classmethod
    def load(cls, path: Path | str | None = None) -> "StoredPolicy":
        """Read a file; None reads the policy that comes with this package, "cloned" its start.

        Raises:
            InvalidArgument: there is no such file.
            DecodeError: it is no policy, or not one of this release.
        """
        found = DEFAULT if path is None else CLONED if str(path) == "cloned" else Path(path)
        if not found.is_file():
            raise InvalidArgument(
                f"there is no policy {found}; name a file that was written by "
                "StoredPolicy.to_bytes, cloned, or none for the policy that comes with this package"
            )
        if found.stat().st_size > MAX_POLICY_BYTES:
            raise DecodeError(
                f"{found} has {found.stat().st_size:,} bytes, a policy at most {MAX_POLICY_BYTES:,}"
            )
        return cls.from_bytes(found.read_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> "StoredPolicy":
        """Read what :meth:`to_bytes` wrote.

        Raises:
            DecodeError: too large, truncated, no safetensors, another format, other features,
                weights of other names, sizes or types than the architecture's, or not finite.
        """
        card = _card(data)
        try:
            weights = load(data)
        except (SafetensorError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            raise DecodeError(f"this is no policy: {error}") from error
        expected = _shapes(card.architecture)
        found = {key: (value.dtype, tuple(value.shape)) for key, value in weights.items()}
        if found != expected:
            odd = sorted(
                key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
            )
            raise DecodeError(
                f"the weights are not those of {card.architecture}: {odd[0]} is "
                f"{found.get(odd[0], 'missing')}, should be {expected.get(odd[0], 'absent')}"
            )
        broken = _broken(weights)
        if broken:
            raise DecodeError(f"the weights of {broken} are not finite")
        return cls(card=card, network=_built(card.architecture, weights))

    def to_bytes(self) -> bytes:
        """The file."""
        weights = {key: value.contiguous() for key, value in self.network.state_dict().items()}
        return save(weights, metadata={_CARD: msgspec.json.encode(self.card).decode()})


class _Header(msgspec.Struct, frozen=True):
    """The part of the header that is looked at before the rest of the file."""

    metadata: dict[str, str] = msgspec.field(name="__metadata__")


def _card(data: bytes) -> Card:
    if len(data) > MAX_POLICY_BYTES:
        raise DecodeError(f"a policy has at most {MAX_POLICY_BYTES:,} bytes, got {len(data):,}")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if len(data) < _LENGTH_BYTES or not 0 < length <= min(MAX_HEADER_BYTES, len(data)):
        raise DecodeError(f"this is no policy: {len(data):,} bytes, which are not safetensors")
    try:
        header = msgspec.json.decode(data[_LENGTH_BYTES : _LENGTH_BYTES + length], type=_Header)
        told = header.metadata.get(_CARD, "")
        formats = msgspec.json.decode(told, type=_Format)
        if formats.format != FORMAT or formats.observation != VERSION:
            raise DecodeError(
                f"a policy of format {formats.format} on observations of version "
                f"{formats.observation}; this release has format {FORMAT} and observations "
                f"of version {VERSION}"
            )
        card = msgspec.json.decode(told, type=Card)
    except (msgspec.MsgspecError, InvalidArgument, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"this is no policy: {error}") from error
    if card.kinds != _KINDS:
        raise DecodeError(f"a policy that chooses between {card.kinds} is none of this release")
    return card


class _Format(msgspec.Struct, frozen=True):
    """The part of the card that says whether the rest can be read."""

    format: int
    observation: int


def _shapes(architecture: Architecture) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    with torch.device("meta"):
        empty = PolicyNetwork(architecture)
    return {key: (value.dtype, tuple(value.shape)) for key, value in empty.state_dict().items()}


def _built(architecture: Architecture, weights: dict[str, Tensor]) -> PolicyNetwork:
    """The network with these weights, and nothing drawn at random."""
    with torch.device("meta"):
        network = PolicyNetwork(architecture)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def _broken(weights: Mapping[str, Tensor]) -> str:
    """The first name of weights that are not all finite, or nothing."""
    return next((key for key, value in weights.items() if not value.isfinite().all()), "")
