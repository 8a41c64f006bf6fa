"""KL first stages: CompVis' ldm.models.autoencoder.AutoencoderKL and diffusers' AutoencoderKL.

Writes vae_*.safetensors. Weights and inputs are drawn by name (seeded.py); a fixture holds the config, the
parameter names and what the reference computes.
"""
import sys
import types

import torch

# The original imports these to train; nothing below needs them.
lightning = types.ModuleType("pytorch_lightning")
lightning.LightningModule = torch.nn.Module
sys.modules.setdefault("pytorch_lightning", lightning)

from diffusers import AutoencoderKL as Diffusers  # noqa: E402
from ldm.models.autoencoder import AutoencoderKL as CompVis  # noqa: E402
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution  # noqa: E402

from seeded import save_fixture, seed_module, seeded_input  # noqa: E402

torch.set_num_threads(1)


def ddconfig(z, ch, ch_mult, attn, **other):
    return dict(double_z=True, z_channels=z, resolution=256, in_channels=3, out_ch=3, ch=ch, ch_mult=ch_mult,
                num_res_blocks=2, attn_resolutions=attn, dropout=0.0) | other


def compvis(embed_dim, dd):
    return CompVis(ddconfig=dict(dd), lossconfig={"target": "torch.nn.Identity"}, embed_dim=embed_dim).eval()


# The paper's ladder at a quarter of its width, then what its YAML files allow and never use together.
COMPVIS = {
    "f4": (3, ddconfig(3, 32, [1, 2, 4], []), (3, 3, 24, 40)),
    "f8": (4, ddconfig(4, 32, [1, 2, 4, 4], []), (1, 3, 64, 48)),
    "f16": (16, ddconfig(16, 32, [1, 1, 2, 2, 4], [16]), (2, 3, 64, 32)),
    "f32": (64, ddconfig(64, 32, [1, 1, 2, 2, 4, 4], [16, 8]), (1, 3, 64, 96)),
    # 102 halves to 51 and 25; the decoder doubles 25 to 50 and 100.
    "uneven": (5, ddconfig(4, 32, [2, 3, 1], [51, 100], resolution=102, in_channels=1, out_ch=2, num_res_blocks=1,
                           tanh_out=True, resamp_with_conv=False), (2, 1, 12, 20)),
    "one_level": (2, ddconfig(2, 32, [1], [256], num_res_blocks=1), (1, 3, 5, 7)),
    "no_attention": (4, ddconfig(4, 32, [1, 2], [128], num_res_blocks=1, attn_type="none"), (1, 3, 8, 6)),
}


def blocks(attention):
    down = ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attention]
    up = ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attention)]
    return dict(down_block_types=down, up_block_types=up)


DIFFUSERS = {
    "sd": (dict(block_out_channels=[32, 64, 96, 96], layers_per_block=2, sample_size=64,
                **blocks([False] * 4)), (3, 3, 40, 56)),
    "attention": (dict(block_out_channels=[48, 32, 80], layers_per_block=1, norm_num_groups=16, sample_size=64,
                       latent_channels=6, **blocks([False, True, True])), (1, 3, 20, 12)),
    "no_quant": (dict(block_out_channels=[8, 16], layers_per_block=2, norm_num_groups=8, latent_channels=16,
                      use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False,
                      scaling_factor=1.5, shift_factor=0.25, force_upcast=False, **blocks([False] * 2)),
                 (1, 3, 10, 6)),
    "default": (dict(), (1, 3, 7, 5)),
}


def forward(name, encode, decode, latent_channels, shape, factor):
    x = seeded_input(f"{name}.x", shape).clamp(-1, 1)
    posterior = encode(x)
    b, _, h, w = shape
    z = seeded_input(f"{name}.z", (b, latent_channels, h // factor, w // factor))
    return dict(mean=posterior.mean, logvar=posterior.logvar, decoded=decode(z))


@torch.no_grad()
def compvis_fixture(name, embed_dim, dd, shape):
    model = compvis(embed_dim, dd)
    shapes = seed_module(model)
    factor = 2 ** (len(dd["ch_mult"]) - 1)
    outputs = forward(name, model.encode, model.decode, embed_dim, shape, factor)
    config = dict(embed_dim=embed_dim, ddconfig=dd, monitor="val/rec_loss",
                  lossconfig={"target": "torch.nn.Identity"})
    save_fixture(f"vae_compvis_{name}", outputs, config=config, shapes=shapes, shape=shape)


@torch.no_grad()
def diffusers_fixture(name, config, shape):
    model = Diffusers(**config).eval()
    shapes = seed_module(model)
    factor = 2 ** (len(model.config.block_out_channels) - 1)
    outputs = forward(name, lambda x: model.encode(x).latent_dist, lambda z: model.decode(z).sample,
                      model.config.latent_channels, shape, factor)
    config = {"_class_name": "AutoencoderKL", "_diffusers_version": "0.42.1", **config}
    save_fixture(f"vae_diffusers_{name}", outputs, config=config, shapes=shapes, shape=shape)


# tile in pixels, tile in the latent, overlap, the latent's shape.
TILINGS = [
    (32, 8, 0.25, (2, 4, 17, 9)),  # several tiles each way
    (32, 8, 0.25, (1, 4, 13, 8)),  # one column; the last strip is one latent high
    (32, 8, 0.25, (1, 4, 5, 20)),  # one row
    (16, 4, 0.5, (1, 4, 7, 6)),
    (16, 4, 0.0, (1, 4, 5, 9)),  # tiles side by side, nothing blended
    (32, 8, 0.25, (3, 4, 8, 8)),  # one tile holds it
]


@torch.no_grad()
def tiling_fixture():
    config = dict(block_out_channels=[16, 16, 16], layers_per_block=1, norm_num_groups=8, sample_size=32,
                  **blocks([False] * 3))
    model = Diffusers(**config).eval()
    shapes = seed_module(model)
    assert (model.tile_sample_min_size, model.tile_latent_min_size, model.tile_overlap_factor) == TILINGS[0][:3]
    model.enable_tiling()
    outputs = {}
    for i, (sample, latent, overlap, shape) in enumerate(TILINGS):
        model.tile_sample_min_size, model.tile_latent_min_size = sample, latent
        model.tile_overlap_factor = overlap
        # Slicing runs the items of a batch one by one, each in tiles.
        for sliced in (False, True):
            model.use_slicing = sliced
            suffix = f"{i}.sliced" if sliced else str(i)
            b, _, h, w = shape
            x = seeded_input(f"tiling.{i}.x", (b, 3, 4 * h, 4 * w)).clamp(-1, 1)
            posterior = model.encode(x).latent_dist
            decoded = model.decode(seeded_input(f"tiling.{i}.z", shape)).sample
            found = {f"mean.{suffix}": posterior.mean, f"logvar.{suffix}": posterior.logvar,
                     f"decoded.{suffix}": decoded}
            if sliced:
                for key, value in found.items():
                    torch.testing.assert_close(value, outputs[key.removesuffix(".sliced")], rtol=1e-4, atol=1e-4)
            else:
                outputs |= found
    config = {"_class_name": "AutoencoderKL", **config}
    save_fixture("vae_tiling", outputs, config=config, shapes=shapes, tilings=TILINGS)


def gaussian_fixture():
    # Wide enough that the clamp of the log-variance acts at both ends.
    moments = seeded_input("gaussian.moments", (3, 8, 5, 3)) * 20
    other, third = (seeded_input(f"gaussian.{n}", (3, 8, 5, 3)) for n in ("other", "third"))
    noise, sample = (seeded_input(f"gaussian.{n}", (3, 4, 5, 3)) for n in ("noise", "sample"))
    p, q, r = (DiagonalGaussianDistribution(m) for m in (moments, other, third))
    assert p.logvar.min() == -30 and p.logvar.max() == 20
    save_fixture("vae_gaussian", dict(
        mean=p.mean, logvar=p.logvar, std=p.std, var=p.var, mode=p.mode(), sample=q.mean + q.std * noise,
        kl=p.kl(), kl_from=q.kl(r), nll=q.nll(sample)))


# Copied from the `params` of CompVis/latent-diffusion's YAML files.
PRESETS = {
    "kl-f4": (3, ddconfig(3, 128, [1, 2, 4], [])),
    "kl-f8": (4, ddconfig(4, 128, [1, 2, 4, 4], [])),
    "kl-f16": (16, ddconfig(16, 128, [1, 1, 2, 2, 4], [16])),
    "kl-f32": (64, ddconfig(64, 128, [1, 1, 2, 2, 4, 4], [16, 8])),
}
PRESETS |= {
    "autoencoder_kl_64x64x3": PRESETS["kl-f4"],
    "autoencoder_kl_32x32x4": PRESETS["kl-f8"],
    "autoencoder_kl_16x16x16": PRESETS["kl-f16"],
    "autoencoder_kl_8x8x64": PRESETS["kl-f32"],
}
# The vae/config.json of the published models (absent keys as there).
STABLE_DIFFUSION = dict(block_out_channels=[128, 256, 512, 512], layers_per_block=2, **blocks([False] * 4))
STABLE_DIFFUSION = {
    "stable-diffusion-v1": STABLE_DIFFUSION | dict(sample_size=512),
    "stable-diffusion-v2": STABLE_DIFFUSION | dict(sample_size=768),
    "stable-diffusion-xl": STABLE_DIFFUSION | dict(sample_size=1024, scaling_factor=0.13025, force_upcast=True),
}


def presets_fixture():
    """Parameter counts at full width; the meta device holds shapes only."""
    counts, configs = {}, {}
    with torch.device("meta"):
        for name, (embed_dim, dd) in PRESETS.items():
            counts[name] = sum(p.numel() for p in compvis(embed_dim, dd).parameters())
            configs[name] = dict(embed_dim=embed_dim, ddconfig=dd)
        for name, config in STABLE_DIFFUSION.items():
            counts[name] = sum(p.numel() for p in Diffusers(**config).parameters())
            configs[name] = config
    save_fixture("vae_presets", {"unused": torch.zeros(1)}, counts=counts, configs=configs)


if __name__ == "__main__":
    for name, case in COMPVIS.items():
        compvis_fixture(name, *case)
    for name, case in DIFFUSERS.items():
        diffusers_fixture(name, *case)
    tiling_fixture()
    gaussian_fixture()
    presets_fixture()
