"""The paper's networks at full width, for benches/full_width/: one forward pass of a U-Net of each family, of two first
stages and of the largest text encoder.

python full_width.py [NAME ...]: those named, or all; the others' numbers stay. LATENT_DIFFUSION and TAMING_TRANSFORMERS are
check-outs.
"""
import json
import os
import sys

import torch
import yaml
from safetensors import safe_open

import tasks  # noqa: F401  (its stubs, before anything of ldm)
from ldm.models.autoencoder import AutoencoderKL, VQModelInterface
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.modules.encoders.modules import BERTEmbedder
from seeded import FIXTURES, save_fixture, seeded_input, seeded_weight

torch.set_grad_enabled(False)
LDM = "models/ldm/{}/config.yaml"
FILES = {
    "celebahq256": LDM.format("celeba256"),
    "cin256": LDM.format("cin256"),
    "text2img256": LDM.format("text2img256"),
    "layout2img-openimages256": LDM.format("layout2img-openimages256"),
    "semantic_synthesis256": LDM.format("semantic_synthesis256"),
    "bsr_sr": LDM.format("bsr_sr"),
    "inpainting_big": LDM.format("inpainting_big"),
    "rdm768x768": "configs/retrieval-augmented-diffusion/768x768.yaml",
}
FIRST_STAGES = {"vq-f4": VQModelInterface, "kl-f8": AutoencoderKL}
BERT = "bert-1280x32"
# Whoever draws every weight by name needs no others first.
for name in ("kaiming_uniform_", "uniform_", "zeros_", "ones_", "normal_"):
    setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)


def read(file):
    return yaml.safe_load(open(os.path.join(os.environ["LATENT_DIFFUSION"], file)))["model"]["params"]


def draw(model, prefix):
    """Draws every weight; their number. What the text encoder predicts tokens with is no part of tau_theta."""
    count = 0
    for key, value in model.named_parameters():
        if "to_logits" not in key:
            value.copy_(seeded_weight(prefix + key, value.shape))
            count += value.numel()
    return count


def unet(name):
    params = read(FILES[name])["unet_config"]["params"]
    model = UNetModel(**dict(params, use_checkpoint=False)).eval()
    count = draw(model, "model.diffusion_model.")
    x = seeded_input("x", (1, params["in_channels"], 8, 8))
    given = {}
    if "context_dim" in params:
        given["context"] = seeded_input("context", (1, 5, params["context_dim"]))
    return count, {name: model(x, torch.tensor([500]), **given)}


def first_stage(name):
    params = read(f"models/first_stage_models/{name}/config.yaml")
    params["lossconfig"] = dict(target="torch.nn.Identity")
    model = FIRST_STAGES[name](**params).eval()
    count = draw(model, "first_stage_model.")
    encoded = model.encode(seeded_input("picture", (1, 3, 64, 64)).clamp(-1, 1))
    encoded = encoded if isinstance(encoded, torch.Tensor) else encoded.mode()
    z = seeded_input("z", encoded.shape)
    return count, {f"{name}.encoded": encoded, f"{name}.decoded": model.decode(z)}


def text_encoder(name):
    model = BERTEmbedder(1280, 32, use_tokenizer=False, device="cpu").eval()
    count = draw(model, "cond_stage_model.")
    # Each token attends to all 77; twenty of them are enough to keep.
    return count, {name: model(torch.tensor([[(i * 397 + 11) % 30522 for i in range(77)]]))[:, :20]}


saved = safe_open(FIXTURES / "full_width.safetensors", "pt")
tensors, counts = {k: saved.get_tensor(k) for k in saved.keys()}, json.loads(saved.metadata()["counts"])
makers = {name: unet for name in FILES} | {name: first_stage for name in FIRST_STAGES} | {BERT: text_encoder}
for name, make in makers.items():
    if not sys.argv[1:] or name in sys.argv[1:]:
        counts[name], found = make(name)
        tensors |= found
        print(name, counts[name], flush=True)
save_fixture("full_width", tensors, counts=counts)
