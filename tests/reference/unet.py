"""Fixtures for ldm-unet: CompVis' UNetModel, diffusers' UNet2DConditionModel and UNet2DModel."""
import math
import sys

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from seeded import save_fixture, seed_module, seeded_input

torch.set_num_threads(1)
torch.set_grad_enabled(False)

CROSS = dict(
    block_out_channels=[32, 64, 64],
    down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    cross_attention_dim=24,
    attention_head_dim=4,
    layers_per_block=1,
    norm_num_groups=16,
)
TWO = dict(
    CROSS,
    block_out_channels=[32, 64],
    down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
)
PLAIN = dict(
    block_out_channels=[32, 64],
    down_block_types=["DownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "UpBlock2D"],
    layers_per_block=1,
    norm_num_groups=16,
)
ATTN = dict(
    in_channels=3,
    out_channels=3,
    block_out_channels=[32, 64],
    down_block_types=["DownBlock2D", "AttnDownBlock2D"],
    up_block_types=["AttnUpBlock2D", "UpBlock2D"],
    layers_per_block=1,
    norm_num_groups=16,
)

# name: (config, sample shape, timesteps, further inputs as name: shape, or a list of labels)
CONDITION = {
    "sd1": (dict(CROSS, layers_per_block=2), [2, 4, 8, 8], [999, 1], dict(context=[2, 77, 24])),
    "sd2": (
        dict(CROSS, use_linear_projection=True, attention_head_dim=[2, 4, 8], upcast_attention=True),
        [1, 4, 8, 8], [500], dict(context=[1, 13, 24]),
    ),
    "sdxl": (
        dict(
            CROSS,
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            transformer_layers_per_block=[1, 2, 3], attention_head_dim=[1, 2, 4], use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=80,
        ),
        [2, 4, 8, 12], [981, 20], dict(context=[2, 7, 24], text_embeds=[2, 32], time_ids=[2, 6]),
    ),
    "odd": (dict(CROSS, block_out_channels=[16, 32, 32], norm_num_groups=8), [1, 4, 65, 33], [37],
            dict(context=[1, 9, 24])),
    "head40": (dict(TWO, block_out_channels=[80, 160], attention_head_dim=2), [3, 4, 6, 10], [3, 441, 900],
               dict(context=[3, 5, 24])),
    "concat9": (dict(TWO, in_channels=9), [1, 9, 8, 8], [261], dict(context=[1, 77, 24])),
    "classes": (dict(TWO, num_class_embeds=10), [3, 4, 8, 8], [1, 2, 3],
                dict(context=[3, 4, 24], class_labels=[9, 0, 4])),
    "label_projection": (
        dict(TWO, class_embed_type="projection", projection_class_embeddings_input_dim=20),
        [2, 4, 8, 8], [11, 12], dict(context=[2, 4, 24], y=[2, 20])),
    "label_linear": (
        dict(TWO, class_embed_type="simple_projection", projection_class_embeddings_input_dim=20),
        [2, 4, 8, 8], [11, 12], dict(context=[2, 4, 24], y=[2, 20])),
    "label_timestep": (dict(TWO, class_embed_type="timestep"), [2, 4, 8, 8], [11, 12],
                       dict(context=[2, 4, 24], y=[2, 1])),
    "label_identity": (dict(TWO, class_embed_type="identity"), [2, 4, 8, 8], [11, 12],
                       dict(context=[2, 4, 24], y=[2, 128])),
    "scale_shift": (dict(TWO, resnet_time_scale_shift="scale_shift"), [1, 4, 8, 8], [77], dict(context=[1, 4, 24])),
    "updown": (
        dict(PLAIN, down_block_types=["ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"],
             up_block_types=["ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"],
             mid_block_type="UNetMidBlock2DCrossAttn", cross_attention_dim=24),
        [1, 4, 8, 8], [77], dict(context=[1, 4, 24])),
    "one_level": (
        dict(TWO, block_out_channels=[32], down_block_types=["CrossAttnDownBlock2D"],
             up_block_types=["CrossAttnUpBlock2D"]),
        [1, 4, 5, 3], [640], dict(context=[1, 4, 24])),
    "no_attention": (dict(PLAIN, mid_block_type="UNetMidBlock2D"), [2, 4, 7, 9], [5, 6], {}),
    "no_middle": (dict(PLAIN, mid_block_type=None), [1, 4, 8, 8], [5], {}),
    "lcm": (dict(TWO, time_cond_proj_dim=16), [2, 4, 8, 8], [999, 259],
            dict(context=[2, 4, 24], timestep_cond=[2, 16])),
    "details": (
        dict(TWO, center_input_sample=True, flip_sin_to_cos=False, freq_shift=1, mid_block_scale_factor=2.0,
             norm_eps=1e-6, time_embedding_dim=96, downsample_padding=0),
        [1, 4, 8, 8], [0.25], dict(context=[1, 4, 24])),
    "cross_only": (dict(CROSS, only_cross_attention=[True, False, False]), [1, 4, 8, 8], [77],
                   dict(context=[1, 4, 24])),
    "per_level": (dict(CROSS, layers_per_block=[2, 1, 1]), [1, 4, 8, 8], [77], dict(context=[1, 4, 24])),
}

UNCONDITIONAL = {
    "plain": (dict(ATTN), [2, 3, 8, 8], [999, 0], {}),
    "ddpm": (
        dict(ATTN, flip_sin_to_cos=False, freq_shift=1, downsample_padding=0, attention_head_dim=None, norm_eps=1e-6,
             mid_block_scale_factor=math.sqrt(2)),
        [1, 3, 8, 8], [500], {}),
    "classes": (dict(ATTN, resnet_time_scale_shift="scale_shift", num_class_embeds=5), [2, 3, 8, 8], [1, 2],
                dict(class_labels=[4, 0])),
    "resnet": (
        dict(ATTN, downsample_type="resnet", upsample_type="resnet", add_attention=False,
             down_block_types=["AttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "AttnUpBlock2D"]),
        [1, 3, 8, 8], [77], {}),
    "timestep": (dict(ATTN, class_embed_type="timestep", attention_head_dim=16), [2, 3, 8, 12], [1, 2],
                 dict(y=[2, 1])),
}

ORIGINAL = dict(
    image_size=8, in_channels=4, model_channels=32, out_channels=4, num_res_blocks=1, attention_resolutions=[2, 1],
    channel_mult=[1, 2, 2], num_heads=4, use_spatial_transformer=True, transformer_depth=1, context_dim=24,
    use_checkpoint=False, legacy=False,
)
BLOCKS = dict(
    image_size=8, in_channels=3, model_channels=32, out_channels=3, num_res_blocks=1, attention_resolutions=[2],
    channel_mult=[1, 2],
)
COMPVIS = {
    "sd1": (dict(ORIGINAL, num_res_blocks=2), [2, 4, 8, 8], [999, 1], dict(context=[2, 77, 24])),
    "sd2": (
        {k: v for k, v in dict(ORIGINAL, num_head_channels=16, use_linear_in_transformer=True).items()
         if k != "num_heads"},
        [1, 4, 8, 12], [500], dict(context=[1, 13, 24])),
    "sdxl": (
        dict(ORIGINAL, transformer_depth=2, context_dim=[24, 24], attention_resolutions=[2, 4],
             use_linear_in_transformer=True, num_classes="sequential", adm_in_channels=80),
        [2, 4, 8, 8], [981, 20], dict(context=[2, 7, 24], y=[2, 80])),
    "blocks": (dict(BLOCKS, num_head_channels=16), [2, 3, 8, 8], [999, 1], {}),
    "one_head": (dict(BLOCKS, num_heads=1), [1, 3, 8, 8], [400], {}),
    "new_order": (dict(BLOCKS, num_heads=2, num_heads_upsample=4, use_new_attention_order=True), [1, 3, 8, 8], [3], {}),
    "heads_upsample": (dict(BLOCKS, num_heads=2, num_heads_upsample=4), [1, 3, 8, 8], [3], {}),
    "not_legacy": (dict(BLOCKS, num_heads=2, num_heads_upsample=4, legacy=False), [1, 3, 8, 8], [3], {}),
    "updown": (
        dict(BLOCKS, num_head_channels=32, resblock_updown=True, use_scale_shift_norm=True, num_classes=7,
             attention_resolutions=[1, 2]),
        [3, 3, 8, 8], [1, 2, 3], dict(class_labels=[6, 0, 3])),
    "pooled": (dict(BLOCKS, num_heads=1, conv_resample=False), [1, 3, 8, 4], [3], {}),
    "per_level": (
        dict(ORIGINAL, num_res_blocks=[1, 2, 1], num_attention_blocks=[1, 1, 0], num_classes="continuous",
             disable_self_attentions=[False, True, False], disable_middle_self_attn=True),
        [2, 4, 8, 8], [1, 2], dict(context=[2, 5, 24], y=[2, 1])),
    # DiffusionWrapper's other mechanisms; `concat` is joined to x.
    "concat": (dict(BLOCKS, in_channels=6, num_head_channels=32), [2, 3, 8, 12], [7, 800], dict(concat=[2, 3, 8, 12])),
    "hybrid": (dict(ORIGINAL, in_channels=7), [2, 4, 8, 8], [7, 800], dict(concat=[2, 3, 8, 8], context=[2, 1, 24])),
    "adm": (dict(BLOCKS, num_heads=4, num_classes=1000), [3, 3, 8, 8], [1, 2, 3], dict(class_labels=[999, 0, 207])),
}


def inputs(fixture, shape, timesteps, others):
    """Inputs drawn by name; sizes and numbers are made as large as those that occur."""
    drawn = {"x": seeded_input(f"{fixture}.x", shape), "timesteps": torch.tensor(timesteps)}
    for key, value in others.items():
        if key == "class_labels":
            drawn[key] = torch.tensor(value)
            continue
        drawn[key] = seeded_input(f"{fixture}.{key}", value)
        if key == "time_ids":
            drawn[key] = drawn[key] * 512
        if key == "y" and value[1] == 1:
            drawn[key] = drawn[key] * 100
    return drawn


def save(fixture, model, config, given, sample, **more):
    shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
    described = {k: v if k == "class_labels" else list(v.shape) for k, v in given.items()}
    described = {k: v.tolist() if torch.is_tensor(v) else v for k, v in described.items()}
    described["timesteps"] = given["timesteps"].tolist()
    save_fixture(fixture, {"sample": sample}, config=config, shapes=shapes, inputs=described, **more)


def run_diffusers(kind, cls, name, case):
    config, shape, timesteps, others = case
    fixture = f"unet_{kind}_{name}"
    model = cls(**config).eval()
    seed_module(model)
    given = inputs(fixture, shape, timesteps, others)
    kwargs = {}
    if cls is UNet2DConditionModel:
        context = given.get("context")
        kwargs["encoder_hidden_states"] = torch.zeros(shape[0], 1, 1) if context is None else context
        if "text_embeds" in given:
            kwargs["added_cond_kwargs"] = {k: given[k] for k in ("text_embeds", "time_ids")}
        if "timestep_cond" in given:
            kwargs["timestep_cond"] = given["timestep_cond"]
    if "class_labels" in given:
        kwargs["class_labels"] = given["class_labels"]
    if "y" in given:
        kwargs["class_labels"] = given["y"].flatten() if config.get("class_embed_type") == "timestep" else given["y"]
    sample = model(given["x"], given["timesteps"], **kwargs).sample
    written = dict(config, _class_name=cls.__name__, _diffusers_version="0.42.1", sample_size=shape[-1])
    save(fixture, model, written, given, sample)


def build_compvis(config):
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    config = dict(config)
    if config.get("num_classes") != "sequential":
        return UNetModel(**config).eval()
    # Stability's fork, which has "sequential", is not packaged; it puts these two layers in the table's place.
    width = config.pop("adm_in_channels")
    model = UNetModel(**dict(config, num_classes=2)).eval()
    d = 4 * config["model_channels"]
    layers = torch.nn.Sequential(torch.nn.Linear(width, d), torch.nn.SiLU(), torch.nn.Linear(d, d))
    model.label_emb = torch.nn.Sequential(layers)
    return model


def twin(model, given, sample, config):
    """The same model in diffusers, converted by diffusers: its config, and each tensor's shape and sum."""
    state = {f"model.diffusion_model.{k}": v for k, v in model.state_dict().items()}
    cls = config.pop("_class")
    other = cls(**config).eval()
    converted = convert_ldm_unet_checkpoint(state, dict(other.config))
    other.load_state_dict(converted)
    kwargs = {"encoder_hidden_states": given["context"]}
    if "y" in given:
        kwargs["class_labels"] = given["y"]
    check = other(given["x"], given["timesteps"], **kwargs).sample
    difference = (check - sample).abs().max() / sample.abs().max()
    assert difference < 1e-5, difference
    sums = {k: [list(v.shape), v.double().sum().item()] for k, v in converted.items()}
    return dict(twin=sums, twin_config=dict(config, _class_name=cls.__name__))


TWINS = {
    "sd1": dict(CROSS, _class=UNet2DConditionModel, layers_per_block=2, norm_num_groups=32),
    "sd2": dict(CROSS, _class=UNet2DConditionModel, attention_head_dim=[2, 4, 4], use_linear_projection=True,
                norm_num_groups=32),
    "sdxl": dict(CROSS, _class=UNet2DConditionModel, use_linear_projection=True, norm_num_groups=32,
                 down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                 up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                 transformer_layers_per_block=2, class_embed_type="projection",
                 projection_class_embeddings_input_dim=80),
}


def run_compvis(name, case):
    config, shape, timesteps, others = case
    fixture = f"unet_compvis_{name}"
    model = build_compvis(config)
    seed_module(model)
    given = inputs(fixture, shape, timesteps, others)
    y = given.get("class_labels", given.get("y"))
    context, depth = given.get("context"), config.get("transformer_depth", 1)
    # With several blocks the original wants the context once for each.
    context = [context] * depth if context is not None and depth > 1 else context
    x = torch.cat([given["x"], given["concat"]], dim=1) if "concat" in given else given["x"]
    sample = model(x, given["timesteps"], context=context, y=y)
    more = twin(model, given, sample, dict(TWINS[name])) if name in TWINS else {}
    save(fixture, model, config, given, sample, **more)


def run_timestep():
    from diffusers.models.embeddings import get_timestep_embedding

    t = torch.tensor([0.0, 0.5, 1.0, 500.0, 999.0, 1024.0])
    save_fixture("unet_timestep", {
        "timesteps": t,
        "cos_first": get_timestep_embedding(t, 320, flip_sin_to_cos=True, downscale_freq_shift=0),
        "sin_first": get_timestep_embedding(t, 33, flip_sin_to_cos=False, downscale_freq_shift=1),
    })


# The published config.json files, less what is a default of the class.
PUBLISHED = {
    "defaults": (UNet2DConditionModel, {}),
    "defaults_unconditional": (UNet2DModel, {}),
    "sd1": (UNet2DConditionModel, dict(cross_attention_dim=768, sample_size=64)),
    "sd1_inpaint": (UNet2DConditionModel, dict(cross_attention_dim=768, sample_size=64, in_channels=9)),
    "sd2": (UNet2DConditionModel, dict(
        cross_attention_dim=1024, sample_size=96, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True,
        upcast_attention=True, num_class_embeds=None)),
    "sdxl": (UNet2DConditionModel, dict(
        cross_attention_dim=2048, sample_size=128, attention_head_dim=[5, 10, 20], use_linear_projection=True,
        block_out_channels=[320, 640, 1280], transformer_layers_per_block=[1, 2, 10],
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)),
}


def run_published():
    """Names and shapes of whole published models; no weight is made."""
    described = {}
    for name, (cls, config) in PUBLISHED.items():
        with torch.device("meta"):
            model = cls(**config)
        shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
        written = dict(config, _class_name=cls.__name__)
        count = sum(math.prod(shape) for shape in shapes.values())
        described[name] = dict(config=written, parameters=count, shapes=fingerprint(shapes))
    save_fixture("unet_published", {"none": torch.zeros(1)}, **described)


def fingerprint(shapes):
    """FNV-1a over the sorted names and shapes: `name:1,2,3;`."""
    h = 0xCBF29CE484222325
    for name in sorted(shapes):
        for byte in f"{name}:{','.join(map(str, shapes[name]))};".encode():
            h = ((h ^ byte) * 0x100000001B3) % 2**64
    return f"{h:016x}"


if __name__ == "__main__":
    only = sys.argv[1:]
    wanted = lambda name: not only or any(part in name for part in only)
    for name, case in CONDITION.items():
        if wanted(f"condition_{name}"):
            run_diffusers("condition", UNet2DConditionModel, name, case)
    for name, case in UNCONDITIONAL.items():
        if wanted(f"unconditional_{name}"):
            run_diffusers("unconditional", UNet2DModel, name, case)
    for name, case in COMPVIS.items():
        if wanted(f"compvis_{name}"):
            run_compvis(name, case)
    if wanted("published"):
        run_published()
    if wanted("timestep"):
        run_timestep()
