"""What the reference implementations say of features, pictures and Inception's weights drawn by name.

guided-diffusion's evaluations/evaluator.py must be importable (PYTHONPATH); TensorFlow need not.
"""
import sys
import types
from unittest import mock

import numpy as np
import torch

import pytorch_fid.inception
from pytorch_fid.fid_score import calculate_frechet_distance
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.functional.multimodal.clip_score import _clip_score_update

from seeded import FIXTURES, save_fixture, seeded_input, seeded_weight

stubs = {name: mock.MagicMock() for name in ("tensorflow", "tensorflow.compat", "tensorflow.compat.v1", "requests")}
with mock.patch.dict(sys.modules, stubs):
    import evaluator

torch.set_num_threads(2)


def features(name, n, d, scale=1.0, offset=0.0):
    return seeded_input(name, [n, d]) * scale + offset


def frechet(a, b):
    """All three references; where SciPy's square root of a singular product fails, they differ."""
    mu, sigma = zip(*[(np.mean(x, 0), np.cov(x, rowvar=False)) for x in (a, b)])
    guided = [evaluator.FIDStatistics(m, s) for m, s in zip(mu, sigma)]
    stats = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    return {
        "pytorch_fid": float(calculate_frechet_distance(mu[0], sigma[0], mu[1], sigma[1])),
        "guided_diffusion": float(guided[0].frechet_distance(guided[1])),
        "torch_fidelity": float(fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]),
    }


def inception_score(logits):
    fidelity = isc_features_to_metric(logits, splits=3, shuffle=False)

    class Fake:
        softmax_batch_size = 512
        softmax, softmax_input = "softmax", "input"
        sess = types.SimpleNamespace(run=lambda _, feed_dict: torch.from_numpy(feed_dict["input"]).softmax(1).numpy())

    guided = evaluator.Evaluator.compute_inception_score(Fake(), logits.double().numpy(), split_size=16)
    return {"count_3": [fidelity["inception_score_mean"], fidelity["inception_score_std"]], "size_16": guided}


def pictures():
    # [2, 3, 24, 31] in [-1, 1], and the same with some noise.
    a = seeded_input("metrics.a", [2, 3, 24, 31]) / 3**0.5
    b = a * 0.8 + seeded_input("metrics.b", [2, 3, 24, 31]) / 3**0.5 * 0.2
    return a, b


def pixels():
    a, b = (((x.double() + 1) / 2).numpy() for x in pictures())
    ssim = dict(data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    ours = structural_similarity_index_measure(torch.from_numpy(a), torch.from_numpy(b), data_range=1.0, reduction="none")
    return {
        "psnr": [float(peak_signal_noise_ratio(x, y, data_range=1.0)) for x, y in zip(a, b)],
        "ssim": [float(structural_similarity(x, y, **ssim)) for x, y in zip(a, b)],
        "ssim_torchmetrics": ours.tolist(),
    }


def clip():
    embed = {"picture": features("metrics.clip_a", 5, 16), "text": features("metrics.clip_b", 5, 16)}
    model = mock.MagicMock()
    model.to.return_value = model
    model.get_image_features.return_value = embed["picture"].double()
    model.get_text_features.return_value = embed["text"].double()
    texts, images = ["a"] * 5, [torch.zeros(3, 4, 4)] * 5
    processor = lambda **k: {"pixel_values": torch.zeros(1), "input_ids": torch.zeros(1, 2), "attention_mask": torch.zeros(1, 2)}
    model.config = object()
    score, n = _clip_score_update(images, texts, model, processor)
    return score.tolist()


def numbers():
    a, b = features("metrics.fid_a", 40, 8), features("metrics.fid_b", 30, 8, 1.5, 0.25)
    # Fewer pictures than features: both covariances are singular.
    few, fewer = features("metrics.few_a", 12, 24), features("metrics.few_b", 10, 24, 1.5, 0.25)
    logits = features("metrics.logits", 50, 10, 3.0)
    near, far = features("metrics.prc_a", 60, 6), features("metrics.prc_b", 45, 6, 1.25, 0.5)
    prc = {str(k): calculate_precision_recall_full(near.double(), far.double(), k) for k in (1, 3, 5)}
    stats = fid_features_to_statistics(a.double())
    np.savez_compressed(
        FIXTURES / "fid_statistics.npz",
        mu=stats["mu"], sigma=stats["sigma"],
        mu_s=stats["mu"].astype(np.float32), sigma_s=np.asfortranarray(stats["sigma"] + np.arange(8)),
    )
    return {
        "frechet": frechet(a.double().numpy(), b.double().numpy()),
        "frechet_singular": frechet(few.double().numpy(), fewer.double().numpy()),
        "mu": stats["mu"].tolist(),
        "sigma": stats["sigma"].tolist(),
        "inception_score": inception_score(logits),
        "precision_recall": prc,
        "clip": clip(),
        **pixels(),
    }


def inception():
    def seed(module, _):
        for name, v in module.state_dict().items():
            if v.is_floating_point():
                v.copy_(seeded_weight(name, v.shape) + (1.0 if name.endswith("running_var") else 0.0))

    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: None
    from torchvision.models import Inception3

    with mock.patch.object(Inception3, "load_state_dict", seed), torch.no_grad():
        net = pytorch_fid.inception.fid_inception_v3().eval()
        with mock.patch.object(pytorch_fid.inception, "fid_inception_v3", lambda: net):
            wrapped = pytorch_fid.inception.InceptionV3([3]).eval()
        spatial = []
        net.Mixed_6d.branch1x1.register_forward_hook(lambda _, __, y: spatial.append(y[:, :7].permute(0, 2, 3, 1).flatten(1)))
        tensors = {}
        for name, shape in {"small": [2, 3, 40, 56], "large": [1, 3, 320, 310]}.items():
            x = seeded_input(f"inception.{name}", shape) / 3**0.5
            spatial.clear()
            pool = wrapped((x + 1) / 2)[0].flatten(1)
            tensors[f"{name}.pool"] = pool
            tensors[f"{name}.logits"] = pool @ net.fc.weight.T
            tensors[f"{name}.spatial"] = spatial[0]
        shapes = {k: list(v.shape) for k, v in net.state_dict().items() if v.is_floating_point()}
    return tensors, shapes


if __name__ == "__main__":
    found = numbers()
    print({k: v for k, v in found.items() if k not in ("mu", "sigma")})
    save_fixture("metrics", {"none": torch.zeros(1)}, **found)
    tensors, shapes = inception()
    save_fixture("inception", tensors, shapes=shapes)
