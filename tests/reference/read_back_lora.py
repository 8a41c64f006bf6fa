"""Runs a model directory with a LoRA file that `ldm` has written in diffusers and compares with our latents.

python read_back_lora.py MODEL LORA SCALE LATENTS [PROMPT]

LATENTS: what `text_to_image --model MODEL --lora LORA:SCALE --seed 1 --steps 3 --width 64 --height 64 --save-latents`
wrote.
"""
import sys
from pathlib import Path

import diffusers
import torch
from safetensors.torch import load_file


def main(model: str, lora: str, scale: str, latents: str, prompt: str = "a picture"):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(model, safety_checker=None, requires_safety_checker=False)
    arguments = dict(prompt=prompt, height=64, width=64, num_inference_steps=3, output_type="latent")
    run = lambda: pipe(**arguments, generator=torch.Generator().manual_seed(1)).images
    plain = run()
    path = Path(lora)
    pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="ours")
    pipe.set_adapters("ours", float(scale))
    theirs, ours = run(), load_file(latents)["latents"]
    layers = sum(name.endswith("lora_A.ours") for name, _ in pipe.unet.named_modules())
    difference = lambda a, b: float((a - b).abs().max() / b.abs().max())
    print(f"{layers} layers, changes the latents by {difference(theirs, plain):.2e}, differs by {difference(ours, theirs):.1e}")
    assert layers and difference(theirs, plain) > 1e-3 and difference(ours, theirs) < 1e-3


if __name__ == "__main__":
    main(*sys.argv[1:])
