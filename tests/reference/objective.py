"""The loss of latent diffusion and its gradient, for each prediction."""
import diffusers
import torch

from seeded import save_fixture, seeded_input, seeded_weight

torch.set_num_threads(1)
SHAPE, TIMESTEPS = (3, 4, 5, 3), torch.tensor([0, 417, 999])
CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
scheduler = diffusers.DDPMScheduler(**CONFIG)
z, noise = seeded_input("image", SHAPE), seeded_input("latent", SHAPE)
tensors = {}
for prediction in ("epsilon", "sample", "v_prediction"):
    a = seeded_weight("a", (1, 4, 1, 1)).requires_grad_()
    b = seeded_weight("b", (1, 4, 1, 1)).requires_grad_()
    z_t = scheduler.add_noise(z, noise, TIMESTEPS)
    t = TIMESTEPS.float().reshape(-1, 1, 1, 1) / 1000
    output = a * z_t * torch.cos(t) + b * torch.sin(z_t)
    target = {"epsilon": noise, "sample": z, "v_prediction": scheduler.get_velocity(z, noise, TIMESTEPS)}[prediction]
    loss = torch.nn.functional.mse_loss(output, target)
    loss.backward()
    tensors |= {f"{prediction}.loss": loss[None], f"{prediction}.a": a.grad, f"{prediction}.b": b.grad}
save_fixture("objective", tensors, config=CONFIG, timesteps=TIMESTEPS.tolist())
