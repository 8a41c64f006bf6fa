"""Training as the originals do it: one step's losses and every gradient, the losses of 20 steps, for both stages and both
first-stage regularisers; LPIPS as taming and the `lpips` package have it. Needs the original repositories (originals.py).

Gradients are kept as digests: for each parameter its largest element, its norm, four projections on vectors drawn by
name, and its first eight elements.
"""
import sys
import types

import originals  # noqa: F401
import torch
import torchvision

distributed = types.ModuleType("pytorch_lightning.utilities.distributed")
distributed.rank_zero_only = lambda f: f
sys.modules |= {"pytorch_lightning.utilities": types.ModuleType("utilities"),
                "pytorch_lightning.utilities.distributed": distributed}
# Weights are drawn by name, so nothing is to be downloaded.
vgg16 = torchvision.models.vgg16
torchvision.models.vgg16 = lambda pretrained=False, **_: vgg16(weights=None)

import taming.modules.losses.lpips as taming_lpips  # noqa: E402

taming_lpips.LPIPS.load_from_pretrained = lambda self, name="vgg_lpips": None

import ldm.modules.losses.vqperceptual as vqperceptual  # noqa: E402
from ldm.models.autoencoder import AutoencoderKL, VQModel  # noqa: E402
from ldm.models.diffusion.ddpm import LatentDiffusion  # noqa: E402
from ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from ldm.modules.losses.contperceptual import LPIPSWithDiscriminator  # noqa: E402

from seeded import save_fixture, seeded_input, seeded_weight  # noqa: E402

vqperceptual.exists = lambda x: x is not None  # the original forgot to import it
torch.set_num_threads(2)
STEPS, BATCH, SIDE = 20, 2, 32
# Adam makes steps of gradients that are rounding: at 1e-4, PyTorch in f32 and in f64 are 1e-3 apart after 13 steps.
RATE = 3e-5


def seed(module, prefix=""):
    """Gives every parameter its seeded weight; buffers keep theirs."""
    for name, parameter in module.named_parameters():
        parameter.data = seeded_weight(prefix + name, parameter.shape)
    return {prefix + name: list(p.shape) for name, p in module.named_parameters()}


def digest(name, gradient):
    flat = gradient.flatten()
    projections = [(flat.double() * seeded_input(f"{name}.{k}", flat.shape).double()).sum() for k in range(4)]
    head = torch.zeros(8)
    head[:min(8, len(flat))] = flat[:8]
    return torch.cat([torch.stack([flat.abs().max().double(), flat.double().norm(), *projections]).float(), head])


def digests(module, prefix=""):
    return {f"gradient.{prefix}{name}": digest(prefix + name, p.grad) for name, p in module.named_parameters()}


# The pictures that gradients are taken with. The losses have edges (|x|, ReLU, max pooling): of the KL model's first
# pictures PyTorch's own gradients move by 1.2e-3 where its middle block moves by 3e-6, of these by 7e-5.
PICTURES = dict(kl=6, vq=0)


def pictures(step):
    return seeded_input(f"x.{step}", (BATCH, 3, SIDE, SIDE)).clamp(-1, 1)


randn, taken = torch.randn, []  # the noise that posteriors were sampled with


def drawn_randn(shape, **other):
    noise = seeded_input(f"posterior.{len(taken)}", shape)
    taken.append(noise)
    return noise


def ddconfig(double_z):
    return dict(double_z=double_z, z_channels=3, resolution=SIDE, in_channels=3, out_ch=3, ch=32, ch_mult=[1, 2],
                num_res_blocks=1, attn_resolutions=[], dropout=0.0)


def first_stage(name, loss):
    """The model with its loss, everything in training mode but LPIPS, whose dropout stays off."""
    nothing = {"target": "torch.nn.Identity"}
    if name == "kl":
        model = AutoencoderKL(ddconfig=ddconfig(True), lossconfig=nothing, embed_dim=3)
    else:
        model = VQModel(ddconfig=ddconfig(False), lossconfig=nothing, n_embed=16, embed_dim=3)
    model.loss = torch.nn.Identity()
    shapes = seed(model)
    seed(loss.discriminator, "discriminator.")
    seed(loss.perceptual_loss, "lpips.")
    model.train(), loss.train()
    loss.perceptual_loss.eval()
    return model, shapes


def losses_of(name, model, loss, x, player, step):
    """training_step of autoencoder.py."""
    if name == "kl":
        reconstructions, posterior = model(x)
        return loss(x, reconstructions, posterior, player, step, last_layer=model.get_last_layer())
    reconstructions, codebook_loss, indices = model(x, return_pred_indices=True)
    return loss(codebook_loss, x, reconstructions, player, step, last_layer=model.get_last_layer())


def train_first_stage(name, make, variants):
    tensors, cases = {}, {}
    for variant, params in variants.items():
        loss = make(**params)
        model, shapes = first_stage(name, loss)
        discriminator = {f"discriminator.{k}": list(p.shape) for k, p in loss.discriminator.named_parameters()}
        taken.clear()
        if variant != "run":
            aeloss, logs = losses_of(name, model, loss, pictures(PICTURES[name]), 0, 0)
            aeloss.backward()
            tensors |= {f"{variant}.{k}": v for k, v in digests(model).items()}
            if name == "kl":
                tensors[f"{variant}.gradient.logvar"] = digest("logvar", loss.logvar.grad)
            loss.zero_grad()
            discloss, more = losses_of(name, model, loss, pictures(PICTURES[name]), 1, 0)
            discloss.backward()
            tensors |= {f"{variant}.{k}": v for k, v in digests(loss.discriminator, "discriminator.").items()}
            for key, value in (logs | more).items():
                tensors[f"{variant}.{key.removeprefix('train/')}"] = torch.as_tensor(value).float().reshape(1)
            running = loss.discriminator.main[3]
            tensors |= {f"{variant}.running_mean": running.running_mean, f"{variant}.running_var": running.running_var}
        else:
            # In f64: in f32 PyTorch itself takes another code for a pixel between two after 5 steps.
            model.double(), loss.double()
            ae = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.5, 0.9))
            disc = torch.optim.Adam(loss.discriminator.parameters(), lr=RATE, betas=(0.5, 0.9))
            history = []
            for step in range(STEPS):
                aeloss, _ = losses_of(name, model, loss, pictures(step).double(), 0, step)
                ae.zero_grad()
                aeloss.backward()
                ae.step()
                discloss, _ = losses_of(name, model, loss, pictures(step).double(), 1, step)
                disc.zero_grad()
                discloss.backward()
                disc.step()
                history.append([aeloss.item(), discloss.item()])
            tensors["run.losses"] = torch.tensor(history)
            print(name, history[0], history[-1])
        cases[variant] = params
    config = dict(embed_dim=3, ddconfig=ddconfig(name == "kl")) | ({} if name == "kl" else {"n_embed": 16})
    perceptual = {f"lpips.{k}": list(p.shape) for k, p in loss.perceptual_loss.named_parameters()}
    save_fixture(f"train_{name}", tensors, cases=cases, config=config, shapes=shapes, discriminator=discriminator,
                 lpips=perceptual)


def lpips_fixture():
    import lpips

    theirs = lpips.LPIPS(pretrained=False, net="vgg", pnet_rand=True, verbose=False).eval()
    ours = taming_lpips.LPIPS().eval()
    tensors = {}
    a, b = (seeded_input(name, (3, 3, 40, 24)).clamp(-1, 1) for name in "ab")
    for model in (theirs, ours):
        for name, parameter in model.named_parameters():  # `lins` are the package's layers once more
            if not name.startswith("lins."):
                parameter.data = seeded_weight("lpips." + name, parameter.shape)
        b = b.detach().requires_grad_()
        distance = model(a, b)
        distance.mean().backward()
        tensors["distance" if model is theirs else "distance_taming"] = distance
        tensors["gradient" if model is theirs else "gradient_taming"] = digest("b", b.grad)
    shapes = {f"lpips.{k}": list(p.shape) for k, p in ours.named_parameters()}
    save_fixture("lpips", tensors, shapes=shapes)


class Diffusion(LatentDiffusion):
    """The loss of LatentDiffusion around a U-Net, and nothing of the rest."""

    def __init__(self, unet, **config):
        torch.nn.Module.__init__(self)
        self.parameterization, self.loss_type, self.v_posterior = "eps", "l2", 0.0
        self.l_simple_weight, self.original_elbo_weight = 1.0, config["original_elbo_weight"]
        self.num_timesteps_cond, self.device, self.learn_logvar = 1, torch.device("cpu"), False
        self.register_schedule(timesteps=1000, linear_start=config["linear_start"], linear_end=config["linear_end"])
        self.logvar, self.model = torch.zeros(1000), unet

    def apply_model(self, z_t, t, cond):
        return self.model(z_t, t, context=cond)


def second_stage():
    config = dict(image_size=8, in_channels=4, model_channels=32, out_channels=4, num_res_blocks=1,
                  attention_resolutions=[1, 2], channel_mult=[1, 2], num_heads=4, use_spatial_transformer=True,
                  transformer_depth=1, context_dim=24, use_checkpoint=False, legacy=False)
    objective = dict(linear_start=0.0015, linear_end=0.0195, original_elbo_weight=1e-3)
    shape, tensors = (BATCH, 4, 8, 8), {}
    for variant in ("step", "run"):
        unet = UNetModel(**config).train()
        shapes = seed(unet)
        model = Diffusion(unet, **objective)
        optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3)
        history = []
        for step in range(1 if variant == "step" else STEPS):
            t = torch.tensor([(step * 379 + 611) % 1000, (step * 233) % 1000])
            z, noise = seeded_input(f"z.{step}", shape), seeded_input(f"noise.{step}", shape)
            context = seeded_input(f"context.{step}", (BATCH, 5, 24)).requires_grad_()
            loss, logs = model.p_losses(z, context, t, noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
            if variant == "step":
                tensors |= digests(unet) | {"gradient.context": digest("context", context.grad)}
        tensors[f"{variant}.losses"] = torch.tensor(history)
        print("ldm", history[0], history[-1])
    save_fixture("train_ldm", tensors, config=config, objective=objective, shapes=shapes)


COMMON = dict(disc_num_layers=2, disc_weight=0.8)


def kl():
    train_first_stage("kl", LPIPSWithDiscriminator, {
        "hinge": dict(COMMON, disc_start=0, logvar_init=0.2, kl_weight=0.3, perceptual_weight=0.7),
        "vanilla": dict(COMMON, disc_start=0, disc_loss="vanilla", disc_factor=0.6, kl_weight=1e-6),
        "before": dict(COMMON, disc_start=1, kl_weight=1e-6),
        "run": dict(COMMON, disc_start=5, kl_weight=1e-3, perceptual_weight=0.0),
    })


def vq():
    train_first_stage("vq", vqperceptual.VQLPIPSWithDiscriminator, {
        "hinge": dict(COMMON, disc_start=0, disc_ndf=32),
        "l2": dict(COMMON, disc_start=0, disc_ndf=32, pixel_loss="l2", disc_loss="vanilla", codebook_weight=0.5),
        "run": dict(COMMON, disc_start=5, disc_ndf=32, perceptual_weight=0.0),
    })


PARTS = {"lpips": lpips_fixture, "ldm": second_stage, "kl": kl, "vq": vq}
for part in sys.argv[1:] or PARTS:
    torch.randn = drawn_randn if part in ("kl", "vq") else randn
    PARTS[part]()
