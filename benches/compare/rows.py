"""What is compared with what, and how good we mean to be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Absolute:
    """A goal for our own time, in seconds."""

    seconds: float


@dataclass(frozen=True)
class Row:
    name: str
    where: str  # the side of compare.sh: cpu or gpu
    what: str
    ours: str  # arguments of ../turns.rs
    by: str  # whose the other side is: torch (torch_side.py), candle (../candle), or ours once more
    theirs: str  # its arguments
    goal: object = None  # the largest ratio of ours to theirs, an Absolute, or none
    unit: str = "s"
    warm_up: int = 1  # runs that are not counted
    start: str = None  # the first run of a fresh process is counted, on a "cold" or a "warm" cache
    features: str = ""  # Cargo features of our build beside the defaults

    def goal_text(self):
        if self.goal is None:
            return ""
        return f"{self.goal.seconds:g} s" if isinstance(self.goal, Absolute) else str(self.goal)


def cpu(name, what, ours, goal, by="torch", theirs=None, **rest):
    """f32 on the CPU; their arguments are ours unless given."""
    return Row(name, "cpu", what, f"{ours} --device flex --dtype f32", by, theirs or ours, goal, **rest)


# One program for all rows on CUDA, without `fusion`, which costs the host more than it saves the device here; only first pictures
# have a folder of caches to persist in.
CUDA = "cuda,autotune,gpu-kernels,burn/persistence"


def gpu(name, what, ours, goal, dtype="f16", device="cuda", by="torch", theirs=None, **rest):
    rest = {"features": CUDA, "warm_up": 3, **rest}
    theirs = theirs or f"{ours} --device cuda --dtype {dtype}"
    return Row(name, "gpu", what, f"{ours} --device {device} --dtype {dtype}", by, theirs, goal, **rest)


PICTURE = "text_to_image --side 64 --steps 50"
REPLAYED = f"{PICTURE} --replay"
PICTURE_TEXT = "SD 1.5, 512 px, 50 DDIM steps, guidance 7.5, f16"
FIRST = {"start": "cold"}

ROWS = [
    cpu("unet_512", "SD 1.5's U-Net, 512 px, f32", "unet --side 64", 1.0),
    cpu("unet_256", "the same at 256 px", "unet --side 32", 1.5),
    cpu("vae_decode_512", "VAE decode, 512 px, f32", "vae_decode --side 64", 0.5),
    cpu("vae_decode_256", "the same at 256 px", "vae_decode --side 32", 1.0),
    cpu("unet_512_candle", "the U-Net against candle", "unet --side 64", 0.35, "candle", "unet 64"),
    cpu("vae_decode_512_candle", "VAE decode against candle", "vae_decode --side 64", 0.15, "candle", "vae_decode 64"),
    cpu("unet_256_candle", "the U-Net at 256 px against candle", "unet --side 32", None, "candle", "unet 32"),
    cpu("vae_decode_256_candle", "VAE decode at 256 px against candle", "vae_decode --side 32", None, "candle",
        "vae_decode 32"),
    cpu("train_small", "loss and gradients of a small U-Net, 16x16 latents, batch 32", "train_small", 1.0),
    cpu("memory_512_mib", "peak resident memory, U-Net and VAE, 512 px", "unet_and_vae --side 64 --measure resident", None,
        unit="MiB"),
    gpu("text_to_image", PICTURE_TEXT, REPLAYED, 0.5, theirs=f"{PICTURE} --device cuda --dtype f16"),
    gpu("text_to_image_launched", "the first row, every step launched anew", PICTURE, None),
    gpu("text_to_image_portable", "replayed, without kernels in one vendor's instructions", f"{REPLAYED} --kernels portable",
        None, theirs=f"{PICTURE} --device cuda --dtype f16"),
    gpu("text_to_image_burns_kernels", "launched, with burn's own kernels", f"{PICTURE} --kernels burns", None,
        theirs=f"{PICTURE} --device cuda --dtype f16"),
    gpu("text_to_image_compiled", "the first row against torch.compile, reduce-overhead", REPLAYED, 1.0,
        theirs=f"{PICTURE} --device cuda --dtype f16 --compile"),
    gpu("text_to_image_batch8", "the first row, batch 8, against channels-last", f"{REPLAYED} --batch 8", 1.0,
        theirs=f"{PICTURE} --batch 8 --device cuda --dtype f16 --channels-last"),
    gpu("sdxl_1024", "SDXL base, 1024 px, 30 DDIM steps, guidance 5, f16", "sdxl --side 128 --steps 30 --replay", 1.0,
        theirs="sdxl --side 128 --steps 30 --device cuda --dtype f16"),
    gpu("vae_decode_512_f16", "VAE decode, 512 px, f16", "vae_decode --side 64", 0.5),
    gpu("vae_decode_1024_f16", "VAE decode, 1024 px, f16", "vae_decode --side 128", 0.5),
    gpu("train_sd1", "training step, SD 1.5's U-Net, 64x64 latents, batch 8, bf16", "train_sd1 --side 64 --batch 8",
        1.0, dtype="bf16"),
    gpu("train_emoji", "training step, the emoji's U-Net, batch 128, bf16", "train_emoji --side 16 --batch 128",
        1.0, dtype="bf16"),
    gpu("train_66m", "training step, a U-Net of 66 million, 16x16 latents, batch 128, bf16",
        "train_66m --side 16 --batch 128", 1.0, dtype="bf16"),
    gpu("memory_text_to_image_mib", "peak device memory of the first row", f"{REPLAYED} --measure device", 0.95,
        theirs=f"{PICTURE} --measure device --device cuda --dtype f16", unit="MiB"),
    gpu("first_picture_cold", "the first picture on a fresh cache", PICTURE, Absolute(60),
        theirs=f"{PICTURE} --device cuda --dtype f16 --compile", **FIRST),
    gpu("first_picture_warm", "the first picture on a warm cache", PICTURE, Absolute(5),
        theirs=f"{PICTURE} --device cuda --dtype f16 --compile", **{**FIRST, "start": "warm"}),
    gpu("text_to_image_vulkan", "the first row on Vulkan against our CUDA", REPLAYED, 1.5, device="vulkan", by="ours",
        theirs=f"{REPLAYED} --device cuda --dtype f16", features=f"{CUDA},vulkan"),
]
