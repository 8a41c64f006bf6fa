"""CLIP scores of torchmetrics with a tiny CLIPModel of transformers -> tests/fixtures/clip_score.safetensors."""
import tempfile
from pathlib import Path

import numpy as np
import torch
from torchmetrics.functional.multimodal.clip_score import _clip_score_update
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTextConfig, CLIPVisionConfig

import tiny
from seeded import save_fixture, seed_module

torch.set_grad_enabled(False)
SIZES = [(32, 32), (32, 32), (48, 40), (32, 64)]
TEXTS = ["a red square", "nothing at all", "three boats on a lake", "the moon"]


def picture(i: int, width: int, height: int) -> np.ndarray:
    """As the test draws it, [h, w, 3] u8."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(x * 5 + 40 * i) % 256, (y * 3 + x) % 256, np.where(x > y, 200, 30)], -1).astype(np.uint8)


def main():
    text = CLIPTextConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    vision = CLIPVisionConfig(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                              image_size=32, patch_size=8)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24)).eval()
    shapes = seed_module(model)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = CLIPProcessor(image_processor=images, tokenizer=tiny.tokenizer("<|endoftext|>"))
    pictures = [torch.from_numpy(picture(i, *size)).permute(2, 0, 1) for i, size in enumerate(SIZES)]
    # Newer transformers give an output object where torchmetrics wants its pooled vectors.
    class Plain:
        config = model.config
        to = lambda self, _: self
        get_image_features = lambda self, x: getattr(model.get_image_features(x), "pooler_output", None)
        get_text_features = lambda self, i, m: getattr(model.get_text_features(i, m), "pooler_output", None)

    scores, _ = _clip_score_update(pictures, TEXTS, Plain(), processor)
    print(scores)
    folder = Path(tempfile.mkdtemp())
    model.save_pretrained(folder)
    config = __import__("json").loads((folder / "config.json").read_text())
    save_fixture("clip_score", {"none": torch.zeros(1)}, config=config, shapes=shapes, sizes=SIZES, texts=TEXTS,
                 scores=scores.tolist())


if __name__ == "__main__":
    main()
