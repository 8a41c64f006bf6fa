"""Diffusers' pipelines with LoRA weights -> tests/fixtures/lora.safetensors.

The models are those of pipeline_*.safetensors. Each case is a file of factors (metadata `cases`: name -> shape of every
tensor, drawn by name; alphas; the file's note) and a run with it. `gradient.*` are those of peft's factors in a U-Net.
"""
import json
import tempfile
from pathlib import Path

import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

import tiny
from pipelines import FOX, run
from seeded import save_fixture, seed_module, seeded_input, seeded_weight

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj"]


def factors(module, targets, part: str, r: int) -> dict:
    """Names and shapes of peft's factors in a fresh copy of `module`, in diffusers' format."""
    module.add_adapter(LoraConfig(r=r, target_modules=targets), adapter_name="names")
    shapes = {f"{part}.{k}": list(v.shape) for k, v in get_peft_model_state_dict(module, adapter_name="names").items()}
    module.delete_adapter("names") if hasattr(module, "delete_adapter") else module.delete_adapters("names")
    return shapes


def old_names(shapes: dict) -> dict:
    """Half as diffusers 0.2x wrote them, half as its attention processors did."""
    renamed = {}
    for i, (k, v) in enumerate(shapes.items()):
        k = k.replace("lora_A", "lora.down").replace("lora_B", "lora.up")
        if "attn1" in k:
            k = k.replace(".to_out.0.", ".to_out.")
            for layer in ("to_q", "to_k", "to_v", "to_out"):
                k = k.replace(f".{layer}.lora.", f".processor.{layer}_lora.")
        renamed[k] = v
    return renamed


def kohya_names(shapes: dict) -> dict:
    renamed = {}
    for k, v in shapes.items():
        part, layer = k.split(".", 1)
        layer, factor = layer.rsplit(".lora_", 1)
        head = {"unet": "lora_unet", "text_encoder": "lora_te"}[part]
        if part == "text_encoder" and not layer.startswith("text_model."):
            layer = f"text_model.{layer}"
        renamed[f"{head}_{layer.replace('.', '_')}.lora_{'down' if factor[0] == 'A' else 'up'}.weight"] = v
    return renamed


def published_text(shapes: dict) -> dict:
    """transformers 5 leaves `text_model.` out; every published file has it."""
    return {k.replace("text_encoder.encoder.", "text_encoder.text_model.encoder."): v for k, v in shapes.items()}


def write(path: Path, shapes: dict, alphas: dict, note: dict | None):
    tensors = {k: seeded_weight(k, v) for k, v in shapes.items()} | {k: torch.tensor(v) for k, v in alphas.items()}
    metadata = {"format": "pt"} | ({"lora_adapter_metadata": json.dumps(note)} if note else {})
    save_file(tensors, path, metadata)


def case(name, pipe, shapes, alphas, note, scale, tensors, cases):
    path = Path(tempfile.mkdtemp()) / "pytorch_lora_weights.safetensors"
    write(path, shapes, alphas, note)
    arguments = dict(pipeline=type(pipe).__name__, prompt=[FOX], num_inference_steps=4, guidance_scale=4.0, seed=33,
                     height=64, width=64, scheduler=dict(pipe.scheduler.config) | {"_class_name": type(pipe.scheduler).__name__})
    arguments["scheduler"].pop("_use_default_values", None)
    arguments["scheduler"].pop("_diffusers_version", None)
    plain = run(pipe, arguments, {})[1]
    pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="one")
    pipe.set_adapters("one", scale)
    loaded = {part: sum("lora_A" in k for k, _ in getattr(pipe, part).named_modules() if k.endswith("one"))
              for part in ("unet", "text_encoder", "text_encoder_2") if getattr(pipe, part, None) is not None}
    image, latents = run(pipe, arguments, {})
    pipe.unload_lora_weights()
    change = float((latents - plain).abs().max() / plain.abs().max())
    print(f"{name}: {loaded}, {len(shapes)} tensors, changes the latents by {change:.2f}")
    assert sum(loaded.values()) * 2 == len(shapes) and change > 0.05
    tensors[f"{name}.image"], tensors[f"{name}.latents"] = torch.from_numpy(image), latents
    arguments |= dict(shapes=shapes, alphas=alphas, note=note, scale=scale)
    cases[name] = arguments


def gradients(tensors: dict) -> dict:
    """One step's gradients of factors of rank 3, alpha 6; in f64, because PyTorch's f32 is off by 3e-4 here."""
    unet = tiny.unet()
    shapes = seed_module(unet)
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=ATTENTION), adapter_name="default")
    parameters = {}
    for name, p in unet.named_parameters():
        if p.requires_grad:
            name = "unet." + name.replace(".default", "")
            p.data = seeded_weight(name, p.shape)
            parameters[name] = p
    unet.double()
    drawn = lambda name, shape: seeded_input(f"lora.{name}", shape).double()
    x, context, target = drawn("x", [2, 4, 8, 8]), drawn("context", [2, 5, 32]), drawn("target", [2, 4, 8, 8])
    with torch.enable_grad():
        y = unet(x, torch.tensor([17, 801]), context).sample
        torch.nn.functional.mse_loss(y, target).backward()
    tensors["gradient.output"] = y.float()
    for name, p in parameters.items():
        tensors[f"gradient.{name}"] = p.grad.float()
    return {name: list(p.shape) for name, p in parameters.items()}


def main():
    tensors, cases = {}, {}
    pipe = tiny.sd1()
    tiny.seed_pipeline(pipe)
    unet = factors(pipe.unet, ATTENTION, "unet", 4)
    text = published_text(factors(pipe.text_encoder, TEXT, "text_encoder", 4))
    note = {"unet.r": 4, "unet.lora_alpha": 2, "unet.target_modules": ATTENTION, "unet.bias": "none",
            "unet.alpha_pattern": {"mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 1},
            "text_encoder.r": 4, "text_encoder.lora_alpha": 3, "text_encoder.target_modules": TEXT}
    case("sd1_note", pipe, unet, {}, {k: v for k, v in note.items() if k.startswith("unet")}, 0.75, tensors, cases)
    case("sd1_text", pipe, unet | text, {}, None, 0.25, tensors, cases)
    everything = factors(pipe.unet, ATTENTION + ["proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "time_emb_proj"],
                         "unet", 2)
    case("sd1_layers", pipe, everything, {}, None, 0.2, tensors, cases)
    case("sd1_old", pipe, old_names(factors(pipe.unet, ATTENTION, "unet", 2)), {}, None, 0.5, tensors, cases)
    pipe = tiny.sd2()
    tiny.seed_pipeline(pipe, text_prefix="")
    shapes = factors(pipe.unet, ATTENTION, "unet", 4) | factors(pipe.text_encoder, TEXT, "text_encoder", 4)
    shapes = kohya_names(shapes)
    alphas = {k.replace("lora_down.weight", "alpha"): 2.0 for k in shapes if "lora_down" in k}
    case("sd2_kohya", pipe, shapes, alphas, None, 0.5, tensors, cases)
    pipe = tiny.sdxl()
    tiny.seed_pipeline(pipe)
    shapes = factors(pipe.unet, ATTENTION, "unet", 3) | published_text(factors(pipe.text_encoder, TEXT, "text_encoder", 3))
    shapes |= factors(pipe.text_encoder_2, TEXT, "text_encoder_2", 3)
    case("sdxl", pipe, shapes, {}, None, 0.25, tensors, cases)
    gradient = gradients(tensors)
    save_fixture("lora", tensors, cases=cases, gradient=gradient)


if __name__ == "__main__":
    main()
