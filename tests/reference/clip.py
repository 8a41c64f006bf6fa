"""CLIP text encoders of reduced width: transformers' CLIPTextModel(WithProjection) and OpenCLIP's text tower."""
import importlib
import sys
import types
from importlib.util import find_spec

import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from seeded import save_fixture, seed_module

torch.set_num_threads(1)

VOCABULARY = 300


def draw_ids(seed: int, batch: int, length: int, end: int) -> torch.Tensor:
    """Row 0 ends early and is padded with the end, row 1 ends late, row 2 ends at the last position."""
    ids = np.random.default_rng(seed).integers(3, end - 1, size=(batch, length))
    ids[0, length // 3:] = end
    ids[1, length - 2] = end
    ids[2, -1] = end
    return torch.from_numpy(ids)


def transformers_fixture(name: str, model_class, length: int, ids=None, **fields) -> None:
    config = CLIPTextConfig(vocab_size=VOCABULARY, max_position_embeddings=77, bos_token_id=0, pad_token_id=1, **fields)
    model = model_class(config).eval()
    shapes = seed_module(model)
    if ids is None:
        ids = draw_ids(7, 3, length, VOCABULARY - 1)
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
        text_model = getattr(model, "text_model", model)
        pooled = text_model(ids).pooler_output
        skip_2 = text_model.final_layer_norm(out.hidden_states[-3])
    tensors = {
        "input_ids": ids,
        "last_hidden_state": out.last_hidden_state,
        "penultimate": out.hidden_states[-2],
        "skip_2_normed": skip_2,
        "pooler_output": pooled,
    }
    if "text_embeds" in out:
        tensors["text_embeds"] = out.text_embeds
    written = {**config.to_dict(), "architectures": [model_class.__name__]}
    save_fixture(name, tensors, config=written, shapes=shapes)


def open_clip_transformer():
    """open_clip.transformer alone: the package's own imports want torchvision, which the text tower does not use."""
    package = types.ModuleType("open_clip")
    package.__path__ = list(find_spec("open_clip").submodule_search_locations)
    sys.modules["open_clip"] = package
    for stub in ("torchvision", "torchvision.ops", "torchvision.ops.misc"):
        sys.modules[stub] = types.ModuleType(stub)
    sys.modules["torchvision.ops.misc"].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (torch.nn.Module,), {})
    return importlib.import_module("open_clip.transformer")


def open_clip_fixture() -> None:
    width, heads, layers, projection = 48, 3, 4, 32
    tower = open_clip_transformer().TextTransformer(
        context_length=77, vocab_size=VOCABULARY, width=width, heads=heads, layers=layers, output_dim=projection
    ).eval()
    shapes = seed_module(tower)
    ids = draw_ids(11, 3, 77, VOCABULARY - 1)
    with torch.no_grad():
        text_embeds = tower(ids)
        # FrozenOpenCLIPEmbedder of Stable Diffusion 2: `layer: penultimate`, then ln_final.
        x = tower.token_embedding(ids) + tower.positional_embedding
        for block in tower.transformer.resblocks[:-1]:
            x = block(x, attn_mask=tower.attn_mask)
        penultimate, normed = x, tower.ln_final(x)
    config = dict(
        architectures=["CLIPTextModelWithProjection"], vocab_size=VOCABULARY, hidden_size=width,
        intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads, hidden_act="gelu",
        projection_dim=projection, max_position_embeddings=77, eos_token_id=2,
    )
    tensors = {"input_ids": ids, "penultimate": penultimate, "penultimate_normed": normed, "text_embeds": text_embeds}
    save_fixture("clip_open_clip", tensors, config=config, shapes=shapes)


if __name__ == "__main__":
    transformers_fixture(
        "clip_sd1", CLIPTextModel, 77, hidden_size=64, intermediate_size=256, num_hidden_layers=3,
        num_attention_heads=4, hidden_act="quick_gelu", eos_token_id=2,
    )
    # The end of text as it should have been from the start; one row has none, one has a larger id before it.
    end = 250
    ids = draw_ids(13, 3, 31, end)
    ids[1, 29] = 9
    ids[2, 4] = 299
    transformers_fixture(
        "clip_sd2", CLIPTextModel, 31, ids, hidden_size=48, intermediate_size=192, num_hidden_layers=3,
        num_attention_heads=3, hidden_act="gelu", eos_token_id=end,
    )
    transformers_fixture(
        "clip_sdxl", CLIPTextModelWithProjection, 77, hidden_size=40, intermediate_size=160,
        num_hidden_layers=4, num_attention_heads=5, hidden_act="gelu", projection_dim=24, eos_token_id=2,
    )
    open_clip_fixture()
