"""Pictures and masks resized by Pillow's Lanczos filter, as diffusers' VaeImageProcessor does it."""
import numpy as np
import torch
from PIL import Image

from seeded import save_fixture, uniform

SIZES = [((37, 23), (64, 48)), ((100, 80), (64, 64)), ((64, 40), (64, 64)), ((5, 20), (16, 32)), ((91, 67), (88, 64)), ((1, 1), (8, 8))]


def picture(name: str, width: int, height: int, channels: int) -> np.ndarray:
    """Smooth waves with noise on them: filters ring at edges, so there have to be some."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 127 + 90 * np.sin(x / 5.0)[..., None] * np.cos(y[..., None] / 7.0 + np.arange(channels))
    noise = 60 * uniform(name, height * width * channels).reshape(height, width, channels)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


tensors = {}
for i, ((w, h), (to_w, to_h)) in enumerate(SIZES):
    for mode, channels in (("RGB", 3), ("L", 1)):
        pixels = picture(f"{mode}{i}", w, h, channels)
        image = Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels, mode)
        resized = np.asarray(image.resize((to_w, to_h), resample=Image.LANCZOS))
        tensors[f"{mode}{i}.from"] = torch.from_numpy(pixels.astype(np.float32))
        tensors[f"{mode}{i}.to"] = torch.from_numpy(resized.reshape(to_h, to_w, channels).astype(np.float32))
save_fixture("resize", tensors, sizes=[[*a, *b] for a, b in SIZES])
