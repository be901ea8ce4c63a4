"""MNIST: handwritten digits."""

from typing import ClassVar

from esper_lightning.tolaria.data.idx_images import IdxImages
from esper_lightning.tolaria.data.idx_source import IdxSource, idx_file


class MNIST(IdxImages):
    """60,000 training and 10,000 test images of handwritten digits.

    LeCun, Bottou, Bengio and Haffner 1998, Proceedings of the IEEE 86(11).
    """

    source: ClassVar[IdxSource] = IdxSource(
        name="mnist",
        folders=("mnist", "MNIST/raw"),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        mean=0.1307,
        std=0.3081,
        train_images=idx_file(
            name="train-images-idx3-ubyte",
            gz_sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        train_labels=idx_file(
            name="train-labels-idx1-ubyte",
            gz_sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        test_images=idx_file(
            name="t10k-images-idx3-ubyte",
            gz_sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        test_labels=idx_file(
            name="t10k-labels-idx1-ubyte",
            gz_sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    )
