"""The paper's 14 diffusion models at full depth and reduced width, and its tasks sampled: the original code on the CPU.

LATENT_DIFFUSION and TAMING_TRANSFORMERS are check-outs; the configs are read from the former.
"""
import importlib.util
import os
import sys
import types

import numpy as np
import torch

import tiny  # before the stubs: diffusers looks for what they stand for
import originals  # noqa: F401
from seeded import save_fixture, seed_module, seeded_input, seeded_weight, uniform

torch.set_num_threads(1)
torch.set_grad_enabled(False)


class Lightning(torch.nn.Module):
    device = torch.device("cpu")


def stub(name, **attributes):
    module = sys.modules.setdefault(name, types.ModuleType(name))
    for key, value in attributes.items():
        setattr(module, key, value)


stub("pytorch_lightning", LightningModule=Lightning)
stub("pytorch_lightning.utilities")
stub("pytorch_lightning.utilities.distributed", rank_zero_only=lambda f: f)
stub("clip")
stub("scann")
stub("kornia")
stub("more_itertools")
stub("more_itertools.recipes", grouper=None)

import torchvision.transforms.functional as pictures  # noqa: E402
import transformers  # noqa: E402
import yaml  # noqa: E402

pictures._get_image_size = None  # what taming's pictures, not its layouts, once found there
from ldm.models.diffusion.ddim import DDIMSampler  # noqa: E402
from ldm.models.diffusion.plms import PLMSSampler  # noqa: E402
from ldm.modules.diffusionmodules.openaimodel import EncoderUNetModel  # noqa: E402
from ldm.util import instantiate_from_config  # noqa: E402
from taming.data.conditional_builder.objects_bbox import ObjectsBoundingBoxConditionalBuilder  # noqa: E402

VOCABULARY = "../../crates/ldm-conditioning/assets/bert_base_uncased_vocab.txt"


class Tokenizer:
    """BertTokenizerFast from a vocabulary at hand instead of the hub's."""

    @classmethod
    def from_pretrained(cls, _):
        words = [line.rstrip("\n") for line in open(VOCABULARY, encoding="utf-8")]
        from tokenizers import BertWordPieceTokenizer

        fast = BertWordPieceTokenizer({word: i for i, word in enumerate(words)}, lowercase=True)
        return lambda text, max_length, **_: {"input_ids": cls.ids(fast, text, max_length)}

    @staticmethod
    def ids(fast, text, length):
        fast.enable_truncation(length)
        fast.enable_padding(length=length)
        return torch.tensor([e.ids for e in fast.encode_batch(list(text))])


transformers.BertTokenizerFast = Tokenizer

LDM, CONFIGS = "models/ldm/{}/config.yaml", "configs/{}.yaml"
MODELS = {
    "celebahq256": LDM.format("celeba256"),
    "ffhq256": LDM.format("ffhq256"),
    "lsun_churches256": LDM.format("lsun_churches256"),
    "lsun_beds256": LDM.format("lsun_beds256"),
    "cin256": LDM.format("cin256"),
    "cin256-v2": CONFIGS.format("latent-diffusion/cin256-v2"),
    "text2img256": LDM.format("text2img256"),
    "txt2img-1p4B": CONFIGS.format("latent-diffusion/txt2img-1p4B-eval"),
    "layout2img-openimages256": LDM.format("layout2img-openimages256"),
    "semantic_synthesis256": LDM.format("semantic_synthesis256"),
    "semantic_synthesis512": LDM.format("semantic_synthesis512"),
    "bsr_sr": LDM.format("bsr_sr"),
    "inpainting_big": LDM.format("inpainting_big"),
    "rdm768x768": CONFIGS.format("retrieval-augmented-diffusion/768x768"),
}
WIDTH = 32
# Random weights predict an x0 far outside the codebook; among few codes the nearest is then no near-tie.
CODES = 64


def narrow(config):
    """The same depth at a width that runs in no time; tests/tasks/models.rs does the same to the registry's."""
    params = config["params"]
    unet = params["unet_config"]["params"]
    unet["model_channels"] = WIDTH
    if "context_dim" in unet:
        unet["context_dim"] = WIDTH
    first = params["first_stage_config"]["params"]
    first["ddconfig"]["ch"] = WIDTH
    if "n_embed" in first:
        first["n_embed"] = CODES
    cond = params["cond_stage_config"]
    if isinstance(cond, dict):
        for key in ("embed_dim", "n_embed"):
            if key in cond.get("params", {}):
                cond["params"][key] = WIDTH
    return config


def draw(module, prefix, rename=lambda name: name):
    for name, value in list(module.named_parameters()):
        value.copy_(seeded_weight(prefix + rename(name), value.shape))


def build(config, ema=False):
    params = config["params"]
    params["use_ema"] = False
    model = instantiate_from_config(config).eval()
    if ema:
        draw(model.model, "model_ema.", lambda name: name.replace(".", ""))
    else:
        draw(model.model, "model.")
    draw(model.first_stage_model, "first_stage_model.")
    cond = model.cond_stage_model
    if cond is not None and cond is not model.first_stage_model:
        for part in (cond, getattr(cond, "tknz_fn", cond)):  # the original's are "cuda"
            part.device = torch.device("cpu")
        draw(cond, "cond_stage_model.")
    return model


def published(name):
    config = yaml.safe_load(open(os.path.join(os.environ["LATENT_DIFFUSION"], MODELS[name])))["model"]
    model = build(narrow(config), ema=name == "lsun_churches256")
    if name == "lsun_churches256":
        model.scale_factor = torch.tensor(0.7)
    return model


def on_cpu(sampler):
    class OnCpu(sampler):
        def register_buffer(self, name, attr):  # the original moves every buffer to cuda
            setattr(self, name, attr)

    return OnCpu


PROMPTS = ["a virus monster is playing guitar, oil on canvas", "Zürich: 2 lighthouses"]
# Class, box (left, upper edge, width, height); made tokens by the taming code.
LAYOUT = [(3, (0.1, 0.2, 0.5, 0.4)), (17, (0.55, 0.5, 0.4, 0.45))]
BUILDER = ObjectsBoundingBoxConditionalBuilder(
    no_object_classes=601, no_max_objects=30, no_tokens=8192, encode_crop=True, use_group_parameter=True,
    use_additional_parameters=True)


def layout_tokens():
    tokens = []
    for number, box in LAYOUT:
        tokens += [number, *BUILDER.token_pair_from_bbox(box)]
    tokens += [8191] * (90 - len(tokens))
    return torch.tensor([tokens + [*BUILDER.token_pair_from_bbox((0.0, 0.0, 1.0, 1.0))]])


def semantic_map(side):
    return torch.nn.functional.one_hot(
        ((seeded_input("map", (1, side, side)) + 2) * 45).long().clamp(0, 181), 182).permute(0, 3, 1, 2).float()


def inpainting_condition(model, side):
    """As scripts/inpaint.py makes it."""
    picture = seeded_input("picture", (1, 3, side, side)).clamp(-1, 1)
    mask = (seeded_input("mask", (1, 1, side, side)) > 0).float()
    masked = (1 - mask) * (picture + 1) / 2
    c = model.cond_stage_model.encode(masked * 2 - 1)
    cc = torch.nn.functional.interpolate(mask * 2 - 1, size=c.shape[-2:])
    return torch.cat((c, cc), dim=1), picture, mask


def condition(name, model, b=1, side=8):
    """What a model is conditioned on, by tau_theta; and what guidance leads away from."""
    if name.startswith("cin256"):
        embed = lambda classes: model.get_learned_conditioning({"class_label": torch.tensor(classes)})
        return embed([207, 3][:b]), embed([1000] * b) if name == "cin256-v2" else None
    if "2img" in name and "layout" not in name:
        return model.get_learned_conditioning(PROMPTS[:b]), model.get_learned_conditioning([""] * b)
    if name.startswith("layout"):
        return model.get_learned_conditioning(layout_tokens()), None
    if name.startswith("semantic"):
        return model.get_learned_conditioning(semantic_map(4 * side)), None
    if name == "bsr_sr":
        return model.get_learned_conditioning(seeded_input("low", (b, 3, side, side)).clamp(-1, 1)), None
    if name == "inpainting_big":
        return inpainting_condition(model, 4 * side)[0], None
    if name.startswith("rdm"):
        c = seeded_input("embeddings", (b, 3, WIDTH))
        c = c / torch.linalg.norm(c, dim=-1, keepdim=True)
        return c, torch.zeros_like(c)
    return None, None


def side(name):
    return 16 if name == "lsun_churches256" else 8


def sample(model, c, uc, shape, sampler="ddim", steps=20, seed=5, mask=False, scale=1.0, **options):
    torch.manual_seed(seed)
    run = on_cpu(DDIMSampler if sampler == "ddim" else PLMSSampler)(model)
    if mask:
        options.update(x0=seeded_input("x0", (1, *shape)), mask=torch.ones(1, 1, *shape[1:]))
        options["mask"][:, :, 2:6, 2:6] = 0
    b = 1 if c is None else c.shape[0]
    x, _ = run.sample(steps, b, shape, conditioning=c, unconditional_conditioning=uc if scale != 1.0 else None,
                      unconditional_guidance_scale=scale, verbose=False, **options)
    return x


# (model, keywords of its sampler)
RUNS = [
    ("celebahq256", dict(eta=1.0, temperature=0.7, noise_dropout=0.3)),
    # Quantising makes most runs of random weights chaotic (1e-5 on x_T changes all); these are not.
    ("celebahq256", dict(sampler="pndm", quantize_x0=True, seed=13)),
    ("celebahq256", dict(eta=0.5, mask=True)),
    ("celebahq256", dict(sampler="pndm", mask=True)),
    ("ffhq256", dict(eta=1.0)),
    ("ffhq256", dict(sampler="pndm")),
    ("lsun_beds256", dict(eta=1.0)),
    ("lsun_beds256", dict(sampler="pndm")),
    ("lsun_churches256", dict(eta=1.0)),
    ("lsun_churches256", dict(sampler="pndm")),
    ("cin256", dict(eta=1.0, noise_dropout=0.2)),
    ("cin256", dict(sampler="pndm")),
    ("cin256-v2", dict(scale=3.0)),
    ("cin256-v2", dict(sampler="pndm", scale=1.5)),
    ("text2img256", dict(scale=2.0, temperature=0.9, eta=0.3)),
    ("text2img256", dict(sampler="pndm")),
    ("txt2img-1p4B", dict(scale=5.0)),
    ("txt2img-1p4B", dict(sampler="pndm", scale=5.0)),
    ("layout2img-openimages256", dict()),
    ("layout2img-openimages256", dict(sampler="pndm")),
    ("semantic_synthesis256", dict(eta=1.0)),
    ("semantic_synthesis256", dict(sampler="pndm")),
    ("bsr_sr", dict(eta=1.0, temperature=0.8)),
    ("bsr_sr", dict(quantize_x0=True)),
    ("bsr_sr", dict(sampler="pndm", quantize_x0=True)),
    ("inpainting_big", dict()),
    ("inpainting_big", dict(sampler="pndm")),
    ("rdm768x768", dict(scale=4.0)),
    ("rdm768x768", dict(sampler="pndm")),
]


def config_factor(model):
    return 2 ** (model.first_stage_model.encoder.num_resolutions - 1)


def models():
    """Each model's parts, and its runs."""
    forward, runs, cases = {}, {}, []
    for name in MODELS:
        model = published(name)
        n, channels = side(name), model.model.diffusion_model.out_channels
        c, uc = condition(name, model)
        x = seeded_input("x", (2, channels, n, n))
        t = torch.tensor([1, 981])
        twice = None if c is None else torch.cat([c, c])
        forward[f"{name}.unet"] = model.apply_model(x, t, twice)
        if c is not None and name not in ("bsr_sr", "rdm768x768"):
            forward[f"{name}.cond"] = c
        if name in ("lsun_churches256", "cin256", "rdm768x768", "inpainting_big", "txt2img-1p4B"):
            z = seeded_input("z", (1, channels, 2, 2))
            forward[f"{name}.decoded"] = model.decode_first_stage(z)
        for run_of, options in RUNS:
            if run_of != name:
                continue
            b = 2 if name == "cin256" else 1
            c, uc = condition(name, model, b)
            x = sample(model, c, uc, (channels, n, n), **options)
            runs[f"{len(cases)}.latents"] = x
            if name == "inpainting_big":
                _, picture, mask = inpainting_condition(model, 32)
                drawn = model.decode_first_stage(x)
                unit = lambda v: torch.clamp((v + 1) / 2, 0, 1)
                runs[f"{len(cases)}.pictures"] = (1 - mask) * unit(picture) + mask * unit(drawn)
            elif config_factor(model) == 4 and options.get("sampler") != "pndm" and "mask" not in options:
                runs[f"{len(cases)}.pictures"] = model.decode_first_stage(x)
            cases.append({"model": name, **options})
    save_fixture("task_models", forward, models=list(MODELS))
    save_fixture("task_runs", runs, cases=cases, prompts=PROMPTS, layout=LAYOUT)


SPLIT = dict(ks=(8, 8), stride=(4, 4), vqf=4, patch_distributed_vq=True, tie_braker=False, clip_max_weight=0.5,
             clip_min_weight=0.01, clip_max_tie_weight=0.5, clip_min_tie_weight=0.01)


def larger():
    """Larger than the training size: convolutionally, and in patches."""
    tensors = {}
    model = published("semantic_synthesis512")
    c, _ = condition("semantic_synthesis512", model, side=12)
    tensors["convolutional.latents"] = sample(model, c, None, (3, 12, 12))
    tensors["convolutional.plms"] = sample(model, c, None, (3, 12, 12), sampler="pndm")

    model = published("bsr_sr")
    low = seeded_input("low", (1, 3, 16, 12)).clamp(-1, 1)
    model.split_input_params = dict(SPLIT, tie_braker=True)
    x = sample(model, low, None, (3, 16, 12), eta=1.0)
    tensors["patches.plms"] = sample(model, low, None, (3, 16, 12), sampler="pndm")
    tensors["patches.latents"], tensors["patches.pictures"] = x, model.decode_first_stage(x)
    tensors["patches.encoded"] = model.encode_first_stage(seeded_input("picture", (1, 3, 16, 12)).clamp(-1, 1))

    model = published("layout2img-openimages256")
    model.bbox_tokenizer = BUILDER
    model.split_input_params = dict(SPLIT, original_image_size=(48, 64))
    tensors["boxes.latents"] = sample(model, layout_tokens(), None, (3, 12, 16))
    tensors["boxes.plms"] = sample(model, layout_tokens(), None, (3, 12, 16), sampler="pndm")
    save_fixture("task_larger", tensors)


IDENTITY = dict(
    target="ldm.models.diffusion.ddpm.LatentDiffusion",
    params=dict(
        timesteps=1000, image_size=8, channels=3, first_stage_key="image", cond_stage_key="image",
        unet_config=dict(target="ldm.modules.diffusionmodules.openaimodel.UNetModel", params=dict(
            image_size=8, in_channels=3, out_channels=3, model_channels=32, num_res_blocks=1,
            attention_resolutions=[2], channel_mult=[1, 2], num_heads=1)),
        first_stage_config=dict(target="ldm.models.autoencoder.IdentityFirstStage", params={}),
        cond_stage_config="__is_unconditional__"))
CLASSIFIER = dict(image_size=8, in_channels=3, model_channels=32, out_channels=7, num_res_blocks=1,
                  attention_resolutions=[2], channel_mult=[1, 2], num_head_channels=32, pool="attention")


class Guidance:
    """Dhariwal and Nichol's algorithm 2, as the reference's samplers call a corrector."""

    def __init__(self, classifier):
        self.classifier = classifier

    def modify_score(self, model, e_t, x, t, c, classes, scale):
        with torch.enable_grad():
            x_in = x.detach().requires_grad_()
            log_p = torch.log_softmax(self.classifier(x_in, t), dim=-1)
            gradient = torch.autograd.grad(log_p[range(len(classes)), classes].sum(), x_in)[0]
        return e_t - model.sqrt_one_minus_alphas_cumprod[t[0]] * gradient * scale


def pixels():
    """Diffusion of the pixels themselves, guided by a classifier and not."""
    model = build(yaml.safe_load(yaml.safe_dump(IDENTITY)))
    classifier = EncoderUNetModel(**CLASSIFIER).eval()
    draw(classifier, "classifier.")
    tensors = {"plain": sample(model, None, None, (3, 8, 8), eta=1.0),
               "plms": sample(model, None, None, (3, 8, 8), sampler="pndm")}
    for sampler in ("ddim", "pndm"):
        tensors[f"guided.{sampler}"] = sample(
            model, None, None, (3, 8, 8), sampler=sampler, score_corrector=Guidance(classifier),
            corrector_kwargs=dict(classes=[4], scale=3.0))
    tensors["logits"] = classifier(seeded_input("x", (2, 3, 8, 8)), torch.tensor([1, 981]))
    save_fixture("task_pixels", tensors, config=dict(model=IDENTITY), classifier=CLASSIFIER)


def guided():
    """A class-conditional model of latents, led by a classifier of noisy latents too (the paper's table 10)."""
    model = published("cin256")
    config = dict(CLASSIFIER, in_channels=4)
    classifier = EncoderUNetModel(**config).eval()
    draw(classifier, "classifier.")
    c, _ = condition("cin256", model, 2)
    tensors = {}
    for sampler in ("ddim", "pndm"):
        x = sample(model, c, None, (4, 8, 8), sampler=sampler, score_corrector=Guidance(classifier),
                   corrector_kwargs=dict(classes=[4, 1], scale=30.0))
        tensors[f"{sampler}.latents"] = x
    tensors["pictures"] = model.decode_first_stage(tensors["ddim.latents"])
    save_fixture("task_guided", tensors, classifier=config)


class Exact:
    """ScaNN's brute force: the rows of the largest inner products, largest first."""

    def __init__(self, rows):
        self.rows = rows

    def search_batched(self, queries, final_num_neighbors):
        scores = queries @ self.rows.T
        nearest = np.argsort(-scores, axis=1)[:, :final_num_neighbors]
        return nearest, np.take_along_axis(scores, nearest, 1)


DATABASE = "../fixtures/retrieval/texts.npz"


def retrieved():
    """scripts/knn2img.py: text, CLIP, neighbours in a database, context, run."""
    script = os.path.join(os.environ["LATENT_DIFFUSION"], "scripts", "knn2img.py")
    spec = importlib.util.spec_from_file_location("knn2img", script)
    knn2img = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(knn2img)
    # OpenAI's text tower is transformers' (clip.py), its tokenizer CLIPTokenizer.
    config = transformers.CLIPTextConfig(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3, num_attention_heads=4,
                            hidden_act="quick_gelu", projection_dim=WIDTH, eos_token_id=2)
    tower = transformers.CLIPTextModelWithProjection(config).eval()
    shapes = seed_module(tower)
    tokenizer = tiny.tokenizer("!")
    tokenize = lambda texts: tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    network = torch.nn.Module()
    network.encode_text = lambda tokens: tower(tokens).text_embeds
    sys.modules["clip"].load = lambda *_, **__: (network, None)
    sys.modules["clip"].tokenize = tokenize
    clip = knn2img.FrozenCLIPTextEmbedder(device="cpu")

    rows = uniform("database", 48 * WIDTH).reshape(48, WIDTH)
    coords = np.tile(np.array([0, 0, 256, 256]), (48, 1))
    np.savez_compressed(DATABASE, embedding=rows, img_id=np.arange(48), patch_coords=coords)
    searcher = object.__new__(knn2img.Searcher)
    searcher.load_single_file(DATABASE)
    searcher.searcher = Exact(rows / np.linalg.norm(rows, axis=1)[:, np.newaxis])

    model = published("rdm768x768")
    c = clip.encode(PROMPTS)
    found = searcher(c, 4)
    tensors = {"texts": c[:, 0], "nns": torch.from_numpy(found["nns"])}
    c = torch.cat([c, torch.from_numpy(found["nn_embeddings"])], dim=1)
    tensors["context"] = c
    for sampler in ("ddim", "pndm"):
        tensors[f"{sampler}.latents"] = sample(model, c, torch.zeros_like(c), (16, 8, 8), sampler=sampler, scale=5.0)
    tensors["ddim.pictures"] = model.decode_first_stage(tensors["ddim.latents"][:1])
    config = config.to_dict() | {"architectures": ["CLIPTextModelWithProjection"]}
    save_fixture("task_retrieved", tensors, config=config, shapes=shapes, prompts=PROMPTS)


class Listed(list):
    """Both samplers ask the first condition for its shape, which `hybrid` keeps in a list."""

    @property
    def shape(self):
        return self[0].shape


def mechanism(key, cond, **unet):
    return dict(
        target="ldm.models.diffusion.ddpm.LatentDiffusion",
        params=dict(
            linear_start=0.0015, linear_end=0.0195, timesteps=1000, image_size=8, channels=3, conditioning_key=key,
            first_stage_key="image", cond_stage_key="class_label",
            unet_config=dict(target="ldm.modules.diffusionmodules.openaimodel.UNetModel", params=dict(
                image_size=8, out_channels=3, model_channels=32, num_res_blocks=1, attention_resolutions=[2],
                channel_mult=[1, 2], num_head_channels=16, **unet)),
            first_stage_config=dict(target="ldm.models.autoencoder.VQModelInterface", params=dict(
                embed_dim=3, n_embed=CODES, lossconfig=dict(target="torch.nn.Identity"), ddconfig=dict(
                    double_z=False, z_channels=3, resolution=32, in_channels=3, out_ch=3, ch=32, ch_mult=[1, 2],
                    num_res_blocks=1, attn_resolutions=[], dropout=0.0))),
            cond_stage_config=cond))


MECHANISMS = {
    "hybrid": mechanism("hybrid", dict(target="ldm.modules.encoders.modules.ClassEmbedder",
                                       params=dict(embed_dim=24, n_classes=6, key="class_label")),
                        in_channels=5, use_spatial_transformer=True, transformer_depth=1, context_dim=24),
    "adm": mechanism("adm", dict(target="torch.nn.Identity"), in_channels=3, num_classes=6),
}


def mechanisms():
    """Channels and context at once, and classes in the time embedding: ways that no published model takes."""
    tensors = {}
    for name, config in MECHANISMS.items():
        model = build(yaml.safe_load(yaml.safe_dump(config)))
        labels = torch.tensor([4, 1])
        for sampler in ("ddim", "pndm"):
            if name == "hybrid":
                c = {"c_concat": Listed([seeded_input("channels", (2, 2, 8, 8))]),
                     "c_crossattn": [model.get_learned_conditioning({"class_label": labels})]}
                torch.manual_seed(5)
                run = on_cpu(DDIMSampler if sampler == "ddim" else PLMSSampler)(model)
                x, _ = run.sample(20, 2, (3, 8, 8), conditioning=c, verbose=False)
            else:
                x = sample(model, labels, torch.tensor([5, 5]), (3, 8, 8), sampler=sampler, scale=2.0)
            tensors[f"{name}.{sampler}.latents"] = x
        tensors[f"{name}.pictures"] = model.decode_first_stage(tensors[f"{name}.ddim.latents"])
    save_fixture("task_mechanisms", tensors, configs={k: dict(model=v) for k, v in MECHANISMS.items()})


if __name__ == "__main__":
    for name in sys.argv[1:] or ["models", "larger", "pixels", "guided", "retrieved", "mechanisms"]:
        globals()[name]()
