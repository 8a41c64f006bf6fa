"""Reads models that `ldm` saved with diffusers and compares a run with its fixture.

python read_back.py CONVERT                    every family's, saved by the example `convert` (the path of its program)
python read_back.py FIXTURE CASE DIRECTORY     a saved diffusers directory (FIXTURE: pipeline_* or checkpoint_*)
python read_back.py FIXTURE CASE FILE          a saved single file (FIXTURE: checkpoint_*)
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import checkpoints
import tiny
from pipelines import run
from seeded import FIXTURES, seeded_weight

# A directory of each family, and a case of it.
DIRECTORIES = {
    "pipeline_sd1": "ddim",
    "pipeline_sd2": "negative",
    "pipeline_sdxl": "default",
    "pipeline_inpaint9": "inpaint_ddim",
    "pipeline_inpaint9_sd2": "inpaint_ddim",
    "pipeline_lcm": "text",
}
FILES = ["checkpoint_sd1", "checkpoint_sd2", "checkpoint_sdxl"]


def compare(name: str, key: str, saved: str):
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
    kind = "directory" if Path(saved).is_dir() else "file"
    print(f"{name} {key}, {kind}: latents {float((latents - expected).abs().max() / expected.abs().max()):.1e}, pixels {pixels}")
    assert pixels <= 1


def draw(shapes: dict) -> dict:
    return {k: seeded_weight(k, s) for k, s in shapes.items()}


def write_directory(fixture, folder: Path):
    """The directory that a fixture describes, as tests/common/mod.rs writes it."""
    files, weights = (json.loads(fixture.metadata()[key]) for key in ("files", "weights"))
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        if path.name == "tokenizer_config.json":
            tiny.bpe_files(path.parent)
    for name, shapes in weights.items():
        save_file(draw(shapes), folder / name)


def every(convert: str):
    def converted(*arguments) -> str:
        subprocess.run([convert, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
        return str(arguments[-1])

    for name, key in DIRECTORIES.items():
        with tempfile.TemporaryDirectory() as folder:
            source, saved = Path(folder, "source"), Path(folder, "saved")
            write_directory(safe_open(FIXTURES / f"{name}.safetensors", "pt"), source)
            compare(name, key, converted("--model", source, "--output", saved))
    for name in FILES:
        with tempfile.TemporaryDirectory() as folder:
            source, yaml = Path(folder, "source.safetensors"), Path(folder, "source.yaml")
            metadata = safe_open(FIXTURES / f"{name}.safetensors", "pt").metadata()
            save_file(draw(json.loads(metadata["checkpoint"])), source)
            yaml.write_text(json.loads(metadata["yaml"]))
            for output in (Path(folder, "saved"), Path(folder, "saved.safetensors")):
                arguments = ["--model", source, "--config", yaml, "--ema", "false", "--output", output]
                compare(name, "image", converted(*arguments))


if __name__ == "__main__":
    every(sys.argv[1]) if len(sys.argv) == 2 else compare(*sys.argv[1:])
