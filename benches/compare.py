"""Our networks and diffusers' on the CPU, in turn, so that both meet the same machine.

    cargo build --release -p ldm --bench turns
    python benches/compare.py --python PYTHON

PYTHON has torch and diffusers. Prints, tab-separated: name, our median seconds, theirs, ratio, goal.
The ratio is the median of the ratios of neighbouring runs.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

GOALS = {"unet": 1.5, "vae_decode": 1.0, "train": 1.0}


def reference(name):
    """A function that runs diffusers' network of this name once."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(0)
    if name == "train":
        torch.set_num_threads(int(os.environ["THREADS"]))
        small = UNet2DConditionModel(
            sample_size=16,
            layers_per_block=1,
            block_out_channels=(96, 192, 288),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=128,
            attention_head_dim=4,
        ).train()
        z, context = torch.randn(32, 4, 16, 16), torch.randn(32, 16, 128)

        def step():
            small.zero_grad()
            torch.nn.functional.mse_loss(small(z, 500, context).sample, z).backward()

        return step
    torch.set_grad_enabled(False)
    torch.set_num_threads(int(os.environ["THREADS"]))
    x = torch.randn(1, 4, 32, 32)
    if name == "unet":
        cross = ("CrossAttnDownBlock2D",) * 3
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            down_block_types=(*cross, "DownBlock2D"),
            up_block_types=("UpBlock2D", *(("CrossAttnUpBlock2D",) * 3)),
            cross_attention_dim=768,
            attention_head_dim=8,
        ).eval()
        context = torch.randn(1, 77, 768)
        return lambda: unet(x, 500, context).sample
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
    ).eval()
    return lambda: vae.decode(x).sample


def serve(name):
    """The reference's side of the protocol that turns.rs speaks."""
    run = reference(name)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


class Side:
    """A process that runs one pass whenever it is asked."""

    def __init__(self, command, threads):
        env = {**os.environ, "THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)
        if self.process.stdout.readline().strip() != "ready":
            sys.exit(f"{command[0]} did not start")

    def run(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ours():
    """The newest build of turns.rs."""
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    built = [p for p in (target / "release/deps").glob("turns-*") if p.suffix in ("", ".exe")]
    if not built:
        sys.exit("build it first: cargo build --release -p ldm --bench turns")
    return str(max(built, key=lambda p: p.stat().st_mtime))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch and diffusers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--serve", choices=[*GOALS], help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", choices=[*GOALS, []], help="default: all")
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve)
    print("name\tours_s\ttheirs_s\tratio\tgoal")
    for name in args.names or GOALS:
        sides = [Side([ours(), name], args.threads), Side([args.python, __file__, "--serve", name], args.threads)]
        times = []
        for turn in range(args.runs + 1):
            # The first turn warms up. A pause lets the other side's spinning threads go to sleep.
            pair = [(time.sleep(0.3), side.run())[1] for side in sides]
            if turn:
                times.append(pair)
        for side in sides:
            side.close()
        mine, theirs = (statistics.median(column) for column in zip(*times))
        ratio = statistics.median(a / b for a, b in times)
        print(f"{name}\t{mine:.3f}\t{theirs:.3f}\t{ratio:.2f}\t{GOALS[name]}", flush=True)


if __name__ == "__main__":
    main()
