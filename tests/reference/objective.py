"""The second stage's loss and its gradient: the original p_losses for what its YAML files can say, diffusers' formulas
for min-SNR weighting, zero-terminal SNR, offset noise and conditioning dropout; LitEma."""
import sys
import types

import torch

# The original imports these to train; nothing below needs them.
lightning = types.ModuleType("pytorch_lightning")
lightning.LightningModule = torch.nn.Module
distributed = types.ModuleType("pytorch_lightning.utilities.distributed")
distributed.rank_zero_only = lambda f: f
sys.modules |= {"pytorch_lightning": lightning, "pytorch_lightning.utilities": types.ModuleType("utilities"),
                "pytorch_lightning.utilities.distributed": distributed}

import diffusers  # noqa: E402
from diffusers.training_utils import compute_snr  # noqa: E402
from ldm.models.diffusion.ddpm import LatentDiffusion  # noqa: E402
from ldm.modules.ema import LitEma  # noqa: E402

from seeded import save_fixture, seeded_input, seeded_weight  # noqa: E402

torch.set_num_threads(1)
SHAPE, TIMESTEPS = (4, 4, 5, 3), torch.tensor([0, 20, 417, 999])
SCHEDULE = {"linear_start": 0.0015, "linear_end": 0.0195}
z, noise, offset = seeded_input("image", SHAPE), seeded_input("latent", SHAPE), seeded_input("offset", (4, 4, 1, 1))
tensors, cases = {}, []


def denoise(z_t, t, weights):
    t = t.float().reshape(-1, 1, 1, 1) / 1000
    return weights["a"] * z_t * torch.cos(t) + weights["b"] * torch.sin(z_t)


def leaves():
    return {name: seeded_weight(name, (1, 4, 1, 1)).requires_grad_() for name in "ab"}


def add(config, loss, weights, logs):
    loss.backward()
    case = len(cases)
    gradients = {name: weight.grad for name, weight in weights.items()}
    scalars = {name: value.detach() for name, value in logs.items()}
    tensors.update({f"{case}.{k}": v.reshape(1) if v.dim() == 0 else v for k, v in (gradients | scalars).items()})
    cases.append(config)


class Original(LatentDiffusion):
    """What p_losses reads, and nothing of the rest."""

    def __init__(self, timesteps=1000, beta_schedule="linear", parameterization="eps", loss_type="l2", l_simple_weight=1.0,
                 original_elbo_weight=0.0, v_posterior=0.0, learn_logvar=False, logvar_init=0.0, **schedule):
        torch.nn.Module.__init__(self)
        self.parameterization, self.loss_type, self.v_posterior = parameterization, loss_type, v_posterior
        self.l_simple_weight, self.original_elbo_weight = l_simple_weight, original_elbo_weight
        self.num_timesteps_cond, self.device, self.learn_logvar = 1, torch.device("cpu"), learn_logvar
        self.register_schedule(timesteps=timesteps, beta_schedule=beta_schedule, **schedule)
        logvar = torch.full((timesteps,), logvar_init)
        if learn_logvar:  # not all alike, so that each timestep's counts
            logvar = torch.nn.Parameter(logvar + 0.1 * torch.arange(timesteps) / timesteps)
        self.logvar = logvar
        self.weights = leaves()

    def apply_model(self, z_t, t, cond):
        return denoise(z_t, t, self.weights)


for config in (
    {}, {"parameterization": "x0"}, {"parameterization": "v"}, {"loss_type": "l1"},
    {"loss_type": "l1", "parameterization": "x0", "original_elbo_weight": 0.1, "l_simple_weight": 0.7},
    {"original_elbo_weight": 1.0, "v_posterior": 0.3}, {"original_elbo_weight": 0.5, "parameterization": "v"},
    {"logvar_init": 0.4}, {"logvar_init": -0.3, "learn_logvar": True, "original_elbo_weight": 0.01},
    {"beta_schedule": "sqrt_linear", "original_elbo_weight": 1.0, "timesteps": 1000}, {"beta_schedule": "cosine"},
):
    config = SCHEDULE | config
    model = Original(**config)
    loss, logs = model.p_losses(z, None, TIMESTEPS, noise)
    logs = {name.removeprefix("train/"): value for name, value in logs.items()}
    weights = model.weights | ({"logvar_grad": model.logvar} if config.get("learn_logvar") else {})
    add(config, loss, weights, logs)

PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
for config in (
    {"snr_gamma": 5.0}, {"snr_gamma": 5.0, "parameterization": "x0"}, {"snr_gamma": 5.0, "parameterization": "v"},
    {"noise_offset": 0.1}, {"rescale_betas_zero_snr": True, "parameterization": "v"},
    {"rescale_betas_zero_snr": True, "parameterization": "x0"},
    {"rescale_betas_zero_snr": True, "parameterization": "v", "snr_gamma": 5.0, "noise_offset": 0.05},
):
    prediction = config.get("parameterization", "eps")
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=SCHEDULE["linear_start"], beta_end=SCHEDULE["linear_end"],
        rescale_betas_zero_snr=config.get("rescale_betas_zero_snr", False), prediction_type=PREDICTIONS[prediction])
    # The step of train_text_to_image.py.
    noisy = noise + config.get("noise_offset", 0.0) * offset
    target = {"eps": noisy, "x0": z, "v": scheduler.get_velocity(z, noisy, TIMESTEPS)}[prediction]
    weights = leaves()
    output = denoise(scheduler.add_noise(z, noisy, TIMESTEPS), TIMESTEPS, weights)
    each = torch.nn.functional.mse_loss(output, target, reduction="none").mean(dim=[1, 2, 3])
    simple = each.mean()
    if "snr_gamma" in config:
        snr = compute_snr(scheduler, TIMESTEPS)
        mse_weights = torch.stack([snr, config["snr_gamma"] * torch.ones_like(TIMESTEPS)], dim=1).min(dim=1)[0]
        mse_weights = mse_weights / {"eps": snr, "x0": 1.0, "v": snr + 1}[prediction]
        each = each * mse_weights
    loss = each.mean()
    add(SCHEDULE | config, loss, weights, {"loss_simple": simple, "loss": loss})

# train_instruct_pix2pix.py.
uniform = torch.tensor([0.01, 0.049, 0.05, 0.07, 0.099, 0.1, 0.149, 0.15, 0.7])
probability, context = 0.05, seeded_input("context", (9, 3, 4))
null, picture = seeded_input("null", (1, 3, 4)), seeded_input("picture", (9, 2, 2, 2))
prompt_mask = (uniform < 2 * probability).reshape(9, 1, 1)
image_mask = 1 - ((uniform >= probability).float() * (uniform < 3 * probability).float())
tensors |= {"uniform": uniform, "dropped.context": torch.where(prompt_mask, null, context),
            "dropped.picture": image_mask.reshape(9, 1, 1, 1) * picture}

tensors["scale"] = (1.0 / z.flatten().std()).reshape(1)


class Weights(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(seeded_weight("0.weight", (3, 5)))
        self.bias = torch.nn.Parameter(seeded_weight("0.bias", (3,)))


for decay in (0.9999, 0.3):
    model = Weights()
    ema = LitEma(model, decay)
    for step in range(1, 13):
        model.weight.data = seeded_weight(f"{step}.weight", (3, 5))
        model.bias.data = seeded_weight(f"{step}.bias", (3,))
        ema(model)
    tensors |= {f"ema.{decay}.weight": ema.weight, f"ema.{decay}.bias": ema.bias}
save_fixture("objective", tensors, cases=cases, timesteps=TIMESTEPS.tolist(), shape=SHAPE)
