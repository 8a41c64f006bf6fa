use std::{fmt, str::FromStr};

use serde_json::{Value, json};

use crate::Error;

/// The samplers, by the names people use for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SamplerKind {
    /// Ancestral sampling of the diffusion chain (Ho et al. 2020).
    Ddpm,
    /// Denoising diffusion implicit models, any eta (Song et al. 2021).
    Ddim,
    /// Pseudo numerical methods, PLMS among them (Liu et al. 2022).
    Pndm,
    /// Euler's method on the probability flow ODE (Karras et al. 2022).
    Euler,
    /// Euler steps with fresh noise after each (k-diffusion).
    EulerAncestral,
    /// Heun's method (Karras et al. 2022, algorithm 1).
    Heun,
    /// A linear multistep method on the ODE (k-diffusion).
    Lms,
    /// DPM-Solver++ of any order, ODE or SDE, as the config says (Lu et al. 2022).
    DpmSolver,
    /// DPM-Solver++ (2M).
    Dpmpp2m,
    /// SDE-DPM-Solver++ (2M).
    Dpmpp2mSde,
    /// DPM-Solver++ (2M) on Karras' noise levels.
    Dpmpp2mKarras,
    /// SDE-DPM-Solver++ (2M) on Karras' noise levels.
    Dpmpp2mSdeKarras,
    /// UniPC, a predictor and corrector (Zhao et al. 2023).
    UniPc,
    /// Latent consistency models (Luo et al. 2023).
    Lcm,
}

use SamplerKind::*;

/// Sampler, its short name, diffusers' class. The first row of a class is the class itself.
const NAMES: [(SamplerKind, &str, &str); 14] = [
    (Ddpm, "ddpm", "DDPMScheduler"),
    (Ddim, "ddim", "DDIMScheduler"),
    (Pndm, "pndm", "PNDMScheduler"),
    (Euler, "euler", "EulerDiscreteScheduler"),
    (EulerAncestral, "euler_a", "EulerAncestralDiscreteScheduler"),
    (Heun, "heun", "HeunDiscreteScheduler"),
    (Lms, "lms", "LMSDiscreteScheduler"),
    (DpmSolver, "dpmpp", "DPMSolverMultistepScheduler"),
    (Dpmpp2m, "dpmpp_2m", "DPMSolverMultistepScheduler"),
    (Dpmpp2mSde, "dpmpp_2m_sde", "DPMSolverMultistepScheduler"),
    (Dpmpp2mKarras, "dpmpp_2m_karras", "DPMSolverMultistepScheduler"),
    (Dpmpp2mSdeKarras, "dpmpp_2m_sde_karras", "DPMSolverMultistepScheduler"),
    (UniPc, "unipc", "UniPCMultistepScheduler"),
    (Lcm, "lcm", "LCMScheduler"),
];

impl SamplerKind {
    /// Every sampler.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|row| row.0)
    }

    /// The short name: `euler_a`, `dpmpp_2m`, ...
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The class that diffusers writes into a scheduler_config.json.
    pub fn class_name(self) -> &'static str {
        self.row().2
    }

    /// What the name itself says about the config, whatever the model's own config says.
    pub(crate) fn overrides(self) -> Vec<(&'static str, Value)> {
        match self {
            Dpmpp2m => vec![("algorithm_type", json!("dpmsolver++")), ("solver_order", json!(2))],
            Dpmpp2mSde => vec![("algorithm_type", json!("sde-dpmsolver++")), ("solver_order", json!(2))],
            Dpmpp2mKarras => vec![
                ("algorithm_type", json!("dpmsolver++")),
                ("solver_order", json!(2)),
                ("use_karras_sigmas", json!(true)),
            ],
            Dpmpp2mSdeKarras => vec![
                ("algorithm_type", json!("sde-dpmsolver++")),
                ("solver_order", json!(2)),
                ("use_karras_sigmas", json!(true)),
            ],
            _ => vec![],
        }
    }

    /// How many entries of the timesteps one step takes: 2 for Heun, which calls the denoiser twice.
    pub fn order(self) -> usize {
        if self == Heun { 2 } else { 1 }
    }

    pub(crate) fn known_names() -> String {
        NAMES.map(|row| row.1).join(", ")
    }

    fn row(self) -> &'static (SamplerKind, &'static str, &'static str) {
        // The table has a row for every variant, in the order of the variants (see the test).
        &NAMES[self as usize]
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SamplerKind {
    type Err = Error;

    /// Takes a short name or the name of diffusers' class.
    fn from_str(name: &str) -> Result<Self, Error> {
        let row = NAMES.iter().find(|row| row.1 == name || row.2 == name);
        row.map(|row| row.0).ok_or_else(|| Error::UnknownSampler { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_classes_parse() {
        for kind in SamplerKind::all() {
            assert_eq!(kind.row().0, kind);
            assert_eq!(kind.name().parse::<SamplerKind>().unwrap(), kind);
            assert_eq!(kind.class_name().parse::<SamplerKind>().unwrap().class_name(), kind.class_name());
        }
        assert_eq!("DPMSolverMultistepScheduler".parse::<SamplerKind>().unwrap(), DpmSolver);
        let error = "EDMEulerScheduler".parse::<SamplerKind>().unwrap_err().to_string();
        assert!(error.contains("`EDMEulerScheduler`") && error.contains("euler_a"), "{error}");
    }
}
