"""One training step of each conditioning mechanism with the original code: loss, and the gradient of every parameter of
U-Net and tau_theta (its norm, and its product with a vector drawn from the parameter's name; a few whole)."""
import sys
import types

import torch

import originals  # noqa: F401  (before ldm and taming)

names = ["clip", "kornia", "pytorch_lightning.utilities", "pytorch_lightning.utilities.distributed"]
sys.modules |= {name: types.ModuleType(name) for name in names}
sys.modules["pytorch_lightning.utilities.distributed"].rank_zero_only = lambda f: f

from ldm.models.diffusion.ddpm import DiffusionWrapper, LatentDiffusion  # noqa: E402
from ldm.modules.encoders.modules import BERTEmbedder, ClassEmbedder, SpatialRescaler  # noqa: E402

from seeded import save_fixture, seed_module, seeded_input, uniform  # noqa: E402

torch.set_num_threads(1)

UNET = dict(image_size=8, in_channels=3, model_channels=32, out_channels=3, num_res_blocks=1, attention_resolutions=[2],
            channel_mult=[1, 2], num_head_channels=16)
CROSS = dict(UNET, use_spatial_transformer=True)
TIMESTEPS = torch.tensor([20, 730])
PREFIX, TAU = "model.diffusion_model.", "cond_stage_model."


class Original(LatentDiffusion):
    """What p_losses reads, and nothing of the rest."""

    def __init__(self, key, unet):
        torch.nn.Module.__init__(self)
        target = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
        self.model = DiffusionWrapper(dict(target=target, params=unet), key)
        self.parameterization, self.loss_type, self.v_posterior = "eps", "l2", 0.0
        self.l_simple_weight, self.original_elbo_weight, self.learn_logvar = 1.0, 0.0, False
        self.num_timesteps_cond, self.device = 1, torch.device("cpu")
        self.register_schedule(linear_start=0.0015, linear_end=0.0195)
        self.logvar = torch.zeros(1000)


def mechanisms():
    tokens = torch.tensor([[3, 17, 2, 2, 9], [0, 1, 19, 4, 4]])
    labels = torch.tensor([5, 2])
    map_ = seeded_input("mechanisms.map", [2, 5, 16, 16])
    latent = seeded_input("mechanisms.concat", [2, 2, 8, 8])
    rescaler = dict(n_stages=1, in_channels=5, out_channels=2, bias=True)
    bert = dict(n_embed=16, n_layer=2, vocab_size=20, max_seq_len=5, use_tokenizer=False)
    classes = dict(embed_dim=12, n_classes=6)
    yield "none", None, UNET, None, {}, lambda tau: None
    yield ("concat", "concat", dict(UNET, in_channels=5), SpatialRescaler, rescaler,
           lambda tau: dict(c_concat=[tau(map_)]))
    yield ("crossattn", "crossattn", dict(CROSS, context_dim=16), BERTEmbedder, bert,
           lambda tau: dict(c_crossattn=[tau(tokens)]))
    yield ("hybrid", "hybrid", dict(CROSS, in_channels=5, context_dim=12), ClassEmbedder, classes,
           lambda tau: dict(c_concat=[latent], c_crossattn=[tau({"class": labels})]))
    yield ("adm", "adm", dict(UNET, num_classes=6), None, {}, lambda tau: dict(c_crossattn=[labels]))


def main() -> None:
    z, noise = seeded_input("mechanisms.z", [2, 3, 8, 8]), seeded_input("mechanisms.noise", [2, 3, 8, 8])
    tensors, cases = {}, {}
    for name, key, unet, encoder, config, condition in mechanisms():
        model = Original(key, unet)
        shapes = seed_module(model.model.diffusion_model, PREFIX)
        named = {PREFIX + k: v for k, v in model.model.diffusion_model.named_parameters()}
        tau = None
        if encoder is not None:
            device = dict(device="cpu") if encoder is BERTEmbedder else {}
            tau = encoder(**config, **device)
            shapes |= seed_module(tau, TAU)
            named |= {TAU + k: v for k, v in tau.named_parameters()}
        loss, _ = model.p_losses(z, condition(tau), TIMESTEPS, noise=noise)
        loss.backward()
        named = {k: v for k, v in sorted(named.items()) if "to_logits" not in k}
        summary = []
        for k, v in named.items():
            g = v.grad.double().flatten()
            u = torch.from_numpy(uniform(f"{k}.gradient", g.numel())).double()
            summary.append([g.norm().item(), (g @ u).item()])
        tensors[f"{name}.loss"] = loss.reshape(1)
        tensors[f"{name}.summary"] = torch.tensor(summary, dtype=torch.float32)
        whole = [k for k in named if k.endswith(("input_blocks.0.0.weight", "out.2.bias", "norm.weight")) or TAU in k]
        for k in [k for k in whole if named[k].numel() <= 900][:8]:
            tensors[f"{name}.{k}"] = named[k].grad
        cases[name] = dict(unet=unet, tau=config, shapes={k: v for k, v in shapes.items() if "to_logits" not in k})
    save_fixture("mechanisms", tensors, cases=cases)


if __name__ == "__main__":
    main()
