"""Tiny models of each Stable Diffusion family, in diffusers' own classes, with weights drawn by name."""
import gzip
import importlib.util
import json
import tempfile
from pathlib import Path

import diffusers
import torch
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from seeded import seed_module

torch.set_num_threads(1)
torch.set_grad_enabled(False)
diffusers.utils.logging.set_verbosity_error()

OPEN_CLIP = importlib.util.find_spec("open_clip").submodule_search_locations[0]

# The scheduler_config.json files that the published models carry; keys that they leave out stay out.
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
             trained_betas=None)
SD1_SCHEDULER = dict(_class_name="PNDMScheduler", **BETAS, set_alpha_to_one=False, skip_prk_steps=True,
                     steps_offset=1, clip_sample=False)
SD2_SCHEDULER = dict(_class_name="DDIMScheduler", **BETAS, set_alpha_to_one=False, skip_prk_steps=True,
                     steps_offset=1, clip_sample=False, prediction_type="v_prediction")
SD2_BASE_SCHEDULER = SD1_SCHEDULER | dict(prediction_type="epsilon")
SDXL_SCHEDULER = dict(_class_name="EulerDiscreteScheduler", **BETAS, set_alpha_to_one=False, skip_prk_steps=True,
                      steps_offset=1, clip_sample=False, prediction_type="epsilon", interpolation_type="linear",
                      sample_max_value=1.0, timestep_spacing="leading", use_karras_sigmas=False)


LCM_SCHEDULER = dict(_class_name="LCMScheduler", **BETAS, clip_sample=False, clip_sample_range=1.0,
                     dynamic_thresholding_ratio=0.995, original_inference_steps=50, prediction_type="epsilon",
                     rescale_betas_zero_snr=False, sample_max_value=1.0, set_alpha_to_one=True, steps_offset=0,
                     thresholding=False, timestep_scaling=10.0, timestep_spacing="leading")


def bpe_files(folder: Path) -> None:
    """CLIP's vocab.json and merges.txt, from the list of merges that open_clip ships."""
    lines = gzip.open(Path(OPEN_CLIP) / "bpe_simple_vocab_16e6.txt.gz").read().decode().split("\n")
    merges = lines[1:49152 - 256 - 2 + 1]
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    vocab = letters + [c + "</w>" for c in letters] + [m.replace(" ", "") for m in merges]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")


def tokenizer(pad: str) -> CLIPTokenizer:
    folder = Path(tempfile.mkdtemp())
    bpe_files(folder)
    return CLIPTokenizer.from_pretrained(folder, pad_token=pad, model_max_length=77)


def text_encoder(act: str, layers: int, hidden: int = 32, heads: int = 4, projection: int | None = None):
    """eos_token_id 2 is what the published configs say: the pooled token is then the argmax of the ids."""
    config = CLIPTextConfig(hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
                            num_attention_heads=heads, hidden_act=act, projection_dim=projection or hidden,
                            bos_token_id=0, eos_token_id=2, pad_token_id=1)
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def unet(**changes):
    config = dict(sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
                  down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                  up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=4, norm_num_groups=32)
    return diffusers.UNet2DConditionModel(**(config | changes)).eval()


def vae(channels=(32, 32, 64), scaling=0.18215, **changes):
    n = len(channels)
    return diffusers.AutoencoderKL(block_out_channels=channels, layers_per_block=1, latent_channels=4,
                                   down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
                                   norm_num_groups=32, sample_size=64, scaling_factor=scaling, **changes).eval()


def sd1(in_channels: int = 4, cls=diffusers.StableDiffusionPipeline):
    return cls(vae=vae(), text_encoder=text_encoder("quick_gelu", 3), tokenizer=tokenizer("<|endoftext|>"),
               unet=unet(in_channels=in_channels), scheduler=scheduler(SD1_SCHEDULER), safety_checker=None,
               feature_extractor=None, requires_safety_checker=False)


def sd2(in_channels: int = 4, cls=diffusers.StableDiffusionPipeline):
    """Linear projections, heads given per level, exact GELU, "!" as the pad, v-prediction."""
    return cls(
        vae=vae((32, 64)), text_encoder=text_encoder("gelu", 4), tokenizer=tokenizer("!"),
        unet=unet(in_channels=in_channels, attention_head_dim=[2, 4], use_linear_projection=True, upcast_attention=True,
                  sample_size=32),
        scheduler=scheduler(SD2_SCHEDULER), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False)


def lcm():
    """A Stable Diffusion 1 that was distilled: its U-Net takes an embedding of the guidance scale."""
    return diffusers.LatentConsistencyModelPipeline(
        vae=vae(), text_encoder=text_encoder("quick_gelu", 3), tokenizer=tokenizer("<|endoftext|>"),
        unet=unet(time_cond_proj_dim=32), scheduler=scheduler(LCM_SCHEDULER), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False)


def sdxl(in_channels: int = 4, cls=diffusers.StableDiffusionXLPipeline):
    """Two encoders (32 + 64 wide), added embeddings, no attention at the top level, two blocks below it."""
    return cls(
        vae=vae((32, 32, 32, 64), 0.13025, force_upcast=True),
        text_encoder=text_encoder("quick_gelu", 3), text_encoder_2=text_encoder("gelu", 3, 64, 4, 48),
        tokenizer=tokenizer("<|endoftext|>"), tokenizer_2=tokenizer("!"),
        unet=unet(in_channels=in_channels, sample_size=8, cross_attention_dim=96, attention_head_dim=[2, 4],
                  use_linear_projection=True,
                  down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                  up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=[1, 2],
                  addition_embed_type="text_time", addition_time_embed_dim=8,
                  projection_class_embeddings_input_dim=48 + 6 * 8),
        scheduler=scheduler(SDXL_SCHEDULER), force_zeros_for_empty_prompt=True, add_watermarker=False)


def scheduler(config: dict):
    return getattr(diffusers, config["_class_name"]).from_config(config)


# Weight files of a diffusers directory, and what their names begin with beyond the module's own.
# transformers 5 saves a CLIPTextModel without `text_model.`; every published model has it.
PARTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model",
         "text_encoder_2": "model"}


def seed_pipeline(pipe, text_prefix: str = "text_model.") -> dict:
    """Draws every part's weights; returns weight file -> (name -> shape)."""
    weights = {}
    for part, stem in PARTS.items():
        module = getattr(pipe, part, None)
        if module is None:
            continue
        prefix = text_prefix if type(module) is CLIPTextModel else ""
        weights[f"{part}/{stem}.safetensors"] = seed_module(module, prefix)
    return weights


def config_files(pipe, scheduler_config: dict) -> dict:
    """Every JSON file of the directory as diffusers saves it; the scheduler's as published."""
    folder = Path(tempfile.mkdtemp())
    pipe.save_pretrained(folder)
    files = {}
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).as_posix()
        if path.name not in ("tokenizer.json", "vocab.json"):
            files[name] = json.loads(path.read_text())
    files["scheduler/scheduler_config.json"] = scheduler_config
    return files


def weight_names(path) -> list:
    with safe_open(path, "pt") as f:
        return sorted(f.keys())
