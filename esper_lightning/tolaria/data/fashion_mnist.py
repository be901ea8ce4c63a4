"""Fashion-MNIST: photographs of clothes."""

from typing import ClassVar

from esper_lightning.tolaria.data.idx_images import IdxImages
from esper_lightning.tolaria.data.idx_source import IdxSource, idx_file


class FashionMNIST(IdxImages):
    """60,000 training and 10,000 test images of clothes.

    Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747.
    """

    source: ClassVar[IdxSource] = IdxSource(
        name="fashion_mnist",
        folders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        mean=0.2860,
        std=0.3530,
        train_images=idx_file(
            name="train-images-idx3-ubyte",
            gz_sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        train_labels=idx_file(
            name="train-labels-idx1-ubyte",
            gz_sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        test_images=idx_file(
            name="t10k-images-idx3-ubyte",
            gz_sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        test_labels=idx_file(
            name="t10k-labels-idx1-ubyte",
            gz_sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    )
