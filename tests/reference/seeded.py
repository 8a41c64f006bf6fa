"""Weights and inputs drawn from a name, bit for bit as tests/support/src/seeded.rs draws them."""
import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def uniform(name: str, n: int) -> np.ndarray:
    """n values in [-1, 1): FNV-1a of the name seeds SplitMix64, 24 bits an element."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(8388608.0) - np.float32(1.0)


def seeded_weight(name: str, shape) -> torch.Tensor:
    shape, n = tuple(shape), math.prod(shape)
    u = uniform(name, n)
    if len(shape) < 2:
        offset = np.float32(1.0 if name.endswith("weight") else 0.0)
        values = offset + np.float32(0.1) * u
    else:
        values = u * np.float32(math.sqrt(3.0 / math.prod(shape[1:])))
    return torch.from_numpy(values.reshape(shape))


def seeded_input(name: str, shape) -> torch.Tensor:
    values = uniform(name, math.prod(shape)) * np.float32(math.sqrt(3.0))
    return torch.from_numpy(values.reshape(tuple(shape)))


def seed_module(module: torch.nn.Module, prefix: str = "") -> dict:
    """Gives every float tensor of the state dict its seeded weight; returns name -> shape."""
    state = module.state_dict()
    shapes = {prefix + k: list(v.shape) for k, v in state.items() if v.is_floating_point()}
    drawn = {k: seeded_weight(prefix + k, v.shape) for k, v in state.items() if v.is_floating_point()}
    module.load_state_dict(drawn, strict=False)
    return shapes


def save_fixture(name: str, tensors: dict, **metadata) -> None:
    """Writes tests/fixtures/{name}.safetensors; metadata values are kept as JSON."""
    path = FIXTURES / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().contiguous() for k, v in tensors.items()}
    save_file(tensors, path, {k: json.dumps(v) for k, v in metadata.items()})
    print(f"{path.name}: {path.stat().st_size / 1024:.1f} KiB")
