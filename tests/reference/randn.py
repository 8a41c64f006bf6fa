"""torch.randn on the CPU: what TorchRng must draw. The AVX2 path; torch's scalar path differs by 2e-6."""
import torch
from diffusers.utils.torch_utils import randn_tensor

from seeded import save_fixture

torch.set_num_threads(1)
assert "AVX2" in torch.backends.cpu.get_cpu_capability() or "AVX512" in torch.backends.cpu.get_cpu_capability()

SMALL = list(range(1, 41)) + [100, 1000]
LARGE, STRIDE = [65536, 65537, 65551], 331
SEQUENCE = [3, 16, 1, 5, 33, 2, 15, 17, 7, 64, 1]
SEEDS = [0, 42, 2**32 + 5, 2**63 - 1]


def generator(seed):
    return torch.Generator("cpu").manual_seed(seed)


tensors = {f"small.{n}": torch.randn(n, generator=generator(n)) for n in SMALL}
for n in LARGE:
    draw = torch.randn(n, generator=generator(7))
    tensors[f"large.{n}"] = torch.cat([draw[::STRIDE], draw[-20:]])
for seed in SEEDS:
    g = generator(seed)
    tensors[f"sequence.{seed}"] = torch.cat([torch.randn(n, generator=g) for n in SEQUENCE])
for name, dtype in {"f16": torch.float16, "bf16": torch.bfloat16}.items():
    g = generator(3)
    tensors[name] = torch.cat([torch.randn(n, generator=g, dtype=dtype) for n in [5, 24, 40]]).float()
tensors["list"] = randn_tensor((3, 4, 5), generator=[generator(1), generator(2), generator(3)])

save_fixture("randn", tensors, small=SMALL, large=LARGE, stride=STRIDE, sequence=SEQUENCE, seeds=[str(s) for s in SEEDS])
