"""Whole runs of diffusers' pipelines on tiny models -> tests/fixtures/pipeline_*.safetensors.

Each fixture holds one model directory (metadata `files`: path -> JSON, `weights`: path -> name -> shape; the
tokenizers' vocabulary is CLIP's) and its runs (metadata `cases`): for a case NAME, `NAME.image` is the
final picture [n, H, W, 3] in u8 and `NAME.latents` the latents before decoding. `image` and `mask` are the inputs.
A case's `scheduler` is its whole scheduler_config.json; where the sampler's name says it all, `sampler` is that name.

python pipelines.py [--check] [GROUP ...]: with --check each run is repeated with noise of 1e-6 on every U-Net weight
and must stay within 1/255, so that the fixture asks for parity and not for luck. GROUP is one of the functions at the end.
"""
import math
import sys

import diffusers
import numpy as np
import torch
from PIL import Image

import tiny
from seeded import save_fixture, seeded_input

FOX, BOAT = "a red fox in the snow, oil on canvas", "a small boat on a quiet lake"
# Our names for samplers, diffusers' class, and what the name says about its config.
SAMPLERS = {
    "pndm": ("PNDMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", dict(use_karras_sigmas=True)),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", dict(algorithm_type="sde-dpmsolver++")),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}


def picture(height: int, width: int) -> np.ndarray:
    """A smooth coloured pattern with hard edges, [H, W, 3] u8."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 5) * np.cos(y / 7), np.sin((x + y) / 9), np.where((x // 8 + y // 8) % 2 == 0, 0.7, -0.7)]
    return np.stack([np.round((w + 1) * 127.5) for w in waves], -1).astype(np.uint8)


def disc(height: int, width: int) -> np.ndarray:
    """A disc off the centre, white (repaint) on black (keep), with soft steps at the rim, [H, W] u8."""
    y, x = np.mgrid[0:height, 0:width]
    r = np.hypot(y - height * 0.55, x - width * 0.4) / min(height, width)
    return np.where(r < 0.27, 255, np.where(r < 0.3, 140, np.where(r < 0.33, 100, 0))).astype(np.uint8)


def generators(seed):
    if isinstance(seed, list):
        return [torch.Generator().manual_seed(s) for s in seed]
    return torch.Generator().manual_seed(seed)


def run(pipe, case: dict, inputs: dict):
    """One pipeline call as `case` says; the picture in u8 and the last latents."""
    kept = {}

    def keep(_pipe, _step, _timestep, tensors):
        kept["latents"] = tensors["latents"].clone()
        return {}

    args = {k: case[k] for k in ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2", "height", "width",
                                 "num_inference_steps", "guidance_scale", "guidance_rescale", "eta", "strength",
                                 "num_images_per_prompt", "original_size", "crops_coords_top_left",
                                 "target_size") if k in case}
    if "latents" in case:
        args["latents"] = seeded_input(*case["latents"])
    if "image" in case:
        args["image"] = Image.fromarray(inputs[case["image"]])
    if "mask" in case:
        args["mask_image"] = Image.fromarray(inputs[case["mask"]])
    pipe.scheduler = tiny.scheduler(case["scheduler"])
    pipe.set_progress_bar_config(disable=True)
    images = pipe(**args, generator=generators(case["seed"]), callback_on_step_end=keep,
                  callback_on_step_end_tensor_inputs=["latents"]).images
    return np.stack([np.asarray(i) for i in images]), kept["latents"]


def check(pipe, case, inputs, image):
    """The largest change of a u8 value when every U-Net weight moves by 1e-6 of itself."""
    kept = {k: v.clone() for k, v in pipe.unet.state_dict().items()}
    noise = torch.Generator().manual_seed(1)
    pipe.unet.load_state_dict({k: v * (1 + 1e-6 * torch.randn(v.shape, generator=noise)) for k, v in kept.items()})
    moved = run(pipe, case, inputs)[0]
    pipe.unet.load_state_dict(kept)
    return int(np.abs(moved.astype(int) - image.astype(int)).max())


def write(name: str, base, published: dict, groups: list, inputs: dict, text_prefix: str = "text_model."):
    """`groups`: (pipeline, its cases). The first pipeline's directory is the one that is saved."""
    weights, tensors, cases = tiny.seed_pipeline(base, text_prefix), {}, {}
    files = tiny.config_files(base, published)
    for pipe, group in groups:
        for key, case in group.items():
            sampler, changes = case.get("sampler"), case.pop("config", {})
            config = tiny.scheduler(published).config
            if sampler:
                # As X.from_config(the model's config): a key that the file lacks takes X's own default.
                cls, extra = SAMPLERS[sampler]
                config = getattr(diffusers, cls).from_config(config, **extra, **changes).config
            saved = {k: v for k, v in config.items() if k not in ("_use_default_values", "_diffusers_version")}
            saved.pop("lambda_min_clipped", None)  # -inf, which is no JSON
            if changes:
                case.pop("sampler")  # such a run needs the config, the name alone doesn't say it
            case["scheduler"] = saved | {"_class_name": cls if sampler else published["_class_name"]}
            case = dict(pipeline=type(pipe).__name__, num_inference_steps=6, guidance_scale=7.5, seed=33) | case
            image, latents = run(pipe, case, inputs)
            deviation = [round(float(i.std((0, 1)).mean()), 1) for i in image]
            line = f"{name} {key}: {image.shape}, deviation {deviation}, |latents| {latents.abs().max():.1f}"
            if "--check" in sys.argv:
                line += f", moved {check(pipe, case, inputs, image)}"
            print(line)
            assert min(deviation) > 20, key
            tensors[f"{key}.image"], tensors[f"{key}.latents"] = torch.from_numpy(image), latents
            cases[key] = case
    tensors |= {k: torch.from_numpy(v) for k, v in inputs.items()}
    save_fixture(f"pipeline_{name}", tensors, files=files, weights=weights, cases=cases)


def text_to_image():
    size = dict(height=64, width=64)
    cases = {name: dict(prompt=[FOX], sampler=name, **size) for name in SAMPLERS}
    cases["lcm"]["num_inference_steps"] = 4
    cases["negative"] = dict(prompt=[FOX], negative_prompt=["blurry, low quality"], sampler="ddim", **size)
    cases["no_guidance"] = dict(prompt=[FOX], guidance_scale=1.0, sampler="ddim", **size)
    cases["rescale"] = dict(prompt=[FOX], guidance_rescale=0.7, sampler="ddim", **size)
    cases["ddim_eta"] = dict(prompt=[FOX], eta=0.8, sampler="ddim", **size)
    cases["batch"] = dict(prompt=[FOX, BOAT], num_images_per_prompt=2, sampler="euler_a", **size)
    cases["batch_seeds"] = dict(prompt=[FOX, BOAT], num_images_per_prompt=2, seed=[1, 2, 3, 4],
                                sampler="euler_a", **size)
    cases["wide"] = dict(prompt=[FOX], height=64, width=96, sampler="dpmpp_2m")
    cases["odd"] = dict(prompt=[FOX], height=40, width=72, sampler="euler")
    cases["given_latents"] = dict(prompt=[BOAT], latents=("pipeline.latents", (1, 4, 16, 16)), sampler="lms", **size)
    cases["empty_prompt"] = dict(prompt=[""], sampler="ddim", **size)
    cases["long_prompt"] = dict(prompt=[", ".join([FOX] * 12)], sampler="ddim", **size)
    cases["euler_karras"] = dict(prompt=[FOX], sampler="euler", config=dict(use_karras_sigmas=True), **size)
    cases["zero_snr"] = dict(prompt=[FOX], sampler="ddim", config=dict(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"), **size)
    return cases


def image_to_image(samplers=("pndm", "ddim", "euler", "euler_a", "dpmpp_2m_karras", "heun", "unipc", "lcm")):
    cases = {f"img2img_{s}": dict(prompt=[FOX], image="image", strength=0.6, sampler=s, num_inference_steps=8)
             for s in samplers}
    cases["img2img_batch"] = dict(prompt=[FOX, BOAT], image="image", strength=0.45, sampler="ddim",
                                   num_inference_steps=10, num_images_per_prompt=2)
    cases["img2img_full"] = dict(prompt=[FOX], image="image", strength=1.0, sampler="ddim")
    cases["img2img_resized"] = dict(prompt=[FOX], image="uneven", strength=0.6, sampler="ddim")
    return cases


def inpaint(samplers=("ddim", "euler", "dpmpp_2m")):
    size = dict(prompt=[BOAT], image="image", mask="mask", height=64, width=80, num_inference_steps=8)
    cases = {f"inpaint_{s}": dict(sampler=s, strength=0.6, **size) for s in samplers}
    cases["inpaint_full"] = dict(sampler="ddim", strength=1.0, **size)
    return cases


INPUTS = dict(image=picture(64, 80), mask=disc(64, 80))
RESIZED = Image.fromarray(picture(67, 91)).resize((88, 64), Image.Resampling.LANCZOS)
UNEVEN = {"uneven": picture(67, 91), "uneven.resized": np.asarray(RESIZED)}


def stable_diffusion_1():
    base = tiny.sd1()
    parts = base.components
    image = diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    repaint = diffusers.StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    write("sd1", base, tiny.SD1_SCHEDULER, [(base, text_to_image())], {})
    write("sd1_image", base, tiny.SD1_SCHEDULER, [(image, image_to_image()), (repaint, inpaint())], INPUTS | UNEVEN)

    nine = tiny.sd1(9, diffusers.StableDiffusionInpaintPipeline)
    write("inpaint9", nine, tiny.SD1_SCHEDULER, [(nine, inpaint())], INPUTS)


def stable_diffusion_2():
    base = tiny.sd2()
    image = diffusers.StableDiffusionImg2ImgPipeline(**base.components, requires_safety_checker=False)
    cases = {s: dict(prompt=[FOX], sampler=s, height=48, width=48) for s in
             ("pndm", "ddim", "euler", "euler_a", "heun", "lms", "dpmpp_2m", "unipc", "lcm")}
    cases["negative"] = dict(prompt=[FOX], negative_prompt=["blurry"], height=48, width=64)
    # A file that transformers 5 saves: names without `text_model.`
    write("sd2", base, tiny.SD2_SCHEDULER, [(base, cases), (image, image_to_image(("ddim", "euler")))],
          INPUTS | UNEVEN, text_prefix="")
    # As stable-diffusion-2-base comes: for 512 pixels, it predicts the noise.
    cases = {"default": dict(prompt=[FOX], height=48, width=48),
             "negative": dict(prompt=[FOX], negative_prompt=["blurry"], sampler="ddim", height=48, width=64)}
    write("sd2_epsilon", base, tiny.SD2_BASE_SCHEDULER, [(base, cases)], {})


def stable_diffusion_xl():
    base = tiny.sdxl()
    image = diffusers.StableDiffusionXLImg2ImgPipeline(**base.components, add_watermarker=False)
    repaint = diffusers.StableDiffusionXLInpaintPipeline(**base.components, add_watermarker=False)
    xl = {
        "default": dict(prompt=[FOX], height=64, width=64),
        "negative": dict(prompt=[FOX], negative_prompt=["blurry"], height=64, width=64),
        "no_guidance": dict(prompt=[FOX], guidance_scale=1.0, height=64, width=64),
        "wide_batch": dict(prompt=[FOX, BOAT], height=64, width=96, num_images_per_prompt=2, sampler="ddim"),
        "two_prompts": dict(prompt=[FOX], prompt_2=[BOAT], negative_prompt=["blurry"], negative_prompt_2=["grey"],
                            height=64, width=64, sampler="dpmpp_2m_karras"),
        "sizes": dict(prompt=[FOX], height=64, width=64, original_size=(512, 768), crops_coords_top_left=(8, 16),
                      target_size=(1024, 1024), guidance_rescale=0.5),
        "euler_a": dict(prompt=[FOX], height=64, width=64, sampler="euler_a"),
    }
    xl_image = {k: v for k, v in image_to_image(("euler", "ddim")).items() if k != "img2img_full"}
    xl_paint = {k: dict(v, height=64, width=80) for k, v in inpaint(("euler",)).items()}
    write("sdxl", base, tiny.SDXL_SCHEDULER, [(base, xl), (image, xl_image), (repaint, xl_paint)], INPUTS | UNEVEN)


def inpainting():
    """What the families above leave out: Stable Diffusion 2 with 4 and 9 channels, XL with 9."""
    for channels in (4, 9):
        pipe = tiny.sd2(channels, diffusers.StableDiffusionInpaintPipeline)
        write(f"inpaint{channels}_sd2", pipe, tiny.SD2_SCHEDULER, [(pipe, inpaint(("ddim",)))], INPUTS)
    pipe = tiny.sdxl(9, diffusers.StableDiffusionXLInpaintPipeline)
    write("inpaint9_sdxl", pipe, tiny.SDXL_SCHEDULER, [(pipe, inpaint(("euler",)))], INPUTS)


def latent_consistency():
    """The guidance scale goes in as an embedding, and there is one call a step."""
    pipe = tiny.lcm()
    size = dict(height=64, width=64, num_inference_steps=4)
    cases = {"text": dict(prompt=[FOX], guidance_scale=8.5, **size),
             "batch": dict(prompt=[FOX, BOAT], guidance_scale=2.0, num_images_per_prompt=2, **size)}
    write("lcm", pipe, tiny.LCM_SCHEDULER, [(pipe, cases)], {})


GROUPS = [stable_diffusion_1, stable_diffusion_2, stable_diffusion_xl, inpainting, latent_consistency]

if __name__ == "__main__":
    named = [a for a in sys.argv[1:] if a != "--check"]
    for group in GROUPS:
        if not named or group.__name__ in named:
            group()
