"""The values of the reference's YAML files: its published models and the configs that it trains with.

The values alone, as OmegaConf reads them; the texts stay where they are. Source: CompVis/latent-diffusion (MIT licence, copyright
2022 Machine Vision and Learning Group, LMU Munich), a check-out of which LATENT_DIFFUSION is.
"""
import os
from pathlib import Path

from omegaconf import OmegaConf

from seeded import save_fixture

ROOT = Path(os.environ["LATENT_DIFFUSION"])
FOLDERS = ["models/first_stage_models", "models/ldm", "configs"]
files = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.yaml"))
save_fixture("published_configs", {}, configs={
    path.relative_to(ROOT).as_posix(): OmegaConf.to_container(OmegaConf.load(path)) for path in files})
