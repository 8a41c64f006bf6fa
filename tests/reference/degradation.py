"""The BSR degradations of CompVis/latent-diffusion, every operation at fixed parameters and both pipelines whole.

Writes degradation.safetensors. Random numbers come from a list in the fixture (`units`) and, many at a time, from names
(seeded.py), so that the other side can draw the same. Needs the original repositories (originals.py), OpenCV and SciPy.
"""
import random
import sys
import types

import originals  # noqa: F401

import numpy as np
import scipy
import torch
from scipy import interpolate, ndimage

# Names that newer releases have moved; the arithmetic is theirs. `interp2d` of degree 1 is a bilinear spline, as SciPy's notes
# on its removal say.
scipy.finfo = np.finfo
ndimage.filters = ndimage
interpolate.interp2d = lambda x, y, z: lambda a, b: interpolate.RectBivariateSpline(x, y, z.T, kx=1, ky=1)(a, b).T
sys.modules["albumentations"] = types.ModuleType("albumentations")

from ldm.modules.image_degradation import bsrgan, bsrgan_light, utils_image  # noqa: E402

from seeded import save_fixture, seeded_input, uniform  # noqa: E402

torch.set_num_threads(1)
LONGEST = 60


class Draws:
    """Stands for the random generators of Python and numpy."""

    def __init__(self, name):
        self.name, self.units, self.fields = name, ((uniform(name, LONGEST) + np.float32(1)) / 2).astype(np.float64), 0
        self.used = 0

    def unit(self):
        self.used += 1
        return float(self.units[self.used - 1])

    def normals(self, *shape):
        self.fields += 1
        n = int(np.prod(shape))
        return seeded_input(f"{self.name}.{self.fields - 1}", (n,)).numpy().astype(np.float64).reshape(shape)

    def randint(self, low, high):
        return low + int(self.unit() * (high - low + 1))

    def sample(self, values, n):
        order = list(values)
        assert len(order) == n
        for i in range(n - 1, 0, -1):
            j = self.randint(0, i)
            order[i], order[j] = order[j], order[i]
        return order

    def rand(self, *shape):
        if not shape:
            return self.unit()
        return np.array([self.unit() for _ in range(int(np.prod(shape)))]).reshape(shape)

    def normal(self, loc, scale, shape):
        return loc + scale * self.normals(*shape)

    def multivariate_normal(self, mean, cov, shape):
        values, vectors = np.linalg.eigh(cov)
        root = vectors @ np.diag(np.sqrt(np.abs(values))) @ vectors.T
        return self.normals(*shape, 3) @ root

    def poisson(self, lam):
        lam = np.asarray(lam, dtype=np.float64)
        return np.floor(lam * 1.1) + (np.arange(lam.size) % 3).reshape(lam.shape)

    def __enter__(self):
        self.saved = [(m, n, getattr(m, n)) for m, n in
                      [(random, n) for n in ("random", "randint", "choice", "sample", "uniform")] +
                      [(np.random, n) for n in ("rand", "normal", "multivariate_normal", "poisson")]]
        random.random, random.randint, random.sample = self.unit, self.randint, self.sample
        random.choice = lambda values: values[self.randint(0, len(values) - 1)]
        random.uniform = lambda low, high: low + (high - low) * self.unit()
        np.random.rand, np.random.normal, np.random.poisson = self.rand, self.normal, self.poisson
        np.random.multivariate_normal = self.multivariate_normal
        return self

    def __exit__(self, *_):
        for module, name, value in self.saved:
            setattr(module, name, value)


def picture(name, h, w):
    """Soft shapes with a little grain, u8."""
    y, x = np.mgrid[0:h, 0:w]
    waves = [np.sin(x / (3 + c) + c) * np.cos(y / (5 - c)) for c in range(3)]
    grain = uniform(name, h * w * 3).reshape(h, w, 3)
    return np.clip(127 + 90 * np.stack(waves, 2) + 30 * grain, 0, 255).astype(np.uint8)


def tensor(x):
    return torch.from_numpy(np.ascontiguousarray(x))


outputs, cases = {}, {}
small = picture("small", 29, 37)
outputs["small"] = tensor(small)
single = utils_image.uint2single(small)

cases["anisotropic"] = [[15, 0.7, 6.0, 1.5], [7, 2.9, 0.4, 3.0], [10, 1.2, 2.0, 0.3]]
cases["gaussian"] = [[25, 1.9], [7, 0.35], [6, 0.8]]
kernels = [bsrgan.anisotropic_Gaussian(*case) for case in cases["anisotropic"]]
kernels += [bsrgan.fspecial("gaussian", *case) for case in cases["gaussian"]]
for i, k in enumerate(kernels):
    outputs[f"kernel.{i}"] = tensor(k.astype(np.float32))
    outputs[f"blur.{i}"] = tensor(ndimage.convolve(single, np.expand_dims(k, 2), mode="mirror")[::3, ::3])
cases["shifted"] = [2, 3, 4]
for sf in cases["shifted"]:
    k = bsrgan.shift_pixel(bsrgan.fspecial("gaussian", 25, 1.9), sf)
    outputs[f"shifted.{sf}"] = tensor((k / k.sum()).astype(np.float32))

cases["sizes"] = [[18, 14], [11, 9], [37, 13], [50, 40], [60, 20], [74, 58]]
for w, h in cases["sizes"]:
    for kind in (1, 2, 3):
        outputs[f"resize.{w}x{h}.{kind}"] = tensor(bsrgan.cv2.resize(single, (w, h), interpolation=kind)[::2, ::2])
even = picture("even", 24, 32)
outputs["even"] = tensor(even)
halved = utils_image.uint2single(even)
outputs["resize.even"] = tensor(bsrgan.cv2.resize(halved, (16, 12), interpolation=1))
outputs["imresize.even"] = tensor(utils_image.imresize_np(halved, 1 / 2, True))
outputs["imresize.small"] = tensor(utils_image.imresize_np(single, 1 / 2, True))

cases["qualities"] = [30, 55, 80, 95]
narrow = picture("narrow", 7, 3)
outputs["narrow"] = tensor(narrow)
for name, source in [("small", small), ("even", even), ("narrow", narrow)]:
    for quality in cases["qualities"]:
        saved, random.randint = random.randint, lambda low, high, quality=quality: quality
        outputs[f"jpeg.{name}.{quality}"] = tensor(
            utils_image.single2uint(bsrgan.add_JPEG_noise(utils_image.uint2single(source))))
        random.randint = saved


def with_draws(name, call):
    with Draws(name) as draws:
        result = call()
    outputs[f"units.{name}"] = tensor(draws.units[:draws.used].astype(np.float32))
    return tensor(result)


# Names whose draws take each of the three kinds.
for op in ("add_Gaussian_noise", "add_speckle_noise"):
    seen, i = set(), 0
    while len(seen) < 3:
        name = f"{op}.{i}"
        unit = Draws(name).units[1]
        kind = "colour" if unit > 0.6 else "grey" if unit < 0.4 else "correlated"
        if kind not in seen:
            seen.add(kind)
            outputs[name] = with_draws(name, lambda: getattr(bsrgan, op)(single.copy()))[::2, ::2].contiguous()
            cases.setdefault(op, []).append(name)
        i += 1
seen, i = set(), 0
while len(seen) < 2:
    name = f"poisson.{i}"
    grey = bool(Draws(name).units[1] >= 0.5)
    if grey not in seen:
        seen.add(grey)
        outputs[name] = with_draws(name, lambda: bsrgan.add_Poisson_noise(single.copy()))[::2, ::2].contiguous()
        cases.setdefault("poisson", []).append(name)
    i += 1

square = picture("square", 65, 65)
outputs["square"] = tensor(square)
for module, kind in ((bsrgan, "bsrgan"), (bsrgan_light, "bsrgan_light")):
    for i in range(6):
        sf = [4, 4, 2, 4, 4, 3][i]
        name = f"{kind}.{i}"
        # float32 arithmetic in scipy's and numpy's way is part of what is compared.
        outputs[name] = with_draws(name, lambda: module.degradation_bsrgan_variant(square.copy(), sf=sf)["image"])
        cases.setdefault("runs", []).append([name, kind, sf])

outputs = {k: v.float() if v.dtype == torch.float64 else v for k, v in outputs.items()}
save_fixture("degradation", outputs, **cases)
