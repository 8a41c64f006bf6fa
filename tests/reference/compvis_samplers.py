"""CompVis' own DDIM and PLMS samplers, which choose their timesteps in their own way."""
import torch
from ldm.models.diffusion.ddim import DDIMSampler
from ldm.models.diffusion.plms import PLMSSampler
from ldm.modules.diffusionmodules.util import make_beta_schedule

from seeded import save_fixture, seeded_input

torch.set_num_threads(1)
SHAPE = (2, 4, 5, 3)


class Model:
    """What a sampler asks of LatentDiffusion: the schedule's buffers and apply_model."""

    def __init__(self, schedule, start, end):
        betas = make_beta_schedule(schedule, 1000, linear_start=start, linear_end=end)
        betas = torch.as_tensor(betas, dtype=torch.float64)
        alphas_cumprod = torch.cumprod(1 - betas, 0)
        self.num_timesteps, self.device, self.parameterization = 1000, torch.device("cpu"), "eps"
        self.betas, self.alphas_cumprod = betas.float(), alphas_cumprod.float()
        self.alphas_cumprod_prev = torch.cat([torch.ones(1), alphas_cumprod[:-1].float()])
        self.sqrt_one_minus_alphas_cumprod = (1 - alphas_cumprod).sqrt().float()
        self.sqrt_alphas_cumprod = alphas_cumprod.sqrt().float()
        self.first_stage_model = self

    def apply_model(self, x, t, c):
        t = t.float().reshape(-1, 1, 1, 1)
        return 0.6 * x * torch.cos(t / 1000) + 0.3 * torch.sin(2 * x) + 0.05

    def q_sample(self, x0, t):
        a, b = (v[t].reshape(-1, 1, 1, 1) for v in (self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod))
        return a * x0 + b * torch.randn_like(x0)

    def quantize(self, x):
        return (2 * x).round() / 2, None, None


def on_cpu(sampler):
    class OnCpu(sampler):
        def register_buffer(self, name, attr):  # the original moves every buffer to cuda
            setattr(self, name, attr)

    return OnCpu


cases, tensors = [], {}
for schedule in ("linear", "sqrt_linear", "cosine"):
    for steps in (5, 20, 30, 50):
        for name, sampler in (("ddim", DDIMSampler), ("pndm", PLMSSampler)):
            for eta in (0.0, 0.5) if name == "ddim" else (0.0,):
                torch.manual_seed(11)
                run = on_cpu(sampler)(Model(schedule, 0.0015, 0.0195))
                x, _ = run.sample(steps, SHAPE[0], SHAPE[1:], eta=eta, x_T=seeded_input("latent", SHAPE), verbose=False)
                tensors[f"{len(cases)}.final"] = x
                calls = len(run.ddim_timesteps) + (name == "pndm")
                cases.append({"kind": name, "schedule": schedule, "steps": steps, "eta": eta, "calls": calls})
save_fixture("compvis_samplers", tensors, cases=cases, shape=SHAPE)

# What else the samplers can do: (sampler, eta, their own keywords).
OPTIONS = [
    ("ddim", 0.8, dict(temperature=0.6)),
    ("ddim", 1.0, dict(noise_dropout=0.3)),
    ("ddim", 0.7, dict(temperature=1.4, noise_dropout=0.5, quantize_x0=True)),
    ("ddim", 0.0, dict(quantize_x0=True)),
    ("pndm", 0.0, dict(quantize_x0=True)),
    ("ddim", 0.0, dict(mask=True)),
    ("ddim", 1.0, dict(mask=True, noise_dropout=0.2)),
    ("pndm", 0.0, dict(mask=True)),
    ("pndm", 0.0, dict(mask=True, noise_dropout=0.2, quantize_x0=True)),
]
cases, tensors = [], {}
for i, (name, eta, options) in enumerate(OPTIONS):
    torch.manual_seed(12)
    run = on_cpu(DDIMSampler if name == "ddim" else PLMSSampler)(Model("linear", 0.0015, 0.0195))
    given = dict(options)
    if given.pop("mask", False):
        given.update(x0=seeded_input("x0", SHAPE), mask=(seeded_input("mask", (SHAPE[0], 1, *SHAPE[2:])) > 0).float())
    x, _ = run.sample(20, SHAPE[0], SHAPE[1:], eta=eta, x_T=seeded_input("latent", SHAPE), verbose=False, **given)
    tensors[f"{i}.final"] = x
    cases.append({"kind": name, "eta": eta, **options})
save_fixture("compvis_sampler_options", tensors, cases=cases)
