"""PyTorch's side of compare.sh: diffusers' networks with random weights, under the protocol of ../turns.rs.

    torch_side.py WORKLOAD [--side N] [--batch N] [--steps N] [--device cpu|cuda] [--dtype f32|f16|bf16]
               [--measure seconds|resident|device] [--compile] [--channels-last]
"""

import argparse
import os
import resource
import sys
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


def sd1():
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        down_block_types=(CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
        up_block_types=("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP),
        cross_attention_dim=768,
        attention_head_dim=8,
    )


def sdxl_unet():
    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", CROSS_DOWN, CROSS_DOWN),
        up_block_types=(CROSS_UP, CROSS_UP, "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[5, 10, 20],
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def small_unet():
    return UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(96, 192, 288),
        down_block_types=("DownBlock2D", CROSS_DOWN, CROSS_DOWN),
        up_block_types=(CROSS_UP, CROSS_UP, "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,
    )


def emoji_unet():
    """configs/emoji_diffusion.yaml: heads 32 wide."""
    return UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(64, 64),
        down_block_types=("DownBlock2D", CROSS_DOWN),
        up_block_types=(CROSS_UP, "UpBlock2D"),
        transformer_layers_per_block=2,
        cross_attention_dim=128,
        attention_head_dim=2,
    )


def unet_of_66m():
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(128, 256, 384),
        down_block_types=(CROSS_DOWN,) * 3,
        up_block_types=(CROSS_UP,) * 3,
        cross_attention_dim=256,
        attention_head_dim=8,
    )


def stable_diffusion_vae():
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )


class Workloads:
    """Each method makes a workload and gives the function that runs it once."""

    def __init__(self, args):
        self.args = args
        self.dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[args.dtype]

    def randn(self, *shape, dtype=None):
        return torch.randn(*shape, device=self.args.device, dtype=dtype or self.dtype)

    def placed(self, network, dtype=None):
        network = network.to(self.args.device, dtype or self.dtype).eval()
        return network.to(memory_format=torch.channels_last) if self.args.channels_last else network

    def latents(self):
        return self.randn(self.args.batch, 4, self.args.side, self.args.side)

    def unet(self):
        unet, x, context = self.placed(sd1()), self.latents(), self.randn(self.args.batch, 77, 768)
        return lambda: unet(x, 500, context).sample

    def vae_decode(self):
        vae, z = self.placed(stable_diffusion_vae()), self.latents()
        return lambda: vae.decode(z).sample

    def unet_and_vae(self):
        unet, decode = self.unet(), self.vae_decode()
        return lambda: (unet(), decode())

    def text_to_image(self):
        context = self.randn(2 * self.args.batch, 77, 768)
        return self.pictures(self.placed(sd1()), self.placed(stable_diffusion_vae()), context, 7.5, 0.18215, {})

    def sdxl(self):
        n = 2 * self.args.batch
        added = {"text_embeds": self.randn(n, 1280), "time_ids": torch.ones(n, 6, device=self.args.device).to(self.dtype)}
        # Its VAE overflows f16: diffusers' pipeline decodes in f32.
        vae = self.placed(stable_diffusion_vae(), torch.float32)
        return self.pictures(self.placed(sdxl_unet()), vae, self.randn(n, 77, 2048), 5.0, 0.13025, added)

    def pictures(self, unet, vae, context, guidance, scaling, added):
        args, start = self.args, self.latents()
        schedule = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )
        predict = torch.compile(unet, mode="reduce-overhead", fullgraph=True) if args.compile else unet
        given = {"added_cond_kwargs": added} if added else {}

        def draw():
            schedule.set_timesteps(args.steps)
            z = start
            for t in schedule.timesteps:
                if args.compile:
                    torch.compiler.cudagraph_mark_step_begin()
                    t = t.to(args.device)
                output = predict(torch.cat([z, z]), t, context, **given).sample
                free, told = (output.clone() if args.compile else output).chunk(2)
                z = schedule.step(free + guidance * (told - free), t, z).prev_sample
            return vae.decode((z / scaling).to(vae.dtype)).sample

        return draw

    def train_small(self):
        unet = small_unet().to(self.args.device).train()
        z, context = self.randn(32, 4, 16, 16), self.randn(32, 16, 128)

        def step():
            unet.zero_grad()
            F.mse_loss(unet(z, 500, context).sample, z).backward()

        return step

    def train_sd1(self):
        return self.training(sd1(), 77, 768)

    def train_emoji(self):
        return self.training(emoji_unet(), 24, 128)

    def train_66m(self):
        return self.training(unet_of_66m(), 77, 256)

    def training(self, unet, tokens, width):
        args, f32 = self.args, torch.float32
        unet = unet.to(args.device).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5, fused=True)
        z, noise = (self.randn(args.batch, 4, args.side, args.side, dtype=f32) for _ in range(2))
        context = self.randn(args.batch, tokens, width, dtype=f32)
        t = torch.randint(0, 1000, (args.batch,), device=args.device)

        def step():
            with torch.autocast(args.device, self.dtype, enabled=self.dtype != f32):
                loss = F.mse_loss(unet(z, t, context).sample.float(), noise)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workload")
    for name, default in [("side", 64), ("batch", 1), ("steps", 50)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--measure", default="seconds")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()
    cuda = args.device == "cuda"
    if cuda and not torch.cuda.is_available():
        return print("skip this PyTorch finds no GPU", flush=True)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(int(os.environ.get("THREADS", torch.get_num_threads())))
    torch.set_grad_enabled(args.workload.startswith("train"))
    run = getattr(Workloads(args), args.workload)()

    def wait():
        if cuda:
            torch.cuda.synchronize()

    wait()
    print("ready", flush=True)
    for _ in sys.stdin:
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        run()
        wait()
        seconds = time.perf_counter() - start
        if args.measure == "resident":
            # KiB on Linux.
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, flush=True)
        elif args.measure == "device":
            print(torch.cuda.max_memory_allocated() / 2**20, flush=True)
        else:
            print(seconds, flush=True)


if __name__ == "__main__":
    main()
