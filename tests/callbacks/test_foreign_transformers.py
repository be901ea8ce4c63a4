"""Encoders and language models of Hugging Face, from a configuration: nothing is downloaded.

Without dropout, which draws from generators that a checkpoint of Lightning does not hold.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from runs import FREE, Script, plant, same, tell, weights
from torch import Tensor
from torch.utils.data import DataLoader

from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.kasmina import possible_slots
from esper_lightning.leyline import CommandKind, FeatureKind, SeedStage, SlotUnsuitable

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


def bert() -> Any:
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=12, num_labels=3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def gpt2() -> Any:
    config = transformers.GPT2Config(
        vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=12, bos_token_id=0,
        eos_token_id=0, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


PATHS = {
    "bert": ("bert.encoder.layer.0.output", "bert.encoder.layer.1.attention.output.dense"),
    "gpt2": ("transformer.h.0.mlp", "transformer.h.1.mlp.c_fc"),
}
MAKE = {"bert": bert, "gpt2": gpt2}
every_model = pytest.mark.parametrize("name", MAKE)


def rows() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 30, (48, 9), generator=generator)
    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]


class Tuned(LightningModule):
    """A model of Hugging Face in somebody's LightningModule."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name = name
        self.model = MAKE[name]()

    def _loss(self, batch: dict[str, Tensor]) -> Tensor:
        ids = batch["input_ids"]
        labels = ids if self.name == "gpt2" else ids[:, 0] % 3
        loss: Tensor = self.model(**batch, labels=labels).loss
        return loss

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val_loss", self._loss(batch), batch_size=16)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, 2, 20)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def fit(name: str, paths: tuple[str, ...], *, how: str, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(1)
    path = f"model.{paths[0]}"
    lines = {0: [plant(path, "parallel_mlp")], 3: [tell(CommandKind.FOSSILIZE, path)]}
    if how != "direct":
        lines = {0: [plant(path, "parallel_mlp")]}
    kasmina = Kasmina(
        slots=[f"model.{path}" for path in paths], monitor="val_loss", rules=FREE, incubation=how
    )
    module = Tuned(name)
    data = DataLoader(rows(), batch_size=16)
    callbacks = [kasmina, Tamiyo(risk=False, policy=Script(lines)), *options.pop("callbacks", ())]
    ckpt_path = options.pop("ckpt_path", None)
    trainer = Trainer(
        accelerator="cpu", max_epochs=5, logger=False, callbacks=callbacks,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(module, data, data, ckpt_path=ckpt_path)
    return module, kasmina.bed.slots[path]


@every_model
def test_useful_places_are_found(name: str) -> None:
    model = MAKE[name]().train()
    batch = {key: value[None] for key, value in rows()[0].items()}
    found = {slot.path: slot for slot in possible_slots(model, lambda: model(**batch))}
    assert set(PATHS[name]) <= set(found)
    assert {found[path].shape.input.kind for path in PATHS[name]} == {FeatureKind.TOKENS}
    suggested = [path for path, slot in found.items() if slot.suggested]
    assert any(path.startswith(("bert.encoder.layer.0", "transformer.h.0")) for path in suggested)
    assert not {"classifier", "lm_head"} & set(suggested), "heads make the output"
    assert model.training


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize("how", ["direct", "straight_through"])
@every_model
def test_a_transformer_grows_and_resumes(name: str, how: str, tmp_path: Path) -> None:
    every = ModelCheckpoint(
        dirpath=tmp_path, filename="{epoch}", auto_insert_metric_name=False,
        save_top_k=-1, save_on_train_epoch_end=True,
    )  # fmt: skip
    grown, slot = fit(name, PATHS[name], how=how, callbacks=[every])
    if how == "direct":
        assert [fossil.blueprint for fossil in slot.record.fossils] == ["parallel_mlp"]
    else:
        assert slot.record.seed is not None
        assert slot.record.stage is not SeedStage.GERMINATED
    resumed, _ = fit(
        name, PATHS[name], how=how, enable_checkpointing=False, ckpt_path=tmp_path / "1.ckpt"
    )
    assert same(weights(grown), weights(resumed))


@pytest.mark.parametrize(
    ("name", "path"), [("bert", "bert.encoder.layer.0.attention"), ("gpt2", "transformer.h.0.attn")]
)
def test_a_block_that_returns_a_tuple_says_what_to_choose(name: str, path: str) -> None:
    with pytest.raises(SlotUnsuitable, match=rf"{path}.* returns tuple, a slot needs one tensor"):
        fit(name, (path,), how="direct", enable_checkpointing=False)
