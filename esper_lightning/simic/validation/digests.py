"""Which policy is meant: digests that do not hang on a file's name or number."""

import hashlib

from esper_lightning.tamiyo.learned import PolicyNetwork


def weights_digest(network: PolicyNetwork) -> str:
    """SHA-256 of a network's weights and scales, by name: the same under any version.

    It is that of ``adapters.digest_of``, of a network without adapters.
    """
    told = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        told.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        told.update(value.detach().cpu().contiguous().numpy().tobytes())
    return told.hexdigest()


def bytes_digest(data: bytes) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
