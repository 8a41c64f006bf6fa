"""CompVis' own repositories, where what PyPI carries of them is not enough.

LATENT_DIFFUSION and TAMING_TRANSFORMERS are check-outs of CompVis/latent-diffusion and CompVis/taming-transformers. Import
this before anything of `ldm` or `taming`.
"""
import os
import sys
import types

import torch


def package(name: str, folder: str) -> None:
    module = types.ModuleType(name)
    module.__path__ = [folder]
    sys.modules[name] = module


package("ldm", os.path.join(os.environ["LATENT_DIFFUSION"], "ldm"))
package("taming", os.path.join(os.environ["TAMING_TRANSFORMERS"], "taming"))
# The original imports it to train.
lightning = types.ModuleType("pytorch_lightning")
lightning.LightningModule = torch.nn.Module
sys.modules.setdefault("pytorch_lightning", lightning)
