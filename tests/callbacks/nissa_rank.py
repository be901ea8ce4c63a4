"""One process of a run of several, which writes its metrics: ``python nissa_rank.py FOLDER``."""

import json
import os
import sys
from pathlib import Path

import torch
from runs import Plain, Script, plain_data, plain_trainer, plant

from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.callbacks.nissa import Nissa


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    nissa = Nissa(every_s=60.0)
    kasmina = Kasmina(root="net", slots=["0"], monitor="val_loss")
    tamiyo = Tamiyo(risk=False, policy=Script({0: [plant("0", "parallel_mlp")]}))
    trainer = plain_trainer([tamiyo, kasmina, nissa], epochs=3, strategy="ddp", devices=2)
    trainer.fit(Plain(), *plain_data())
    assert nissa.registry is not None
    told = [[each.name, dict(each.labels), v] for each, v in nissa.registry.samples().items()]
    path = folder / f"{os.environ['RANK']}.json"
    path.write_text(json.dumps({"run": kasmina.run_id, "told": told}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
