//! One part of a model, once, from tensors to tensors: for whoever checks a port.
//!
//! ```sh
//! cargo run --release --example forward -- --model stable-diffusion-v1-5 --part unet --inputs in.safetensors \
//!     --output out.safetensors
//! ```

mod common;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use clap::{Parser, ValueEnum};
use common::Result;
use common::model::DeviceArgs;
use common::output::check_folder;
use ldm::nn::weights::{Saver, WeightFile};
use ldm::unet::{Conditioning, LabelEmbedding};
use ldm::vae::{Encoded, FirstStage};
use ldm::{LoadOptions, TextModel};

/// Runs one part of a model on the tensors of a safetensors file. Keys and shapes are those of diffusers:
///
///   unet          sample, timestep [, encoder_hidden_states, class_labels, timestep_cond, text_embeds, time_ids]
///                 -> sample; class_labels are classes, or where the U-Net embeds those a number or a vector an item
///   vae-encode    sample -> mean, logvar; of a VQ model latents (before quantisation), indices (i64, flat)
///   vae-decode    latents -> sample (no scaling factor in between; a VQ model quantises them first)
///   text-encoder  input_ids -> last_hidden_state, penultimate, pooler_output (or text_embeds);
///                 the paper's BERT gives last_hidden_state alone
///
/// Integers come as i64, a timestep for each item. Other outputs are f32.
#[derive(Parser)]
#[command(name = "forward", verbatim_doc_comment)]
struct Arguments {
    /// A directory with the part's own folder in it: unet, vae, vqvae, text_encoder, text_encoder_2 or bert
    #[arg(long, value_name = "DIR", required_unless_present = "checkpoint", conflicts_with_all = ["checkpoint", "config"])]
    model: Option<PathBuf>,
    /// A file with CompVis' names, which may hold the part alone
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The YAML config of --checkpoint; without it the part is recognised by its keys, where they tell
    #[arg(long, value_name = "YAML")]
    config: Option<PathBuf>,
    /// Take a checkpoint's EMA weights (true) or its plain ones (false) [default: as the YAML says]
    #[arg(long, value_name = "BOOL")]
    ema: Option<bool>,
    /// The part to run
    #[arg(long, value_enum)]
    part: Part,
    /// The inputs
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// Where the outputs go
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(ValueEnum, Clone, Copy)]
enum Part {
    /// The denoiser
    Unet,
    /// The first stage's encoder
    VaeEncode,
    /// The first stage's decoder
    VaeDecode,
    /// The text encoder: text_encoder, else bert, else text_encoder_2
    TextEncoder,
    /// SDXL's second text encoder
    #[value(name = "text-encoder-2")]
    TextEncoder2,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    check_folder(&arguments.output, "--output")?;
    let (device, dtype) = arguments.device.open()?;
    let options = LoadOptions {
        config: arguments.config.clone(),
        use_ema: arguments.ema,
        ..LoadOptions::new(device.clone()).dtype(dtype)
    };
    let inputs = Inputs::open(&arguments.inputs, &device)?;
    let source =
        Source { directory: arguments.model.as_deref(), checkpoint: arguments.checkpoint.as_deref() };
    let outputs = match arguments.part {
        Part::Unet => unet(&source, &inputs, &options)?,
        Part::VaeEncode => vae_encode(&source, &inputs, &options)?,
        Part::VaeDecode => vae_decode(&source, &inputs, &options)?,
        Part::TextEncoder => text_encoder(&source, &inputs, &options, false)?,
        Part::TextEncoder2 => text_encoder(&source, &inputs, &options, true)?,
    };
    let mut file = Saver::new();
    for (key, data) in outputs {
        println!("{key} {:?}", data.shape().as_slice());
        file = file.add_tensor(key, data);
    }
    Ok(file.write(&arguments.output)?)
}

/// What a part gives, by diffusers' keys.
type Outputs = Vec<(&'static str, TensorData)>;

fn unet(source: &Source<'_>, inputs: &Inputs, options: &LoadOptions) -> Result<Outputs> {
    let optional = ["encoder_hidden_states", "class_labels", "timestep_cond", "text_embeds", "time_ids"];
    inputs.check(&["sample", "timestep"], &optional)?;
    let unet = match (source.directory, source.checkpoint) {
        (Some(directory), _) => ldm::load_unet(directory, options)?,
        (_, Some(checkpoint)) => ldm::load_unet_from_checkpoint(checkpoint, options)?,
        _ => return Err(NO_SOURCE.into()),
    };
    // Under one key diffusers takes what its U-Nets look up in a table, and what they embed as it is.
    let (class_labels, y) = match unet.label_embedding() {
        None | Some(LabelEmbedding::Classes(_)) => (inputs.ints_if_there("class_labels")?, None),
        Some(_) => (None, inputs.vectors_if_there("class_labels")?),
    };
    let conditioning = Conditioning {
        context: inputs.float_if_there("encoder_hidden_states")?,
        class_labels,
        y,
        text_embeds: inputs.float_if_there("text_embeds")?,
        time_ids: inputs.float_if_there("time_ids")?,
        timestep_cond: inputs.float_if_there("timestep_cond")?,
        ..Conditioning::none()
    };
    let sample = unet.forward(inputs.float("sample")?, inputs.float("timestep")?, &conditioning)?;
    Ok(vec![f32_output("sample", sample)])
}

fn vae_encode(source: &Source<'_>, inputs: &Inputs, options: &LoadOptions) -> Result<Outputs> {
    inputs.check(&["sample"], &[])?;
    let stage = first_stage(source, options)?;
    let latents = match stage.encode(inputs.float("sample")?)? {
        Encoded::Posterior(posterior) => {
            return Ok(vec![f32_output("mean", posterior.mean()), f32_output("logvar", posterior.logvar())]);
        }
        Encoded::Latent(latents) => latents,
    };
    let mut outputs = vec![f32_output("latents", latents.clone())];
    if let FirstStage::Vq(model) = &stage {
        let indices = model.quantize.forward(latents)?.indices.flat();
        outputs.push(("indices", indices.into_data().convert::<i64>()));
    }
    Ok(outputs)
}

fn vae_decode(source: &Source<'_>, inputs: &Inputs, options: &LoadOptions) -> Result<Outputs> {
    inputs.check(&["latents"], &[])?;
    Ok(vec![f32_output("sample", first_stage(source, options)?.decode(inputs.float("latents")?)?)])
}

fn first_stage(source: &Source<'_>, options: &LoadOptions) -> Result<FirstStage> {
    match (source.directory, source.checkpoint) {
        (Some(directory), _) => Ok(ldm::load_first_stage(directory, options)?),
        (_, Some(checkpoint)) => Ok(ldm::load_first_stage_from_checkpoint(checkpoint, options)?),
        _ => Err(NO_SOURCE.into()),
    }
}

fn text_encoder(
    source: &Source<'_>,
    inputs: &Inputs,
    options: &LoadOptions,
    second: bool,
) -> Result<Outputs> {
    inputs.check(&["input_ids"], &[])?;
    let model = match (source.directory, source.checkpoint) {
        (Some(directory), _) => text_model(directory, second, options)?,
        (_, Some(checkpoint)) => ldm::load_text_encoder_from_checkpoint(checkpoint, second, options)?,
        _ => return Err(NO_SOURCE.into()),
    };
    let ids = inputs.ids("input_ids")?;
    let output = match model {
        TextModel::Clip(encoder) => encoder.forward(ids)?,
        TextModel::Bert(encoder) => return Ok(vec![f32_output("last_hidden_state", encoder.forward(ids)?)]),
    };
    let penultimate = output.penultimate();
    let pooled = match output.text_embeds {
        Some(embeds) => f32_output("text_embeds", embeds),
        None => f32_output("pooler_output", output.pooler_output),
    };
    Ok(vec![
        f32_output("last_hidden_state", output.last_hidden_state),
        f32_output("penultimate", penultimate),
        pooled,
    ])
}

/// The encoder whose folder is there.
fn text_model(directory: &Path, second: bool, options: &LoadOptions) -> Result<TextModel> {
    let parts = if second { &["text_encoder_2"][..] } else { &["text_encoder", "bert", "text_encoder_2"] };
    let there = parts.iter().find(|part| directory.join(part).is_dir());
    Ok(match *there.unwrap_or(&parts[0]) {
        "bert" => TextModel::Bert(Box::new(ldm::load_bert_encoder(directory, options)?)),
        part => TextModel::Clip(Box::new(ldm::load_text_encoder(directory, part, options)?)),
    })
}

fn f32_output<const D: usize>(key: &'static str, tensor: Tensor<D>) -> (&'static str, TensorData) {
    (key, tensor.cast(DType::F32).into_data())
}

/// Where the part is: clap lets one of them through.
struct Source<'a> {
    directory: Option<&'a Path>,
    checkpoint: Option<&'a Path>,
}

const NO_SOURCE: &str = "give --model DIR, or --checkpoint FILE";

/// The tensors of the input file.
struct Inputs {
    file: WeightFile,
    device: Device,
}

impl Inputs {
    fn open(path: &Path, device: &Device) -> Result<Self> {
        Ok(Self { file: WeightFile::open(path)?, device: device.clone() })
    }

    /// Names every key that is missing or that the part doesn't take.
    fn check(&self, required: &[&str], optional: &[&str]) -> Result<()> {
        let missing = required.iter().filter(|key| !self.file.contains(key)).copied();
        let taken = |key: &str| required.contains(&key) || optional.contains(&key);
        let unknown = self.file.tensors().map(|t| t.name.as_str()).filter(|key| !taken(key));
        let missing: Vec<_> = missing.collect();
        let unknown: Vec<_> = unknown.collect();
        if missing.is_empty() && unknown.is_empty() {
            return Ok(());
        }
        let path = self.file.path().display();
        let (missing, unknown) = (missing.join(", "), unknown.join(", "));
        let known = [required, optional].concat().join(", ");
        Err(format!("{path}: missing: [{missing}], unknown: [{unknown}]; this part takes {known}").into())
    }

    /// A float tensor, or an integer one as floats.
    fn float<const D: usize>(&self, key: &str) -> Result<Tensor<D>> {
        let is_float = self.file.info(key).is_none_or(|info| info.element.is_float());
        let (shape, values) = if is_float {
            self.file.read_f32(key)?
        } else {
            let (shape, values) = self.file.read_i64(key)?;
            (shape, values.into_iter().map(|v| v as f32).collect())
        };
        Ok(Tensor::from_data(
            TensorData::new(values, self.shape::<D>(key, shape)?),
            (&self.device, DType::F32),
        ))
    }

    fn float_if_there<const D: usize>(&self, key: &str) -> Result<Option<Tensor<D>>> {
        if self.file.contains(key) { self.float(key).map(Some) } else { Ok(None) }
    }

    /// A vector an item, `[b, d]`, or a number an item, `[b]` -> `[b, 1]`.
    fn vectors_if_there(&self, key: &str) -> Result<Option<Tensor<2>>> {
        match self.file.info(key) {
            None => Ok(None),
            Some(info) if info.shape.len() == 1 => Ok(Some(self.float::<1>(key)?.unsqueeze_dim(1))),
            Some(_) => self.float(key).map(Some),
        }
    }

    fn ints_if_there(&self, key: &str) -> Result<Option<Vec<i64>>> {
        if !self.file.contains(key) {
            return Ok(None);
        }
        let (shape, values) = self.file.read_i64(key)?;
        self.shape::<1>(key, shape)?;
        Ok(Some(values))
    }

    fn ids(&self, key: &str) -> Result<Tensor<2, Int>> {
        let (shape, values) = self.file.read_i64(key)?;
        Ok(Tensor::from_data(TensorData::new(values, self.shape::<2>(key, shape)?), &self.device))
    }

    fn shape<const D: usize>(&self, key: &str, shape: Vec<usize>) -> Result<[usize; D]> {
        let path = self.file.path().display();
        let error = |shape| format!("{path}: {key} has shape {shape:?}, it needs {D} axes").into();
        shape.try_into().map_err(error)
    }
}
