"""What torch.save writes, in its several ways: tests/fixtures/weights_*.

Every value is drawn from its name, so the files need no expected values beside them.
"""
import json
import math
import os
import sys
import types
import zipfile
from collections import OrderedDict

import torch
from safetensors import safe_open

from seeded import FIXTURES, seeded_input, seeded_weight


class RunsACommand:
    """Pickles as a call of os.system: what an attacker would put into a checkpoint."""

    def __reduce__(self):
        return os.system, ("touch pickle_was_run",)


def lightning_callback() -> type:
    """A class as Lightning 1.4 has them as keys of a checkpoint's `callbacks`."""
    module = types.ModuleType("pytorch_lightning.callbacks")
    callback = type("ModelCheckpoint", (), dict(__module__=module.__name__))
    module.ModelCheckpoint = callback
    sys.modules["pytorch_lightning"] = types.ModuleType("pytorch_lightning")
    sys.modules[module.__name__] = module
    return callback


def state_dict() -> OrderedDict:
    def drawn(name, shape, dtype=torch.float32):
        return name, seeded_weight(name, shape).to(dtype)

    tensors = OrderedDict([
        drawn("f32.weight", (3, 4, 2)), drawn("f16.weight", (5, 3), torch.float16),
        drawn("bf16.weight", (4, 4), torch.bfloat16), drawn("f64.weight", (2, 7), torch.float64),
        ("parameter.weight", torch.nn.Parameter(seeded_weight("parameter.weight", (6, 2)))),
        ("i64", torch.arange(-3, 9).reshape(3, 4)), ("i32", torch.arange(-2, 3, dtype=torch.int32)),
        ("i16", torch.arange(-2, 3, dtype=torch.int16)), ("i8", torch.arange(-2, 3, dtype=torch.int8)),
        ("u8", torch.arange(250, 256, dtype=torch.uint8)), ("bool", torch.tensor([True, False, True])),
        ("scalar", torch.tensor(0.25)), ("empty", torch.zeros(0, 3)),
    ])
    # Views of one storage: transposed, every other row, a column, one element many times.
    base = seeded_weight("base.weight", (6, 5))
    tensors |= {"base.weight": base, "view.transposed": base.t(), "view.rows": base[1::2], "view.column": base[:, 3],
                "view.tail": base[4:], "view.expanded": base[2, 1].expand(2, 3)}
    return tensors


def first_stage() -> dict:
    """The first stage of pipeline_sd1, every tensor a view of one storage, so that the file stays small."""
    with safe_open(FIXTURES / "pipeline_sd1.safetensors", "pt") as fixture:
        shapes = json.loads(fixture.metadata()["weights"])["vae/diffusion_pytorch_model.safetensors"]
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    shared = seeded_input("weights_vae", (max(sizes.values()),)) * 0.05
    return {name: shared[:sizes[name]].view(shape) for name, shape in shapes.items()}


def main() -> None:
    torch.set_num_threads(1)
    checkpoint = {
        "epoch": 3, "global_step": 2**70, "rate": 1e-4, "pytorch-lightning_version": "1.4.2", "note": None,
        "callbacks": {lightning_callback(): {"best_model_score": torch.tensor(0.5), "dirpath": b"\x00\xff"}},
        "hyper_parameters": types.SimpleNamespace(scale=0.18215), ("a", "tuple"): {1, 2}, "command": RunsACommand(),
        "state_dict": state_dict(),
    }
    checkpoint["itself"] = checkpoint
    whole = FIXTURES / "weights_zip.ckpt"
    torch.save(checkpoint, whole)
    torch.save(checkpoint, FIXTURES / "weights_legacy.ckpt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(whole) as stored, zipfile.ZipFile(
            FIXTURES / "weights_deflated.ckpt", "w", zipfile.ZIP_DEFLATED) as deflated:
        for name in stored.namelist():
            deflated.writestr(zipfile.ZipInfo(name), stored.read(name), zipfile.ZIP_DEFLATED)
    torch.save({"good.weight": seeded_weight("good.weight", (2, 3)), "bad.weight": RunsACommand()},
               FIXTURES / "weights_code.bin")
    torch.save(first_stage(), FIXTURES / "weights_vae.bin")
    for path in sorted(FIXTURES.glob("weights_*")):
        print(f"{path.name}: {path.stat().st_size / 1024:.1f} KiB")


if __name__ == "__main__":
    main()
