"""Single-file checkpoints, named as CompVis, Stability (SD 2) and SDXL name them -> tests/fixtures/checkpoint_*.safetensors.

The names and shapes come from the original classes (ldm's UNetModel, Encoder and Decoder; open_clip's TextTransformer); the
weights are drawn by *those* names; diffusers' own conversion turns them into a pipeline, and the picture is what that
pipeline gives. Widths follow the families' conventions (8 heads for SD 1, else heads 64 wide), so that a tiny file can be
recognised by its keys as a full one is.

Metadata: `checkpoint` (name -> shape), `extras` (the names a sampler doesn't need), `yaml` (the config as text),
`files` and `weights` (the directory that diffusers makes of it), `cases` as in pipelines.py.
Also lightning_vae.ckpt: a first stage as PyTorch Lightning 1.4 pickles it, classes as dictionary keys included; and
checkpoint_sd1.pkl: the pickle alone of all of checkpoint_sd1, saved so. Its storages are drawn, the n-th for the n-th
name of the state dict, which is sorted.
"""
import io
import json
import sys
import types
import zipfile

import torch

import tiny  # before the stubs: transformers looks for torchvision
import diffusers
import yaml
from diffusers.loaders import single_file_utils as convert
from pipelines import FOX, run
from safetensors import safe_open
from seeded import FIXTURES, save_fixture, seeded_input, seeded_weight


def stub(name: str, **attributes):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__dict__.update(attributes)


# open_clip's package file imports everything it has; its text tower needs none of that.
stub("open_clip", __path__=[tiny.OPEN_CLIP])
stub("torchvision"), stub("torchvision.ops"), stub("torchvision.ops.misc", FrozenBatchNorm2d=torch.nn.BatchNorm2d)

from ldm.modules.diffusionmodules.model import Decoder, Encoder  # noqa: E402
from ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from ldm.modules.ema import LitEma  # noqa: E402
from open_clip.transformer import TextTransformer  # noqa: E402

SCHEDULE = ["betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
            "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
            "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"]
DDCONFIG = dict(double_z=True, z_channels=4, resolution=64, in_channels=3, out_ch=3, ch=32, ch_mult=[1, 1, 2],
                num_res_blocks=1, attn_resolutions=[], dropout=0.0)


def shapes(module, prefix: str) -> dict:
    return {prefix + k: list(v.shape) for k, v in module.state_dict().items()}


def first_stage(prefix: str, ddconfig=DDCONFIG) -> dict:
    z = ddconfig["z_channels"]
    return shapes(Encoder(**ddconfig), f"{prefix}encoder.") | shapes(Decoder(**ddconfig), f"{prefix}decoder.") | \
        shapes(torch.nn.Conv2d(2 * z, 2 * z, 1), f"{prefix}quant_conv.") | \
        shapes(torch.nn.Conv2d(z, z, 1), f"{prefix}post_quant_conv.")


def ema(unet) -> dict:
    """Names as LitEma gives them to the DiffusionWrapper `model`, whose child is `diffusion_model`."""
    wrapper = torch.nn.Module()
    wrapper.diffusion_model = unet
    return shapes(LitEma(wrapper), "model_ema.")


def draw(names: dict) -> dict:
    return {k: seeded_weight(k, s) for k, s in names.items()}


def load(module, state: dict, exact: bool = True) -> dict:
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not missing and not (exact and unexpected), (missing, unexpected)
    return {k: list(v.shape) for k, v in module.state_dict().items()}


def pipeline(checkpoint: dict, pipe, extract_ema: bool = False) -> dict:
    """Loads every part of `pipe` from `checkpoint`; returns weight file -> name -> shape."""
    stem = "diffusion_pytorch_model.safetensors"
    unet = convert.convert_ldm_unet_checkpoint(checkpoint, pipe.unet.config, extract_ema=extract_ema)
    weights = {f"unet/{stem}": load(pipe.unet, unet)}
    weights[f"vae/{stem}"] = load(pipe.vae, convert.convert_ldm_vae_checkpoint(checkpoint, pipe.vae.config))
    plain = lambda state: {k.removeprefix("text_model."): v for k, v in state.items() if "position_ids" not in k}
    if "cond_stage_model.transformer.text_model.final_layer_norm.bias" in checkpoint:
        load(pipe.text_encoder, plain(convert.convert_ldm_clip_checkpoint(checkpoint)))
    elif "cond_stage_model.model.ln_final.bias" in checkpoint:
        state = convert.convert_open_clip_checkpoint(pipe.text_encoder, checkpoint, "cond_stage_model.model.")
        load(pipe.text_encoder, plain(state), exact=False)
    else:
        load(pipe.text_encoder, plain(convert.convert_ldm_clip_checkpoint(checkpoint)))
        prefix = "conditioner.embedders.1.model."
        load(pipe.text_encoder_2, convert.convert_open_clip_checkpoint(pipe.text_encoder_2, checkpoint, prefix))
        weights["text_encoder_2/model.safetensors"] = shapes(pipe.text_encoder_2, "")
    weights["text_encoder/model.safetensors"] = shapes(pipe.text_encoder, "text_model.")
    return weights


def write(name, checkpoint, extras, config, pipe, published, sampler, more=()):
    """`more`: "image_ema" for the EMA weights too, "image_epsilon" for a model that predicts the noise."""
    drawn, tensors, cases = draw(checkpoint), {}, {}
    for key in ["image", *more]:
        weights = pipeline(drawn, pipe, key == "image_ema")
        scheduler = published | (dict(prediction_type="epsilon") if key == "image_epsilon" else {})
        case = dict(pipeline=type(pipe).__name__, prompt=[FOX], num_inference_steps=6, guidance_scale=7.5, seed=7,
                    height=64, width=64, sampler=sampler, scheduler=scheduler)
        picture, latents = run(pipe, case, {})
        print(name, key, picture.shape, picture.std((1, 2)).mean(), float(latents.abs().max()))
        tensors |= {f"{key}.image": torch.from_numpy(picture), f"{key}.latents": latents}
        cases[key] = case
    files = tiny.config_files(pipe, published)
    text = yaml.safe_dump(config, sort_keys=False)
    save_fixture(f"checkpoint_{name}", tensors, checkpoint=checkpoint, extras=extras, yaml=text, files=files,
                 weights=weights, cases=cases)


def lit(target: str, **params):
    return dict(target=target, params=params)


def unet_config(**changes) -> dict:
    return dict(image_size=16, in_channels=4, out_channels=4, attention_resolutions=[1], num_res_blocks=1,
                channel_mult=[1, 2], use_spatial_transformer=True, transformer_depth=1, use_checkpoint=False,
                legacy=False) | changes


def model_config(unet, text, **changes) -> dict:
    first = lit("ldm.models.autoencoder.AutoencoderKL", embed_dim=4, monitor="val/rec_loss", ddconfig=DDCONFIG,
                lossconfig=dict(target="torch.nn.Identity"))
    params = dict(linear_start=0.00085, linear_end=0.012, num_timesteps_cond=1, log_every_t=200, timesteps=1000,
                  first_stage_key="jpg", cond_stage_key="txt", image_size=16, channels=4, cond_stage_trainable=False,
                  conditioning_key="crossattn", monitor="val/loss_simple_ema", scale_factor=0.18215,
                  unet_config=lit("ldm.modules.diffusionmodules.openaimodel.UNetModel", **unet),
                  first_stage_config=first, cond_stage_config=text)
    return dict(model=dict(base_learning_rate=1e-4, target="ldm.models.diffusion.ddpm.LatentDiffusion",
                           params=params | changes))


def sd1(only_pipe: bool = False):
    config = unet_config(model_channels=32, num_heads=8, context_dim=64)
    unet, text = UNetModel(**config), tiny.text_encoder("quick_gelu", 3, 64, 1)
    extras = {k: [1000] for k in SCHEDULE} | ema(unet) | {
        "logvar": [1000], "first_stage_model.loss.logvar": [], "first_stage_model.loss.discriminator.main.0.weight": [4, 3, 4, 4],
        "cond_stage_model.transformer.text_model.embeddings.position_ids": [1, 77]}
    checkpoint = shapes(unet, "model.diffusion_model.") | first_stage("first_stage_model.") | \
        shapes(text, "cond_stage_model.transformer.text_model.") | extras
    pipe = diffusers.StableDiffusionPipeline(
        vae=tiny.vae(), text_encoder=text, tokenizer=tiny.tokenizer("<|endoftext|>"),
        unet=tiny.unet(attention_head_dim=8, cross_attention_dim=64), scheduler=tiny.scheduler(tiny.SD1_SCHEDULER),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    if only_pipe:
        return pipe
    write("sd1", checkpoint, list(extras), model_config(config, lit("ldm.modules.encoders.modules.FrozenCLIPEmbedder")),
          pipe, tiny.SD1_SCHEDULER, "pndm", more=["image_ema"])


def open_clip_text(width: int, heads: int, layers: int, prefix: str) -> dict:
    tower = TextTransformer(context_length=77, vocab_size=49408, width=width, heads=heads, layers=layers, output_dim=width)
    return shapes(tower, prefix) | {f"{prefix}logit_scale": []}


def sd2(only_pipe: bool = False):
    config = unet_config(model_channels=64, num_head_channels=64, context_dim=64, use_linear_in_transformer=True,
                         use_fp16=False)
    prefix = "cond_stage_model.model."
    text = open_clip_text(64, 1, 4, prefix)
    extras = {k: [1000] for k in SCHEDULE} | {f"{prefix}attn_mask": [77, 77]}
    checkpoint = shapes(UNetModel(**config), "model.diffusion_model.") | first_stage("first_stage_model.") | text | extras
    pipe = diffusers.StableDiffusionPipeline(
        vae=tiny.vae(), text_encoder=tiny.text_encoder("gelu", 3, 64, 1), tokenizer=tiny.tokenizer("!"),
        unet=tiny.unet(block_out_channels=(64, 128), attention_head_dim=[1, 2], cross_attention_dim=64,
                       use_linear_projection=True),
        scheduler=tiny.scheduler(tiny.SD2_SCHEDULER), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False)
    last = [k for k in text if ".resblocks.3." in k or k.endswith(("text_projection", "logit_scale"))]
    text_config = lit("ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder", freeze=True, layer="penultimate")
    if only_pipe:
        return pipe
    write("sd2", checkpoint, [*extras, *last], model_config(config, text_config, parameterization="v", use_ema=False),
          pipe, tiny.SD2_SCHEDULER, "ddim", more=["image_epsilon"])


def sdxl(only_pipe: bool = False):
    config = unet_config(model_channels=64, attention_resolutions=[2], num_head_channels=64, transformer_depth=2,
                         context_dim=192, use_linear_in_transformer=True)
    unet = UNetModel(**(config | dict(context_dim=[192, 192])))  # ldm's class takes a width a block, sgm's one for all
    # What sgm's UNetModel adds for num_classes "sequential".
    adm = 128 + 6 * 256
    label = {"model.diffusion_model.label_emb.0.0.weight": [256, adm], "model.diffusion_model.label_emb.0.0.bias": [256],
             "model.diffusion_model.label_emb.0.2.weight": [256, 256], "model.diffusion_model.label_emb.0.2.bias": [256]}
    first = tiny.text_encoder("quick_gelu", 3, 64, 1)
    extras = {"conditioner.embedders.0.transformer.text_model.embeddings.position_ids": [1, 77],
              "conditioner.embedders.1.model.logit_scale": []}
    checkpoint = shapes(unet, "model.diffusion_model.") | label | first_stage("first_stage_model.") | \
        shapes(first, "conditioner.embedders.0.transformer.text_model.") | \
        open_clip_text(128, 2, 3, "conditioner.embedders.1.model.") | extras
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=tiny.vae(scaling=0.13025), text_encoder=first, text_encoder_2=tiny.text_encoder("gelu", 3, 128, 2, 128),
        tokenizer=tiny.tokenizer("<|endoftext|>"), tokenizer_2=tiny.tokenizer("!"),
        unet=tiny.unet(block_out_channels=(64, 128), cross_attention_dim=192, attention_head_dim=[1, 2],
                       use_linear_projection=True, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                       up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=[1, 2],
                       addition_embed_type="text_time", addition_time_embed_dim=256,
                       projection_class_embeddings_input_dim=adm),
        scheduler=tiny.scheduler(tiny.SDXL_SCHEDULER), force_zeros_for_empty_prompt=True, add_watermarker=False)
    first_config = lit("sgm.models.autoencoder.AutoencoderKL", embed_dim=4, monitor="val/rec_loss", ddconfig=DDCONFIG,
                       lossconfig=dict(target="torch.nn.Identity"))
    sgm_unet = {k: v for k, v in config.items() if k not in ("image_size", "legacy")} | dict(
        adm_in_channels=adm, num_classes="sequential", transformer_depth=[1, 2], spatial_transformer_attn_type="softmax-xformers")
    conditioner = lit("sgm.modules.GeneralConditioner", emb_models=[
        dict(is_trainable=False, input_key="txt") | lit("sgm.modules.encoders.modules.FrozenCLIPEmbedder", layer="hidden", layer_idx=2),
        dict(is_trainable=False, input_key="txt") | lit("sgm.modules.encoders.modules.FrozenOpenCLIPEmbedder2", arch="ViT-bigG-14",
             version="laion2b_s39b_b160k", freeze=True, layer="penultimate", always_return_pooled=True, legacy=False),
        *(dict(is_trainable=False, input_key=k) | lit("sgm.modules.encoders.modules.ConcatTimestepEmbedderND", outdim=256)
          for k in ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple"))])
    params = dict(scale_factor=0.13025, disable_first_stage_autocast=True,
                  denoiser_config=lit("sgm.modules.diffusionmodules.denoiser.DiscreteDenoiser", num_idx=1000),
                  network_config=lit("sgm.modules.diffusionmodules.openaimodel.UNetModel", **sgm_unet),
                  conditioner_config=conditioner, first_stage_config=first_config)
    config = dict(model=dict(target="sgm.models.diffusion.DiffusionEngine", params=params))
    if only_pipe:
        return pipe
    write("sdxl", checkpoint, list(extras), config, pipe, tiny.SDXL_SCHEDULER, "euler")


def with_lightning(state: dict) -> dict:
    """A state dict with what Lightning 1.4 keeps beside it."""
    stub("pytorch_lightning"), stub("pytorch_lightning.callbacks")
    callback = type("ModelCheckpoint", (), dict(__module__="pytorch_lightning.callbacks.model_checkpoint"))
    stub("pytorch_lightning.callbacks.model_checkpoint", ModelCheckpoint=callback)
    return {
        "epoch": 3, "global_step": 1234, "pytorch-lightning_version": "1.4.2", "state_dict": state,
        "callbacks": {callback: dict(monitor="val/rec_loss", best_model_score=torch.tensor(0.5), best_model_path="x.ckpt")},
        "optimizer_states": [dict(state={0: dict(step=5, exp_avg=torch.zeros(4), exp_avg_sq=torch.zeros(4))},
                                  param_groups=[dict(lr=4.5e-6, betas=(0.5, 0.9), params=[0])])],
        "lr_schedulers": [], "hparams_name": "kwargs"}


def lightning():
    """A first stage in half precision (the file is stored whole)."""
    ddconfig = DDCONFIG | dict(ch_mult=[1], resolution=16)
    names = first_stage("", ddconfig)
    state = {k: v.half() for k, v in draw(names).items()}
    vae = diffusers.AutoencoderKL(block_out_channels=(32,), layers_per_block=1, latent_channels=4,
                                  down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",))
    load(vae, convert.convert_ldm_vae_checkpoint({f"first_stage_model.{k}": v.float() for k, v in state.items()}, vae.config))
    extras = {"loss.logvar": torch.zeros(()), "loss.discriminator.main.0.weight": torch.zeros(2, 3, 4, 4)}
    torch.save(with_lightning(state | extras), FIXTURES / "lightning_vae.ckpt")
    picture, z = seeded_input("lightning.sample", (1, 3, 16, 24)), seeded_input("lightning.latents", (1, 4, 16, 12))
    mean, logvar = vae._encode(picture).chunk(2, 1)
    config = dict(model=dict(base_learning_rate=4.5e-6) | lit(
        "ldm.models.autoencoder.AutoencoderKL", monitor="val/rec_loss", embed_dim=4,
        lossconfig=lit("ldm.modules.losses.LPIPSWithDiscriminator", disc_start=50001, kl_weight=1e-6, disc_weight=0.5),
        ddconfig=ddconfig))
    text = yaml.safe_dump(config, sort_keys=False)
    save_fixture("lightning_vae", dict(mean=mean, logvar=logvar.clamp(-30, 20), sample=vae.decode(z).sample), yaml=text,
                 checkpoint=names, extras=list(extras))


def whole_lightning():
    """The pickle of a whole checkpoint; the elements are too many to keep, and both sides draw them."""
    with safe_open(FIXTURES / "checkpoint_sd1.safetensors", "pt") as fixture:
        names = json.loads(fixture.metadata()["checkpoint"])
    saved = io.BytesIO()
    torch.save(with_lightning({name: torch.zeros(names[name]) for name in sorted(names)}), saved)
    with zipfile.ZipFile(saved) as archive:
        pickle = archive.read("archive/data.pkl")
    (FIXTURES / "checkpoint_sd1.pkl").write_bytes(pickle)
    print(f"checkpoint_sd1.pkl: {len(pickle) / 1024:.1f} KiB")


if __name__ == "__main__":
    only = sys.argv[1:]
    for part in (sd1, sd2, sdxl, lightning, whole_lightning):
        if not only or part.__name__ in only:
            part()
