"""What each part of the tiny models gives for given inputs -> tests/fixtures/forward_*.safetensors.

Metadata `files` and `weights` describe the model directory as in pipelines.py; `calls` lists
{name, part, folder, inputs: key -> name and shape of a seeded input, outputs}. Tensors: `CALL.in.KEY` for integer
inputs, `CALL.out.KEY` for what the reference gives.
"""
import diffusers
import torch

import tiny
from seeded import save_fixture, seed_module, seeded_input


class Calls:
    def __init__(self):
        self.list, self.tensors = [], {}

    def add(self, name, part, folder, floats, ints, module):
        inputs = {k: seeded_input(f"{name}.{k}", s) for k, s in floats.items()} | \
                 {k: torch.tensor(v) for k, v in ints.items()}
        outputs = module(**inputs)
        self.tensors |= {f"{name}.in.{k}": inputs[k] for k in ints}
        self.tensors |= {f"{name}.out.{k}": v for k, v in outputs.items()}
        drawn = {k: dict(name=f"{name}.{k}", shape=list(s)) for k, s in floats.items()}
        self.list.append(dict(name=name, part=part, folder=folder, drawn=drawn, given=list(ints), outputs=list(outputs)))


def encode(vae):
    def call(sample):
        mean, logvar = vae._encode(sample).chunk(2, 1)
        return dict(mean=mean, logvar=logvar.clamp(-30, 20))
    return call


def decode(vae):
    return lambda latents: dict(sample=vae.decode(latents).sample)


def text(encoder):
    def call(input_ids):
        out = encoder(input_ids, output_hidden_states=True)
        pooled = dict(text_embeds=out.text_embeds) if hasattr(out, "text_embeds") else \
            dict(pooler_output=out.pooler_output)
        return dict(last_hidden_state=out.last_hidden_state, penultimate=out.hidden_states[-2], **pooled)
    return call


def unet(model):
    def call(sample, timestep, encoder_hidden_states, class_labels=None, timestep_cond=None, **rest):
        return dict(sample=model(sample, timestep, encoder_hidden_states, class_labels=class_labels,
                                 timestep_cond=timestep_cond, added_cond_kwargs=rest or None).sample)
    return call


PROMPTS = [[49406, 320, 736, 3240, 530, 518, 2583] + [49407] * 70, [49406] + list(range(1000, 1075)) + [49407]]


def sd1():
    pipe, calls = tiny.sd1(), Calls()
    weights = tiny.seed_pipeline(pipe)
    calls.add("unet", "unet", "unet", dict(sample=(2, 4, 17, 12), encoder_hidden_states=(2, 77, 32)),
              dict(timestep=[981, 3]), unet(pipe.unet))
    calls.add("unet_short_context", "unet", "unet", dict(sample=(3, 4, 8, 8), encoder_hidden_states=(3, 5, 32)),
              dict(timestep=[999, 500, 0]), unet(pipe.unet))
    calls.add("vae_encode", "vae-encode", "vae", dict(sample=(1, 3, 40, 24)), {}, encode(pipe.vae))
    calls.add("vae_decode", "vae-decode", "vae", dict(latents=(2, 4, 9, 6)), {}, decode(pipe.vae))
    calls.add("text", "text-encoder", "text_encoder", {}, dict(input_ids=PROMPTS), text(pipe.text_encoder))
    save_fixture("forward_sd1", calls.tensors, files=tiny.config_files(pipe, tiny.SD1_SCHEDULER), weights=weights,
                 calls=calls.list)


def sdxl():
    pipe, calls = tiny.sdxl(), Calls()
    weights = tiny.seed_pipeline(pipe)
    calls.add("unet", "unet", "unet",
              dict(sample=(2, 4, 10, 13), encoder_hidden_states=(2, 77, 96), text_embeds=(2, 48)),
              dict(timestep=[981, 3], time_ids=[[512, 768, 8, 16, 1024, 1024], [1024, 1024, 0, 0, 512, 768]]),
              unet(pipe.unet))
    calls.add("vae_encode", "vae-encode", "vae", dict(sample=(1, 3, 40, 24)), {}, encode(pipe.vae))
    calls.add("vae_decode", "vae-decode", "vae", dict(latents=(1, 4, 6, 5)), {}, decode(pipe.vae))
    calls.add("text", "text-encoder", "text_encoder", {}, dict(input_ids=PROMPTS), text(pipe.text_encoder))
    calls.add("text_2", "text-encoder", "text_encoder_2", {}, dict(input_ids=PROMPTS), text(pipe.text_encoder_2))
    save_fixture("forward_sdxl", calls.tensors, files=tiny.config_files(pipe, tiny.SDXL_SCHEDULER), weights=weights,
                 calls=calls.list)


def unconditional():
    """diffusers' UNet2DModel: heads by width, classes, no context."""
    model = diffusers.UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=16, num_class_embeds=10).eval()
    weights = {"unet/diffusion_pytorch_model.safetensors": seed_module(model)}
    config = {k: v for k, v in model.config.items() if k != "_use_default_values"}
    calls = Calls()
    calls.add("unet", "unet", "unet", dict(sample=(2, 3, 12, 16)), dict(timestep=[10, 700], class_labels=[3, 9]),
              lambda sample, timestep, class_labels: dict(sample=model(sample, timestep, class_labels).sample))
    save_fixture("forward_unconditional", calls.tensors, weights=weights, calls=calls.list,
                 files={"unet/config.json": config | {"_class_name": "UNet2DModel"}})


def conditional(fixture, config, *calls_of_it):
    """A UNet2DConditionModel of two levels; each call as its name, further float and integer inputs."""
    model = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=16, cross_attention_dim=24,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **config).eval()
    weights = {"unet/diffusion_pytorch_model.safetensors": seed_module(model)}
    described = {k: v for k, v in model.config.items() if k != "_use_default_values"}
    calls = Calls()
    for name, floats, ints in calls_of_it:
        calls.add(name, "unet", "unet", dict(sample=(2, 4, 8, 12), encoder_hidden_states=(2, 5, 24), **floats),
                  dict(timestep=[981, 3], **ints), unet(model))
    save_fixture(fixture, calls.tensors, weights=weights, calls=calls.list,
                 files={"unet/config.json": described | {"_class_name": "UNet2DConditionModel"}})


def conditioned():
    """The guidance embedding of latent consistency models, given and left out; labels that are no classes."""
    conditional("forward_lcm", dict(time_cond_proj_dim=16),
                ("guided", dict(timestep_cond=(2, 16)), {}), ("unguided", {}, {}))
    vector = ("vector", dict(class_labels=(2, 20)), {})
    for kind, width, call in [("timestep", None, ("number", {}, dict(class_labels=[7, 481]))),
                              ("identity", None, ("vector", dict(class_labels=(2, 128)), {})),
                              ("projection", 20, vector), ("simple_projection", 20, vector)]:
        conditional(f"forward_label_{kind}",
                    dict(class_embed_type=kind, projection_class_embeddings_input_dim=width), call)


if __name__ == "__main__":
    sd1()
    sdxl()
    unconditional()
    conditioned()
