use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use burn::tensor::{DType, Device};
use clap::Args;
use ldm::{LoadOptions, StableDiffusion};

use super::progress::spinner;
use super::{Result, emoji};

/// Where to compute, and in what.
#[derive(Args, Debug)]
pub struct DeviceArgs {
    /// flex, ndarray, wgpu, vulkan, metal, cuda, rocm, as far as this build has them; `cuda:1` is the second GPU
    /// [default: burn's, by the environment variable BURN_DEVICE]
    #[arg(long)]
    pub device: Option<String>,
    /// Float type to compute in: f32, f16 or bf16
    #[arg(long, default_value = "f32")]
    pub dtype: String,
}

impl DeviceArgs {
    /// The device, and the float type if it has that.
    pub fn open(&self) -> Result<(Device, DType)> {
        let device = match &self.device {
            Some(name) => ldm::device(name)?,
            None => Device::default(),
        };
        let dtype = ldm::dtype(&self.dtype, &device)?;
        Ok((device, dtype))
    }
}

/// Which model.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// A diffusers directory, a single .safetensors or .ckpt file, or `owner/name` of a model on the hub
    /// [default: the small model of emoji in assets/]
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// The YAML config of a single file; without it the file is recognised by its keys
    #[arg(long, value_name = "YAML")]
    pub config: Option<PathBuf>,
    /// The variant of a directory's weight files, `fp16`
    #[arg(long)]
    pub variant: Option<String>,
    /// Take a single file's EMA weights (true) or its plain ones (false) [default: as the YAML says, else plain]
    #[arg(long, value_name = "BOOL")]
    pub ema: Option<bool>,
    /// What a single file's U-Net predicts, where neither keys nor YAML tell: epsilon, v_prediction or sample
    #[arg(long, value_name = "TYPE")]
    pub prediction_type: Option<String>,
    /// A LoRA on top, with its strength (1 if not said); may be given several times
    #[arg(long, value_name = "FILE[:SCALE]")]
    pub lora: Vec<Lora>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `FILE[:SCALE]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    path: PathBuf,
    scale: f64,
}

impl FromStr for Lora {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        // What follows a colon and is no number belongs to the name.
        let split = text.rsplit_once(':').and_then(|(path, scale)| Some((path, scale.parse().ok()?)));
        let (path, scale) = split.unwrap_or((text, 1.0));
        Ok(Self { path: path.into(), scale })
    }
}

impl ModelArgs {
    /// Loads the model, with a spinner.
    pub fn load(&self) -> Result<StableDiffusion> {
        let (device, dtype) = self.device.open()?;
        let path = self.path();
        if self.model.is_none() && !path.exists() {
            let path = path.display();
            return Err(format!("{path} is not there: give --model").into());
        }
        let spinner = spinner(format!("loading {}", path.display()));
        let mut model = StableDiffusion::load(&path, &self.options(device, dtype))?;
        for Lora { path, scale } in &self.lora {
            model = model.load_lora(path, *scale)?;
        }
        spinner.finish_and_clear();
        Ok(model)
    }

    /// The arguments as the library takes them.
    pub fn options(&self, device: Device, dtype: DType) -> LoadOptions {
        LoadOptions {
            config: self.config.clone(),
            variant: self.variant.clone(),
            use_ema: self.ema,
            prediction_type: self.prediction_type.clone(),
            ..LoadOptions::new(device).dtype(dtype)
        }
    }

    /// Where the model lies.
    pub fn path(&self) -> PathBuf {
        self.model.clone().unwrap_or_else(emoji::model)
    }

    /// The model's name for people: the last part of its path.
    pub fn name(&self) -> String {
        let path = self.path();
        let last = path.file_name().unwrap_or(path.as_os_str());
        last.to_string_lossy().into_owned()
    }
}
