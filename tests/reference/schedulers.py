"""diffusers' schedulers over whole runs on a denoiser that both sides compute alike."""
import warnings

import diffusers
import numpy as np
import torch

from seeded import save_fixture, seeded_input

torch.set_num_threads(1)
warnings.filterwarnings("ignore")
diffusers.logging.set_verbosity_error()

SHAPE = (2, 4, 5, 3)
CLASSES = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "dpmpp": "DPMSolverMultistepScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "dpmpp_2m_sde": "DPMSolverMultistepScheduler",
    "dpmpp_2m_karras": "DPMSolverMultistepScheduler",
    "dpmpp_2m_sde_karras": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}
# What a short name fixes beyond its class.
FIXED = {
    "dpmpp_2m": {"algorithm_type": "dpmsolver++", "solver_order": 2},
    "dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
    "dpmpp_2m_karras": {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True},
    "dpmpp_2m_sde_karras": {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "use_karras_sigmas": True},
}
PREDICTIONS = {
    "pndm": ["epsilon", "v_prediction"],
    "euler_a": ["epsilon", "v_prediction"],
}
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
# The published scheduler_config.json of three models.
SD15 = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True,
    "steps_offset": 1, "trained_betas": None, "clip_sample": False,
}
SD21 = {
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "v_prediction",
    "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
}
SDXL = {
    "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False, "interpolation_type": "linear",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None,
    "use_karras_sigmas": False,
}
LEVELS = ["euler", "heun", "lms", "dpmpp", "dpmpp_2m_sde", "unipc"]  # these know Karras and exponential sigmas
V = {"prediction_type": "v_prediction"}


def denoise(x, t, learned=None):
    output = 0.6 * x * torch.cos(t / 1000) + 0.3 * torch.sin(2 * x) + 0.05
    if learned not in ("learned", "learned_range"):
        return output
    extra = torch.sin(x) * 0.5 if learned == "learned_range" else 0.02 + 0.01 * torch.sin(x)
    return torch.cat([output, extra], dim=1)


def run(case):
    kind, steps = case["kind"], case["steps"]
    scheduler = getattr(diffusers, CLASSES[kind]).from_config({**case["config"], **FIXED.get(kind, {})})
    scheduler.set_timesteps(steps)
    noise = torch.Generator("cpu").manual_seed(11)
    timesteps, strength = scheduler.timesteps, case.get("strength", 1.0)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # else a first timestep that comes twice would start at the second
    if strength == 1.0:
        x = seeded_input("latent", SHAPE) * scheduler.init_noise_sigma
    else:  # StableDiffusionImg2ImgPipeline.get_timesteps and prepare_latents
        kept = min(int(steps * strength), steps)
        begin = max(steps - kept, 0) * scheduler.order
        timesteps = timesteps[begin:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        x = scheduler.add_noise(seeded_input("image", SHAPE), seeded_input("latent", SHAPE), timesteps[:1])
    start, extra = x, {}
    if "eta" in case:
        extra["eta"] = case["eta"]
    if kind in ("ddpm", "ddim", "euler_a", "lcm") or kind.startswith("dpmpp"):
        extra["generator"] = noise
    for t in timesteps:
        seen = scheduler.scale_model_input(x, t)
        output = denoise(seen, t.to(torch.float32), case["config"].get("variance_type"))
        x = scheduler.step(output, t, x, **extra).prev_sample
    assert torch.isfinite(x).all(), case
    case["init_noise_sigma"] = float(scheduler.init_noise_sigma)
    sigmas = getattr(scheduler, "sigmas", torch.zeros(0))
    return {"final": x, "start": start, "timesteps": timesteps.float(), "sigmas": sigmas.float()}


def cases():
    for kind in CLASSES:
        predictions = PREDICTIONS.get(kind, ["epsilon", "v_prediction", "sample"])
        for prediction in predictions:
            for steps in (5, 20, 50):
                yield kind, {**SD, "prediction_type": prediction}, steps, {}
        yield kind, {}, 20, {}
        for strength, steps in ((0.6, 20), (0.35, 7)):
            yield kind, SD15, steps, {"strength": strength}
        for config in (SD15, SD21, SDXL):
            yield kind, config, 20, {}
        yield kind, {**SD, **V, "skip_prk_steps": True}, 1, {}
        if kind == "lcm":
            continue
        for spacing in ("leading", "linspace", "trailing"):
            for steps in (5, 20, 30, 37):
                yield kind, {**SD, "timestep_spacing": spacing}, steps, {}
        yield kind, {**SD, "timestep_spacing": "leading", "steps_offset": 1}, 20, {}
    for kind in ("ddpm", "ddim", "pndm", "euler", "euler_a", "heun", "lms", "dpmpp", "unipc", "lcm"):
        yield kind, {"beta_schedule": "linear"}, 20, {}
        yield kind, {"beta_schedule": "squaredcos_cap_v2", **V}, 20, {}
        yield kind, {"trained_betas": np.linspace(0.001, 0.03, 200).tolist(), "num_train_timesteps": 200}, 20, {}
    for kind in ("ddpm", "ddim", "euler", "euler_a", "dpmpp", "unipc", "lcm"):
        yield kind, {**SD, **V, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, 20, {}
    for kind in ("ddim", "pndm", "lcm"):
        for to_one in (True, False):
            yield kind, {**SD, "set_alpha_to_one": to_one}, 20, {}
    for kind in ("ddpm", "ddim", "heun", "lcm"):
        yield kind, {**SD, "clip_sample": True}, 20, {}
        yield kind, {**SD, "clip_sample": True, "clip_sample_range": 0.5, **V}, 20, {}
    for kind in ("ddpm", "ddim", "lcm"):
        yield kind, {**SD, "clip_sample": False}, 20, {}
    for kind in ("ddpm", "ddim", "lcm", "dpmpp", "unipc"):
        for ratio, most in ((0.995, 1.0), (0.9, 2.5), (0.5, 1.5), (1.0, 100.0)):
            limit = {"thresholding": True, "dynamic_thresholding_ratio": ratio, "sample_max_value": most}
            yield kind, {**SD, **limit}, 20, {}
    for eta in (0.0, 0.5, 1.0):
        for steps in (5, 20, 50):
            yield "ddim", SD, steps, {"eta": eta}
        yield "ddim", {**SD, **V, "clip_sample": False, "set_alpha_to_one": False}, 20, {"eta": eta}
    for kind in LEVELS:
        for prediction in ("epsilon", "v_prediction", "sample"):
            for levels in ("use_karras_sigmas", "use_exponential_sigmas"):
                for steps in (5, 20, 50):
                    yield kind, {**SD, levels: True, "prediction_type": prediction}, steps, {}
    for kind in ("euler", "heun", "dpmpp", "unipc"):
        for levels in ("use_karras_sigmas", "use_exponential_sigmas"):
            yield kind, {**SD, levels: True, "sigma_min": 0.1, "sigma_max": 10.0}, 20, {}
    yield "lms", {**SD, "use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}, 20, {}
    yield "dpmpp", {**V, "beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}, 20, {}
    yield "dpmpp", {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}, 20, {}
    for kind in ("euler", "dpmpp", "unipc"):
        for levels in ({}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}):
            for steps in (5, 20):
                yield kind, {**SD, **levels, "final_sigmas_type": "sigma_min"}, steps, {}
    yield "euler", {**SD, "interpolation_type": "log_linear"}, 20, {}
    yield "euler", {**SD, **V, "timestep_type": "continuous"}, 20, {}
    yield "euler", SD, 1500, {}
    for algorithm in ("dpmsolver++", "sde-dpmsolver++"):
        for order in (1, 2, 3):
            for solver in ("midpoint", "heun"):
                for steps in (5, 20, 50):
                    options = {"algorithm_type": algorithm, "solver_order": order, "solver_type": solver}
                    yield "dpmpp", {**SD, **options}, steps, {}
        for options in ({"lower_order_final": False}, {"euler_at_final": True}, {"solver_order": 3}):
            for end in ("zero", "sigma_min"):
                config = {**SD, "algorithm_type": algorithm, "final_sigmas_type": end, **options}
                yield "dpmpp", config, 10, {}
                yield "dpmpp", config, 20, {}
    for prediction in ("epsilon", "v_prediction", "sample"):
        for order in (1, 2, 3, 4):
            config = {**SD, "solver_order": order, "prediction_type": prediction}
            for steps in (5, 20, 50):
                yield "unipc", config, steps, {}
            for options in ({"solver_type": "bh1"}, {"predict_x0": False}, {"lower_order_final": False}):
                yield "unipc", {**config, **options, "final_sigmas_type": "sigma_min"}, 10, {}
    yield "unipc", {**SD, "disable_corrector": [0, 3]}, 20, {}
    yield "unipc", {**SD, "solver_type": "midpoint"}, 20, {}
    yield "dpmpp", {**SD, "solver_type": "bh2", "algorithm_type": "deis", "final_sigmas_type": "sigma_min"}, 20, {}
    for prediction in ("epsilon", "v_prediction"):
        for skip in (True, False):
            for steps in (5, 20, 50):
                yield "pndm", {**SD, "skip_prk_steps": skip, "prediction_type": prediction}, steps, {}
        yield "pndm", {**SD, "skip_prk_steps": False, "prediction_type": prediction}, 30, {"strength": 0.5}
    for variance in ("fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"):
        yield "ddpm", {**SD, "variance_type": variance}, 20, {}
    yield "lcm", {**SD, "original_inference_steps": 100, "timestep_scaling": 3.0}, 8, {}


def betas():
    """alpha-bar of every schedule, to be met bit for bit."""
    tensors, configs = {}, []
    schedules = [{"beta_schedule": s, **r} for s in ("linear", "scaled_linear", "squaredcos_cap_v2") for r in (SD, {})]
    schedules = [{**s, "beta_schedule": s["beta_schedule"]} for s in schedules] + [{**SD, "num_train_timesteps": 37}]
    for config in schedules + [{**c, "rescale_betas_zero_snr": True} for c in schedules]:
        tensors[f"alphas_cumprod.{len(configs)}"] = diffusers.DDPMScheduler(**config).alphas_cumprod
        configs.append(config)
    return tensors, configs


def per_item():
    """add_noise and velocity with a timestep for each item."""
    scheduler = diffusers.DDPMScheduler(**SD)
    shape, timesteps = (3, 4, 5, 3), torch.tensor([0, 999, 417])
    x0, noise = seeded_input("image", shape), seeded_input("latent", shape)
    return {
        "per_item.noisy": scheduler.add_noise(x0, noise, timesteps),
        "per_item.velocity": scheduler.get_velocity(x0, noise, timesteps),
        "per_item.timesteps": timesteps,
    }


all_cases, tensors, grids = [], {}, {}
for kind, config, steps, options in cases():
    case = {"kind": kind, "config": config, "steps": steps, **options}
    if case in [{k: v for k, v in c.items() if k in ("kind", "config", "steps", "eta", "strength")} for c in all_cases]:
        continue
    result, i = run(case), len(all_cases)
    tensors[f"{i}.final"] = result["final"]
    if "strength" in case:
        tensors[f"{i}.start"] = result["start"]
    # Many cases share their path: kept once.
    for part in ("timesteps", "sigmas"):
        key = result[part].numpy().tobytes()
        name = grids.setdefault(key, f"path.{len(grids)}")
        tensors[name], case[part] = result[part], name
    all_cases.append(case)

alphas, configs = betas()
print(len(all_cases), "runs")
save_fixture("schedulers", {**tensors, **per_item()}, shape=SHAPE, cases=all_cases)
save_fixture("noise_schedules", alphas, configs=configs)
