"""`netzip init`: a commented recipe to start from."""

from __future__ import annotations

from pathlib import Path

from netzip_mlflow.errors import InputError

__all__ = ["STARTER", "write"]

STARTER = """\
# A recipe: all that a run depends on. `netzip validate` checks it, `--dry-run` shows a plan.
name: my-network
task: classification
seed: 0

data:
  name: digits             # netzip list data; npz and imagefolder take a path
  validation: 0.2          # selects; a fraction, a count, or {first: 2000, of: test}
  test: 0.2                # final figures only; leave it out where the data set ships a test part
  calibration: 128         # part of train, for quantisation ranges

model:
  name: resnet8            # netzip list models; or factory: "module:function", or uri: models:/...
  # weights: my.safetensors

train: {epochs: 8, optimizer: sgd, lr: 0.1, batch: 64}   # leave it out when weights are given

candidates:                # netzip list techniques; float ones first, then one that deploys
  int8: [ptq]
  half: [half]
  sparse-int8:
    - prune_l1: {ratio: 0.5}
    - finetune: {epochs: 2, lr: 0.02, teacher: baseline}
    - ptq: {}

measure: {threads: 1}
score: {speed: chats, size: disk, max_drop_points: 1.0}
"""


def write(path: Path) -> None:
    """Write the starter.

    Raises:
        InputError: the file exists, or its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(STARTER)
    except OSError as error:
        if path.exists():
            raise InputError("exists already; allowed: a new file's name", str(path)) from None
        raise InputError(f"cannot be written: {error}", str(path)) from None
