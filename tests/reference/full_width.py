"""The paper's U-Nets at full width, one of each family, for benches/full_width.rs: one forward pass of each.

LATENT_DIFFUSION and TAMING_TRANSFORMERS are check-outs.
"""
import os
import sys

import torch
import yaml

import originals  # noqa: F401
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from seeded import save_fixture, seeded_input, seeded_weight

torch.set_num_threads(2)
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
# Whoever draws every weight by name needs no others first.
for name in ("kaiming_uniform_", "uniform_", "zeros_", "ones_", "normal_"):
    setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)

tensors, counts = {}, {}
for name, file in FILES.items():
    if sys.argv[1:] and name not in sys.argv[1:]:
        continue
    config = yaml.safe_load(open(os.path.join(os.environ["LATENT_DIFFUSION"], file)))
    params = config["model"]["params"]["unet_config"]["params"]
    model = UNetModel(**dict(params, use_checkpoint=False)).eval()
    for key, value in model.named_parameters():
        value.copy_(seeded_weight("model.diffusion_model." + key, value.shape))
    x = seeded_input("x", (1, params["in_channels"], 8, 8))
    given = {}
    if "context_dim" in params:
        given["context"] = seeded_input("context", (1, 5, params["context_dim"]))
    tensors[name] = model(x, torch.tensor([500]), **given)
    counts[name] = sum(p.numel() for p in model.parameters())
    print(name, counts[name], flush=True)
    del model
save_fixture("full_width", tensors, counts=counts)
