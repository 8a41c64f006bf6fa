"""20 steps of torch.optim.AdamW and Adam with clip_grad_norm_ and accumulation, on gradients drawn by name."""
import torch

from seeded import save_fixture, seeded_input, seeded_weight

torch.set_num_threads(1)
SHAPES = {"weight": (5, 3), "bias": (5,)}
CASES = {
    "adamw": dict(cls=torch.optim.AdamW, lr=1e-2, clip=1.0, accumulate=2),
    "adamw_no_clip": dict(cls=torch.optim.AdamW, lr=1e-2, clip=None, accumulate=1),
    "adam": dict(cls=torch.optim.Adam, lr=1e-2, betas=(0.5, 0.9), clip=None, accumulate=1),
}
tensors = {}
for case, options in CASES.items():
    options = dict(options)
    cls, clip, accumulate = options.pop("cls"), options.pop("clip"), options.pop("accumulate")
    params = {name: seeded_weight(name, shape).requires_grad_() for name, shape in SHAPES.items()}
    optimizer = cls(params.values(), **options)
    norms = []
    for step in range(20):
        optimizer.zero_grad()
        for k in range(accumulate):
            loss = sum((p * seeded_input(f"{n}.{step}.{k}", p.shape)).sum() for n, p in params.items())
            (loss / accumulate).backward()
        norm = torch.nn.utils.clip_grad_norm_(params.values(), clip if clip else float("inf"))
        norms.append(norm.reshape(1))
        optimizer.step()
    tensors |= {f"{case}.{name}": p.detach() for name, p in params.items()}
    tensors[f"{case}.norms"] = torch.cat(norms)
save_fixture("optimizer", tensors)
