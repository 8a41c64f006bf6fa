"""VQ first stages: CompVis' VQModelInterface and VQModel, taming's quantisers, diffusers' VQModel.

Writes vq_*.safetensors. Weights and inputs are drawn by name (seeded.py); a fixture holds the config, the parameter names
and what the reference computes. Needs the original repositories (originals.py).
"""
import tempfile

import originals  # noqa: F401

import numpy as np
import torch
from diffusers import VQModel as Diffusers
from ldm.models.autoencoder import VQModel, VQModelInterface
from taming.modules.vqvae.quantize import VectorQuantizer, VectorQuantizer2

from seeded import save_fixture, seed_module, seeded_input, seeded_weight

torch.set_num_threads(1)

NEAR = 1e-5


def ddconfig(z, ch, ch_mult, attn, **other):
    return dict(double_z=False, z_channels=z, resolution=256, in_channels=3, out_ch=3, ch=ch, ch_mult=ch_mult,
                num_res_blocks=2, attn_resolutions=attn, dropout=0.0) | other


def params(embed_dim, n_embed, dd, **other):
    return dict(embed_dim=embed_dim, n_embed=n_embed, ddconfig=dd, lossconfig={"target": "torch.nn.Identity"}) | other


# models/first_stage_models/vq-*/config.yaml, at width `ch`.
def ladder(ch):
    return {
        "vq-f4": params(3, 8192, ddconfig(3, ch, [1, 2, 4], [])),
        "vq-f4-noattn": params(3, 8192, ddconfig(3, ch, [1, 2, 4], [], attn_type="none")),
        "vq-f8": params(4, 16384, ddconfig(4, ch, [1, 2, 2, 4], [32])),
        "vq-f8-n256": params(4, 256, ddconfig(4, ch, [1, 2, 2, 4], [32])),
        "vq-f16": params(8, 16384, ddconfig(8, ch, [1, 1, 2, 2, 4], [16])),
    }


SHAPES = {
    "vq-f4": (2, 3, 32, 24),
    "vq-f4-noattn": (1, 3, 28, 40),
    "vq-f8": (2, 3, 32, 48),
    "vq-f8-n256": (1, 3, 48, 40),
    "vq-f16": (1, 3, 64, 48),
}

TINY = params(5, 32, ddconfig(4, 32, [1, 2], [], num_res_blocks=1))


def margins(z, codebook):
    """Whether the two nearest codes of each pixel are a tie, nearly: then either is right."""
    rows = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]).double()
    nearest = torch.cdist(rows, codebook.double()).square().topk(2, largest=False).values
    return (nearest[:, 1] - nearest[:, 0]) < NEAR * nearest[:, 1]


@torch.no_grad()
def compvis_fixture(name, config, shape):
    model = VQModelInterface(**config).eval()
    shapes = seed_module(model)
    x = seeded_input(f"{name}.x", shape).clamp(-1, 1)
    latents = model.encode(x)
    _, loss, (_, _, indices) = model.quantize(latents)
    near = margins(latents, model.quantize.embedding.weight)
    # A latent of its own for the decoder, in which nothing is a near-tie.
    b, c, h, w = latents.shape
    z = seeded_input(f"{name}.z", (1, c, h, w))
    assert not margins(z, model.quantize.embedding.weight).any(), name
    print(f"{name}: {int(near.sum())} near-ties of {near.numel()}, {indices.unique().numel()} codes")
    outputs = dict(latents=latents, indices=indices, near=near.to(torch.uint8), loss=loss.reshape(1),
                   decoded=model.decode(z))
    if name == "vq-f4":
        outputs["unquantized"] = model.decode(z, force_not_quantize=True)
    save_fixture(name.replace("-", "_"), outputs, config=config, shapes=shapes, shape=shape)


def gradients_fixture():
    """One training step of the whole model, and of the quantiser alone in each of its conventions."""
    outputs = {}
    x = seeded_input("step.x", (2, 3, 16, 12)).clamp(-1, 1)
    model = VQModel(**TINY)
    shapes = seed_module(model)
    picture, loss, indices = model(x, return_pred_indices=True)
    (torch.mean((picture - x).abs()) + loss).backward()
    assert not margins(model.encode_to_prequant(x), model.quantize.embedding.weight).any()
    outputs |= {"step.picture": picture, "step.loss": loss.reshape(1), "step.indices": indices}
    for name in ("encoder.conv_in.weight", "encoder.down.1.block.0.conv1.bias", "quant_conv.weight", "quant_conv.bias",
                 "quantize.embedding.weight", "post_quant_conv.weight", "decoder.mid.attn_1.q.weight",
                 "decoder.conv_out.weight"):
        outputs[f"step.{name}"] = model.get_parameter(name).grad

    for name, quantizer in {
        "legacy": VectorQuantizer2(16, 3, 0.25, legacy=True),
        "fixed": VectorQuantizer2(16, 3, 0.25, legacy=False, sane_index_shape=True),
        "v1": VectorQuantizer(16, 3, 0.4),
    }.items():
        seed_module(quantizer)
        z = seeded_input("quantizer.z", (2, 3, 4, 5)).requires_grad_()
        assert not margins(z, quantizer.embedding.weight).any()
        z_q, loss, (perplexity, _, indices) = quantizer(z)
        ((z_q * seeded_input("quantizer.weight", z.shape)).sum() + 3 * loss).backward()
        outputs |= {f"{name}.z_q": z_q, f"{name}.loss": loss.reshape(1), f"{name}.indices": indices,
                    f"{name}.grad_z": z.grad, f"{name}.grad_codebook": quantizer.embedding.weight.grad}
        if perplexity is not None:
            outputs["perplexity"] = perplexity.reshape(1)
    save_fixture("vq_gradients", outputs, config=TINY, shapes=shapes, shape=list(x.shape))


USED = [3, 9, 0, 14, 9, 7]


@torch.no_grad()
def remap_fixture():
    z = seeded_input("quantizer.z", (2, 3, 4, 5))
    outputs = {}
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, np.array(USED))
        for name, unknown in {"random": "random", "extra": "extra", "two": 2}.items():
            quantizer = VectorQuantizer2(16, 3, 0.25, remap=file.name, unknown_index=unknown, sane_index_shape=name == "two")
            quantizer.embedding.weight.data = seeded_weight("embedding.weight", (16, 3))
            _, _, (_, _, indices) = quantizer(z)
            entries = quantizer.get_codebook_entry(indices.clone().reshape(-1), (2, 4, 5, 3))
            outputs |= {f"{name}.indices": indices, f"{name}.entries": entries}
    save_fixture("vq_remap", outputs, used=USED)


def blocks(attention):
    down = ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attention]
    up = ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attention)]
    return dict(down_block_types=down, up_block_types=up)


DIFFUSERS = {
    # As the published LDM folders have it, at a quarter of the width.
    "ldm": (dict(block_out_channels=[32, 64, 128], layers_per_block=2, sample_size=256, latent_channels=3,
                 num_vq_embeddings=8192, **blocks([False] * 3)), (2, 3, 24, 32)),
    "attention": (dict(block_out_channels=[48, 32], layers_per_block=1, norm_num_groups=16, latent_channels=6,
                       vq_embed_dim=4, num_vq_embeddings=40, scaling_factor=1.0, lookup_from_codebook=True,
                       mid_block_add_attention=False, **blocks([False, True])), (1, 3, 14, 22)),
    "default": (dict(), (1, 3, 7, 5)),
}


@torch.no_grad()
def diffusers_fixture(name, config, shape):
    model = Diffusers(**config).eval()
    shapes = seed_module(model)
    name = f"diffusers_{name}"
    latents = model.encode(seeded_input(f"{name}.x", shape).clamp(-1, 1)).latents
    _, _, (_, _, indices) = model.quantize(latents)
    near = margins(latents, model.quantize.embedding.weight)
    b, c, h, w = latents.shape
    z = seeded_input(f"{name}.z", (1, c, h, w))
    assert not margins(z, model.quantize.embedding.weight).any(), name
    outputs = dict(latents=latents, indices=indices, near=near.to(torch.uint8), decoded=model.decode(z).sample)
    if model.config.lookup_from_codebook:
        outputs["looked_up"] = model.decode(indices, force_not_quantize=True, shape=(b, h, w, c)).sample
    config = {"_class_name": "VQModel", "_diffusers_version": "0.42.1", **config}
    save_fixture(f"vq_{name}", outputs, config=config, shapes=shapes, shape=shape)


def presets_fixture():
    """Parameter counts at full width; the meta device holds shapes only."""
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in VQModelInterface(**config).parameters())
                  for name, config in ladder(128).items()}
    save_fixture("vq_presets", {"unused": torch.zeros(1)}, counts=counts, configs=ladder(128))


if __name__ == "__main__":
    for name, config in ladder(32).items():
        compvis_fixture(name, config, SHAPES[name])
    gradients_fixture()
    remap_fixture()
    for name, case in DIFFUSERS.items():
        diffusers_fixture(name, *case)
    presets_fixture()
