"""EncoderUNetModel: logits of noisy latents, and the gradient that guides a sampler."""
import torch

import originals  # noqa: F401  (before ldm)
from seeded import save_fixture, seed_module, seeded_input
from ldm.modules.diffusionmodules.openaimodel import EncoderUNetModel

torch.set_num_threads(1)

BASE = dict(image_size=16, in_channels=3, model_channels=32, out_channels=10, num_res_blocks=1,
            attention_resolutions=[2], channel_mult=[1, 2])
CASES = {
    "adaptive": dict(BASE, num_head_channels=16, pool="adaptive"),
    "attention": dict(BASE, num_head_channels=32, pool="attention", resblock_updown=True, use_scale_shift_norm=True,
                      use_new_attention_order=True),
    "spatial": dict(BASE, num_heads=4, pool="spatial", channel_mult=[1, 2, 2], num_res_blocks=2),
    "spatial_v2": dict(BASE, pool="spatial_v2", conv_resample=False),
}


def main() -> None:
    tensors, described = {}, {}
    for name, config in CASES.items():
        model = EncoderUNetModel(**config).eval()
        shapes = seed_module(model)
        x = seeded_input(f"encoder_unet.{name}.x", [2, 3, 16, 16]).requires_grad_(True)
        timesteps, labels = torch.tensor([3, 870]), torch.tensor([9, 4])
        logits = model(x, timesteps)
        selected = torch.log_softmax(logits, dim=-1)[range(2), labels]
        gradient = torch.autograd.grad(selected.sum(), x)[0]
        tensors |= {f"{name}.logits": logits, f"{name}.gradient": gradient}
        described[name] = dict(config=config, shapes=shapes)
    save_fixture("encoder_unet", tensors, cases=described)


if __name__ == "__main__":
    main()
