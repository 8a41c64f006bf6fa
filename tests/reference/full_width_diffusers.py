"""Stable Diffusion's networks at full width, for benches/full_width: diffusers' U-Nets and first stage, transformers' text
encoders.

python full_width_diffusers.py [NAME ...]: those named, or all; the others' numbers stay. sdxl takes 12 GB of memory.
"""
import json
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from seeded import FIXTURES, save_fixture, seeded_input, seeded_weight
from unet import PUBLISHED

torch.set_grad_enabled(False)
UNETS = ("sd1", "sd2", "sdxl")
CLIP = dict(vocab_size=49408, max_position_embeddings=77, bos_token_id=0, pad_token_id=1, eos_token_id=2)
ENCODERS = {
    "clip-l": (CLIPTextModel, dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                   num_attention_heads=12, projection_dim=768, hidden_act="quick_gelu")),
    "clip-h": (CLIPTextModel, dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23,
                                   num_attention_heads=16, projection_dim=512, hidden_act="gelu")),
    "clip-bigg": (CLIPTextModelWithProjection, dict(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280,
        hidden_act="gelu")),
}
VAE = dict(block_out_channels=[128, 256, 512, 512], layers_per_block=2, sample_size=512,
           down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
# Whoever draws every weight by name needs no others first.
for name in ("kaiming_uniform_", "uniform_", "zeros_", "ones_", "normal_", "xavier_uniform_"):
    setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)


def draw(model, name=lambda key: key):
    """Draws every weight; their number."""
    for key, value in model.named_parameters():
        value.copy_(seeded_weight(name(key), value.shape))
    return sum(value.numel() for value in model.parameters())


def unet(name):
    model = UNet2DConditionModel(**PUBLISHED[name][1]).eval()
    count = draw(model)
    given = {}
    if name == "sdxl":
        given["added_cond_kwargs"] = dict(text_embeds=seeded_input("text_embeds", (1, 1280)),
                                          time_ids=torch.tensor([[64.0, 64, 0, 0, 64, 64]]))
    context = seeded_input("context", (1, 5, model.config.cross_attention_dim))
    return count, {name: model(seeded_input("x", (1, 4, 8, 8)), 500, context, **given).sample}


def first_stage(name):
    model = AutoencoderKL(**VAE).eval()
    count = draw(model)
    encoded = model.encode(seeded_input("picture", (1, 3, 64, 64)).clamp(-1, 1)).latent_dist.mean
    decoded = model.decode(seeded_input("z", (1, 4, 8, 8))).sample
    return count, {f"{name}.encoded": encoded, f"{name}.decoded": decoded}


def text_encoder(name):
    cls, fields = ENCODERS[name]
    model = cls(CLIPTextConfig(**CLIP, **fields)).eval()
    # transformers 5 leaves `text_model.` out; every published file has it.
    full = lambda key: key if key.startswith(("text_model.", "text_projection")) else "text_model." + key
    count = draw(model, full)
    ids = torch.tensor([[(i * 397 + 11) % 49000 if i < 60 else 49407 for i in range(77)]])
    out = model(ids, output_hidden_states=True)
    pooled = out.text_embeds if "text_embeds" in out else out.pooler_output
    return count, {f"{name}.penultimate": out.hidden_states[-2][:, :20], f"{name}.pooled": pooled}


path = FIXTURES / "full_width_diffusers.safetensors"
tensors, counts = {}, {}
if path.exists():
    saved = safe_open(path, "pt")
    tensors, counts = {k: saved.get_tensor(k) for k in saved.keys()}, json.loads(saved.metadata()["counts"])
makers = ({name: unet for name in UNETS} | {"sd-vae": first_stage} | {name: text_encoder for name in ENCODERS})
for name, make in makers.items():
    if not sys.argv[1:] or name in sys.argv[1:]:
        counts[name], found = make(name)
        tensors |= found
        print(name, counts[name], flush=True)
save_fixture("full_width_diffusers", tensors, counts=counts)
