"""Reads models that `ldm` saved with diffusers and compares a run with its fixture.

python read_back.py FIXTURE CASE DIRECTORY     a saved diffusers directory (FIXTURE: pipeline_* or checkpoint_*)
python read_back.py FIXTURE CASE FILE          a saved single file (FIXTURE: checkpoint_*)
"""
import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import checkpoints
import tiny
from pipelines import run
from seeded import FIXTURES


def main(name: str, key: str, saved: str):
    fixture = safe_open(FIXTURES / f"{name}.safetensors", "pt")
    case = json.loads(fixture.metadata()["cases"])[key]
    inputs = {k: fixture.get_tensor(k).numpy() for k in ("image", "mask", "uneven") if k in fixture.keys()}
    if Path(saved).is_dir():
        pipe = getattr(diffusers, case["pipeline"]).from_pretrained(saved)
    else:
        build = dict(checkpoint_sd1=checkpoints.sd1, checkpoint_sd2=checkpoints.sd2, checkpoint_sdxl=checkpoints.sdxl)
        pipe = build[name](only_pipe=True)
        checkpoints.pipeline(load_file(saved), pipe)
    picture, latents = run(pipe, case, inputs)
    expected = fixture.get_tensor(f"{key}.latents")
    pixels = np.abs(picture.astype(int) - fixture.get_tensor(f"{key}.image").numpy().astype(int)).max()
    print(f"{name} {key} {saved}: latents {float((latents - expected).abs().max() / expected.abs().max()):.1e}, pixels {pixels}")
    assert pixels <= 1


if __name__ == "__main__":
    main(*sys.argv[1:])
