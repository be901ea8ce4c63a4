"""Augmented images: what is drawn, and on what it depends."""

import hashlib
import itertools
import random
from collections import Counter

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from esper_lightning.tolaria.data import AugmentedPixels, EpochDraws, EpochShuffle, SplitDataModule
from esper_lightning.tolaria.data.augmented import PADDING, random_bits, random_views
from esper_lightning.tolaria.data.labelled import LabelledTensors
from esper_lightning.tolaria.data.pixels import LabelledPixels
from esper_lightning.tolaria.data.stratify import Splits

NUM = 24
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(1, 256, (NUM, 3, 6, 9), generator=GENERATOR, dtype=torch.uint8)
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def augmented(seed: int = 0) -> AugmentedPixels:
    return AugmentedPixels(IMAGES, torch.arange(NUM), mean=MEAN, std=STD, seed=seed)


def every_view(image: torch.Tensor) -> dict[bytes, tuple[int, int, bool]]:
    """Each of the 162 views of an image, cut out one by one."""
    height, width = image.shape[1:]
    views = {}
    for top, left in itertools.product(range(2 * PADDING + 1), repeat=2):
        canvas = torch.zeros(3, height + 2 * PADDING, width + 2 * PADDING, dtype=torch.uint8)
        canvas[:, PADDING:-PADDING, PADDING:-PADDING] = image
        crop = canvas[:, top : top + height, left : left + width]
        for mirrored in (False, True):
            view = crop.flip(2) if mirrored else crop
            views[view.contiguous().numpy().tobytes()] = (top, left, mirrored)
    return views


def test_every_view_occurs_about_equally_often_and_no_other():
    image = torch.randint(1, 256, (3, 10, 10), generator=GENERATOR, dtype=torch.uint8)
    views = every_view(image)
    assert len(views) == 162
    num = 16_200
    drawn = random_views(image.expand(num, -1, -1, -1), torch.arange(num), seed=3)
    counts = Counter(views[view.numpy().tobytes()] for view in drawn)
    assert len(counts) == 162
    # Chi-square with 161 degrees of freedom: mean 161, standard deviation 18.
    assert abs(sum((count - 100) ** 2 / 100 for count in counts.values()) - 161) < 5 * 18


def test_random_bits_are_the_sequence_of_splitmix64():
    # The first outputs for the state 1234567, as other implementations publish them.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    mask, state = 2**64 - 1, 1234567

    def plain(start: int, number: int) -> int:
        z = (start + (number + 1) * 0x9E3779B97F4A7C15) & mask
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    assert [plain(state, number) for number in range(3)] == published
    start = int.from_bytes(hashlib.sha256(b"views 5").digest()[:8], "little")
    found = random_bits(np.arange(2000), seed=5).tolist()
    assert found == [plain(start, number) for number in range(2000)]


def test_an_image_comes_out_the_same_alone_in_any_batch_and_again():
    data = augmented()
    draws = [5 * NUM + 3, 7, 2 * NUM + 7, 5 * NUM + 4]
    inputs, labels = data.__getitems__(draws)
    assert labels.tolist() == [3, 7, 7, 4]
    for position, draw in enumerate(draws):
        alone, label = data[draw]
        assert torch.equal(alone, inputs[position])
        assert label == labels[position]
    assert torch.equal(data.__getitems__(draws[::-1])[0].flip(0), inputs)
    assert torch.equal(augmented().__getitems__(draws)[0], inputs)


def test_stored_images_and_global_generators_are_left_alone():
    before = IMAGES.clone()
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    augmented().__getitems__(range(NUM))[0].add_(1)
    assert torch.equal(IMAGES, before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


def test_epochs_seeds_and_images_are_treated_differently():
    def views(epoch: int, seed: int) -> torch.Tensor:
        return augmented(seed).__getitems__(range(epoch * NUM, (epoch + 1) * NUM))[0]

    drawn = [views(epoch, seed) for epoch in range(4) for seed in range(4)]
    for one, other in itertools.combinations(drawn, 2):
        same = (one == other).flatten(1).all(dim=1)
        assert same.sum() < NUM / 4


def test_the_border_is_black_before_pixels_are_scaled():
    data = augmented()
    inputs = data.__getitems__(range(9 * NUM))[0]
    black = data.prepared(torch.zeros(3, 1, 1, dtype=torch.uint8)).flatten()
    assert torch.allclose(black, -torch.tensor(MEAN) / torch.tensor(STD))
    assert IMAGES.min() > 0
    for channel in range(3):
        assert inputs[:, channel].min() == black[channel]


def test_examples_that_are_taken_are_augmented_too():
    some = augmented(seed=4).take(torch.tensor([3, 5]))
    assert isinstance(some, AugmentedPixels)
    assert some.seed == 4
    assert torch.equal(some.inputs, IMAGES[[3, 5]])


def test_draws_tell_epoch_and_example_in_the_order_of_the_epoch():
    draws, shuffle = EpochDraws(NUM, seed=2), EpochShuffle(NUM, seed=2)
    for epoch in (0, 1, 7):
        draws.set_epoch(epoch)
        shuffle.set_epoch(epoch)
        assert [divmod(draw, NUM) for draw in draws] == [(epoch, index) for index in shuffle]


def test_ranks_share_the_draws_of_one():
    alone = EpochDraws(NUM, seed=2)
    parts = [EpochDraws(NUM, seed=2, rank=rank, num_replicas=3) for rank in range(3)]
    for sampler in (alone, *parts):
        sampler.set_epoch(3)
    whole = list(alone)
    assert [list(part) for part in parts] == [whole[rank::3] for rank in range(3)]


class Toy(SplitDataModule):
    """Augmented training images, plain others."""

    def __init__(self, num_workers: int = 0) -> None:
        super().__init__(
            name="toy",
            input_shape=IMAGES.shape[1:],
            num_classes=NUM,
            batch_size=8,
            seed=1,
            num_workers=num_workers,
        )

    def load(self) -> Splits:
        plain = LabelledPixels(IMAGES, torch.arange(NUM), mean=MEAN, std=STD)
        return Splits(train=augmented(), val=plain, test=plain)


class Recorder(LightningModule):
    """Keeps what it saw, and may save or stop within an epoch."""

    def __init__(self, save_at: tuple[int, int] | None = None, path=None) -> None:
        super().__init__()
        self.layer = nn.Linear(IMAGES[0].numel(), NUM)
        self.save_at, self.path = save_at, path
        self.seen: dict[tuple[int, int], torch.Tensor] = {}

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        self.seen[self.current_epoch, batch_idx] = inputs.clone()
        return nn.functional.cross_entropy(self.layer(inputs.flatten(1)), labels)

    def validation_step(self, batch, batch_idx):
        self.layer(batch[0].flatten(1))

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if (self.current_epoch, batch_idx) == self.save_at:
            self.trainer.save_checkpoint(self.path)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(model: Recorder, num_workers: int, resume=None) -> Recorder:
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(model, datamodule=Toy(num_workers), ckpt_path=resume)
    return model


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("save_at", [(0, 2), (1, 0)], ids=["epoch's end", "within"])
def test_a_resumed_run_sees_the_images_of_the_uninterrupted_one(tmp_path, num_workers, save_at):
    straight = fit(Recorder(save_at, tmp_path / "some.ckpt"), num_workers).seen
    assert straight.keys() == {(epoch, batch) for epoch in range(3) for batch in range(3)}
    resumed = fit(Recorder(), num_workers, resume=tmp_path / "some.ckpt").seen
    assert resumed.keys() == {place for place in straight if place > save_at}
    assert all(torch.equal(resumed[place], straight[place]) for place in resumed)
    # What another number of workers gives, from the data alone.
    data = augmented()
    order = EpochDraws(NUM, seed=1)
    for epoch in range(3):
        order.set_epoch(epoch)
        draws = list(order)
        for batch in range(3):
            expected = data.__getitems__(draws[8 * batch : 8 * batch + 8])[0]
            assert torch.equal(straight[epoch, batch], expected)


def test_only_training_images_are_augmented():
    data = Toy()
    plain = data.splits.val.__getitems__(range(NUM))[0]
    for loader in (data.val_dataloader(), data.test_dataloader()):
        loader.sampler.set_epoch(5)
        assert torch.equal(torch.cat([inputs for inputs, _ in loader]), plain)
    assert torch.equal(data.example_input(4), plain[:4])
    same = [
        torch.equal(image, plain[label])
        for inputs, labels in data.train_dataloader()
        for image, label in zip(inputs, labels, strict=True)
    ]
    assert len(same) == NUM
    assert sum(same) < NUM / 4


def test_other_data_keep_their_order():
    assert LabelledTensors.sampler is EpochShuffle
