//! A picture with objects in given boxes.
//!
//! ```sh
//! cargo run --release --example layout_to_image -- --model model.ckpt --object 3,0.1,0.2,0.5,0.4 --object 17,0.55,0.5,0.4,0.45
//! ```

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::Result;
use common::latent::{LatentModelArgs, LatentSamplingArgs};
use common::progress::Bar;
use ldm::conditioning::{BoundingBox, Layout, LayoutObject, LayoutTokenizer};

/// A picture with objects in given boxes.
#[derive(Parser)]
#[command(name = "layout_to_image")]
struct Arguments {
    #[command(flatten)]
    model: LatentModelArgs,
    #[command(flatten)]
    sampling: LatentSamplingArgs,
    /// Class, left and upper edge, width and height of an object, as parts of the picture
    #[arg(long = "object", required = true, num_args = 1.., value_parser = object)]
    objects: Vec<LayoutObject>,
    /// Classes that the model was trained with
    #[arg(long, default_value_t = 601)]
    classes: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let sampling = &arguments.sampling;
    sampling.output.check()?;
    let model = arguments.model.load("layout2img-openimages256")?;
    let layouts = [Layout::new(arguments.objects.clone())];
    let tokenizer = LayoutTokenizer::new(arguments.classes);
    let size = sampling.latent_size(&model)?.unwrap_or_else(|| model.latent_size());
    let run = match &model.patches {
        // Each patch is told which part of the layout it shows.
        Some(_) => model.layouts_in_patches(&layouts, &tokenizer, size)?,
        None => model.layouts(&layouts, &tokenizer)?,
    };
    let drawn = sampling.apply(&model, run)?.run_observed(&mut Bar::new())?;
    sampling.save(&drawn)
}

/// `class,x,y,width,height`.
fn object(text: &str) -> std::result::Result<LayoutObject, String> {
    let (class, bbox) = text.split_once(',').ok_or("class,x,y,width,height")?;
    let class = class.parse().map_err(|e| format!("class `{class}`: {e}"))?;
    let numbers: std::result::Result<Vec<f64>, _> = bbox.split(',').map(str::parse).collect();
    match numbers.map_err(|e| format!("`{bbox}`: {e}"))?.as_slice() {
        [x, y, width, height] => Ok(LayoutObject::new(class, BoundingBox::new(*x, *y, *width, *height))),
        other => Err(format!("{} numbers after the class instead of 4", other.len())),
    }
}
