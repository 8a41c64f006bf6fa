"""diffusers' latent diffusion pipelines on tiny models: text to image, super-resolution, unconditional."""
import json
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

from seeded import save_fixture, seed_module, seeded_input

torch.set_num_threads(1)
torch.set_grad_enabled(False)
VOCABULARY = Path(__file__).parent / "../../crates/ldm-conditioning/assets/bert_base_uncased_vocab.txt"
PROMPT = "a virus monster is playing guitar"
# As the published models' configs.
DDIM = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1, num_train_timesteps=1000)


def unet(**changes):
    return diffusers.UNet2DModel(**dict(
        dict(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1,
             down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
             attention_head_dim=32, norm_num_groups=32), **changes)).eval()


def vqvae(scaling):
    return diffusers.VQModel(
        block_out_channels=(32, 32, 64), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, latent_channels=3, num_vq_embeddings=64,
        vq_embed_dim=3, norm_num_groups=32, sample_size=32, scaling_factor=scaling).eval()


def text_to_image():
    words = {line.rstrip("\n"): i for i, line in enumerate(open(VOCABULARY, encoding="utf-8"))}
    tokenizer = transformers.BertTokenizer(vocab=words, do_lower_case=True, model_max_length=77)
    bert = LDMBertModel(LDMBertConfig(d_model=32, encoder_layers=2, encoder_ffn_dim=128, head_dim=8,
                                      encoder_attention_heads=8, max_position_embeddings=77)).eval()
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=1,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=32, sample_size=64).eval()
    model = diffusers.UNet2DConditionModel(
        sample_size=4, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=32,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")).eval()
    return diffusers.LDMTextToImagePipeline(vae, bert, tokenizer, model, diffusers.DDIMScheduler(**DDIM))


PIPELINES = {
    "text": (text_to_image, [
        dict(prompt=[PROMPT], guidance_scale=4.0, eta=0.3), dict(prompt=[PROMPT, "two boats"], guidance_scale=1.0)]),
    "upscale": (lambda: diffusers.LDMSuperResolutionPipeline(
        vqvae(0.18215), unet(in_channels=6), diffusers.DDIMScheduler(**DDIM)), [dict(eta=1.0), dict()]),
    "unconditional": (lambda: diffusers.LDMPipeline(vqvae(0.5), unet(), diffusers.DDIMScheduler(**DDIM)),
                      [dict(batch_size=2, eta=0.5)]),
}


def files(pipe):
    """The JSON files of the directory; the tokenizer's own are left out."""
    folder = Path(tempfile.mkdtemp())
    pipe.save_pretrained(folder)
    paths = [path for path in folder.rglob("*.json") if path.parent.name != "tokenizer"]
    return {path.relative_to(folder).as_posix(): json.loads(path.read_text()) for path in paths}


for name, (make, cases) in PIPELINES.items():
    pipe, tensors = make(), {}
    pipe.set_progress_bar_config(disable=True)
    weights = {}
    for part in ("unet", "vqvae", "bert"):
        module = getattr(pipe, part, None)
        if module is not None:
            stem = "model" if part == "bert" else "diffusion_pytorch_model"
            weights[f"{part}/{stem}.safetensors"] = seed_module(module)
    for i, case in enumerate(cases):
        # Their steps draw from the global generator, whatever the pipeline is given.
        torch.manual_seed(3)
        given = dict(case, num_inference_steps=20, output_type="pt")
        if name == "upscale":
            given["image"] = seeded_input("low", (1, 3, 8, 8)).clamp(-1, 1)
        images = pipe(**given).images
        if not isinstance(images, torch.Tensor):
            images = torch.from_numpy(images).permute(0, 3, 1, 2)
        elif images.shape[-1] == 3:
            images = images.permute(0, 3, 1, 2)
        tensors[f"{i}.pictures"] = images
    save_fixture(f"ldm_pipeline_{name}", tensors, files=files(pipe), weights=weights, cases=cases)
