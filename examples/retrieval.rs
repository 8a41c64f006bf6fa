//! A picture of a text, and of pictures like it: CLIP's embedding of the text and its nearest neighbours in a database.
//!
//! ```sh
//! cargo run --release --example retrieval -- --model model.ckpt --clip clip-vit-large-patch14 --guidance 5 \
//!     --prompt "a happy bear reading a newspaper, oil on canvas" --database artbench.npz --knn 10
//! ```
//!
//! `--approximate 100` looks for them in a graph, which takes a while to build and finds nearly all of them fast.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::Tensor;
use clap::Parser;
use common::Result;
use common::latent::{LatentModelArgs, LatentSamplingArgs};
use common::progress::Bar;
use ldm::LoadOptions;
use ldm::conditioning::clip::{ClipTextEmbedder, ClipTokenizer};
use ldm::retrieval::{Database, Hnsw, HnswConfig, Metric};

/// Draws with a retrieval-augmented model.
#[derive(Parser)]
#[command(name = "retrieval")]
struct Arguments {
    #[command(flatten)]
    model: LatentModelArgs,
    #[command(flatten)]
    sampling: LatentSamplingArgs,
    /// What a picture should show; once for each picture
    #[arg(long = "prompt", required = true, num_args = 1..)]
    prompts: Vec<String>,
    /// CLIP ViT-L/14's text encoder with its projection, as transformers saves it (CLIPTextModelWithProjection)
    #[arg(long, value_name = "DIR")]
    clip: PathBuf,
    /// Embeddings of pictures to look for neighbours in (.npz)
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Neighbours of each text
    #[arg(long, default_value_t = 10)]
    knn: usize,
    /// Search approximately, in a graph, looking at so many candidates: more of them miss fewer neighbours [default:
    /// every row is looked at]
    #[arg(long, value_name = "EF", requires = "database")]
    approximate: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let sampling = &arguments.sampling;
    sampling.output.check()?;
    let model = arguments.model.load("rdm768x768")?;
    let options = LoadOptions::new(model.device().clone());
    let encoder = ldm::load_text_encoder(&arguments.clip, ".", &options)?;
    let clip = ClipTextEmbedder::new(ClipTokenizer::open_ai()?, encoder)?;

    let text = clip.embed(&arguments.prompts)?;
    let mut context = text.clone().unsqueeze_dim::<3>(1);
    if let Some(path) = &arguments.database {
        let database = Database::open(path)?;
        let found = match arguments.approximate {
            None => database.nearest(text, arguments.knn, Metric::Cosine)?,
            Some(ef) => Hnsw::build(&database, HnswConfig::default())?.nearest(text, arguments.knn, ef)?,
        };
        context = Tensor::cat(vec![context, database.context(&found, model.device())?], 1);
    }
    let run = model.embeddings(context)?;
    let drawn = sampling.apply(&model, run)?.run_observed(&mut Bar::new())?;
    sampling.save(&drawn)
}
