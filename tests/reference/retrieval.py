"""Retrieval databases as numpy writes them, and the neighbours that a full search in numpy finds.

Writes retrieval.safetensors and the folder retrieval/. Needs numpy alone.
"""
import numpy as np
import torch

from seeded import FIXTURES, save_fixture, uniform

FOLDER = FIXTURES / "retrieval"
(FOLDER / "parts").mkdir(parents=True, exist_ok=True)
(FOLDER / "widths").mkdir(exist_ok=True)


def draw(name, *shape):
    return uniform(name, int(np.prod(shape))).reshape(shape)


def part(path, embedding, ids, coords, save=np.savez_compressed):
    save(FOLDER / path, embedding=embedding, img_id=ids, patch_coords=coords)


def coords(n, dtype=np.int64):
    corner = np.arange(2 * n).reshape(n, 2) * 3
    return np.concatenate([corner, corner + 256], 1).astype(dtype)


# What the builders save, and what else numpy may make of it: float16, strings, Fortran order, no compression.
embeddings = [draw("part.0", 40, 12), draw("part.1", 20, 12).astype(np.float16), draw("part.2", 10, 12).astype(np.float64)]
ids = [np.arange(40) // 2 + 100, np.array([f"picture-{i}" for i in range(20)]), np.arange(10).astype(np.uint8)]
boxes = [coords(40), coords(20, np.int32), coords(10)]
part("parts/part_0.npz", embeddings[0], ids[0], boxes[0])
part("parts/part_1.npz", np.asfortranarray(embeddings[1]), ids[1], boxes[1], np.savez)
part("parts/part_2.npz", embeddings[2], ids[2], np.asfortranarray(boxes[2]))

part("widths/part_0.npz", draw("w", 4, 12), np.arange(4), coords(4))
part("widths/part_1.npz", draw("w", 4, 8), np.arange(4), coords(4))
np.savez(FOLDER / "missing.npz", embedding=draw("w", 4, 12))
part("rows.npz", draw("w", 5, 12), np.arange(4), coords(5))
part("coords.npz", draw("w", 4, 12), np.arange(4), coords(4)[:, :3])
part("complex.npz", draw("w", 4, 12).astype(np.complex64), np.arange(4), coords(4))
part("pickle.npz", draw("w", 4, 12), np.array([1, "two", None, 4.0], dtype=object), coords(4))
nan = draw("w", 4, 12).copy()
nan[2, 5] = np.nan
part("nan.npz", nan, np.arange(4), coords(4))

database = np.concatenate([e.astype(np.float32) for e in embeddings])
queries = draw("queries", 5, 12)


def unit(x):
    return x / np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True)


outputs = dict(queries=queries, embedding=database)
for name, scores in dict(cosine=unit(queries) @ unit(database).T, dot=queries.astype(np.float64) @ database.T).items():
    indices = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    outputs[f"{name}.indices"] = indices
    outputs[f"{name}.scores"] = np.take_along_axis(scores, indices, 1).astype(np.float32)
outputs["context"] = unit(database[outputs["cosine.indices"]]).astype(np.float32)
save_fixture("retrieval", {k: torch.from_numpy(v) for k, v in outputs.items()},
             img_id=[str(i) for each in ids for i in each.tolist()],
             patch_coords=np.concatenate(boxes).tolist())
