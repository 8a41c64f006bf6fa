//! How good drawn pictures are, against real ones: figures over two folders.
//!
//! ```sh
//! cargo run --release --example evaluate -- --drawn samples --real photographs \
//!     --inception pt_inception-2015-12-05-6726825d.pth --lpips vgg_lpips.safetensors
//! ```

mod common;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::Device;
use clap::Parser;
use common::model::DeviceArgs;
use common::progress::spinner;
use common::{Result, output::check_folder};
use ldm_train::Lpips;
use ldm_train::data::{DataConfig, Order};
use ldm_train::metrics::{
    ClipModel, FeatureSet, Inception, Splits, Statistics, StatisticsKind, frechet_distance, inception_score,
    pairs_in, pictures_in, precision_recall, psnr, read_picture, ssim,
};

/// Prints PSNR, SSIM and LPIPS of pictures with the same name, and FID, sFID, Inception Score, precision and recall of
/// the two sets, and the CLIP score of drawn pictures and their captions.
#[derive(Parser)]
#[command(name = "evaluate")]
struct Arguments {
    /// The folder of drawn pictures (or reconstructions)
    #[arg(long, value_name = "DIR")]
    drawn: PathBuf,
    /// The folder of real pictures, or their statistics: an .npz of pytorch-fid or guided-diffusion
    #[arg(long, value_name = "DIR|NPZ")]
    real: PathBuf,
    /// Inception's weights, for FID, sFID, Inception Score, precision and recall: pytorch-fid's
    /// pt_inception-2015-12-05-6726825d.pth
    #[arg(long, value_name = "FILE")]
    inception: Option<PathBuf>,
    /// The weights of LPIPS: VGG16's and the linear layers'
    #[arg(long, value_name = "FILE")]
    lpips: Option<PathBuf>,
    /// The linear layers of LPIPS, where --lpips has torchvision's VGG16 alone
    #[arg(long, value_name = "FILE", requires = "lpips")]
    lpips_linear: Option<PathBuf>,
    /// A directory of transformers' CLIPModel, for the CLIP score of the drawn pictures and their captions
    /// (metadata.jsonl, or a .txt beside each)
    #[arg(long, value_name = "DIR")]
    clip: Option<PathBuf>,
    /// Parts that the Inception Score is taken of (torch-fidelity: 10)
    #[arg(long, default_value_t = 10)]
    splits: usize,
    /// Neighbours of precision and recall
    #[arg(long, default_value_t = 3)]
    neighbours: usize,
    /// Pictures that Inception sees at once
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Write the real pictures' statistics, to be given as --real next time
    #[arg(long, value_name = "NPZ", requires = "inception")]
    save_statistics: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(path) = &arguments.save_statistics {
        check_folder(path, "--save-statistics")?;
    }
    pictures_in(&arguments.drawn)?;
    match (arguments.real.is_dir(), arguments.real.is_file()) {
        (true, _) => drop(pictures_in(&arguments.real)?),
        (false, true) => {}
        (false, false) => {
            return Err(
                format!("--real {}: there is no such folder or file", arguments.real.display()).into()
            );
        }
    }
    let (device, _) = arguments.device.open()?;
    let mut table = Table::new();
    pixels(arguments, &device, &mut table)?;
    match &arguments.inception {
        Some(weights) => features(arguments, weights, &device, &mut table)?,
        None => ["FID", "sFID", "Inception Score", "precision", "recall"]
            .iter()
            .for_each(|figure| table.missing(figure, "needs --inception FILE")),
    }
    match &arguments.clip {
        Some(directory) => clip(arguments, directory, &device, &mut table),
        None => {
            table.missing("CLIP score", "needs --clip DIR");
            Ok(())
        }
    }
}

/// How well the drawn pictures fit their captions.
fn clip(arguments: &Arguments, directory: &Path, device: &Device, table: &mut Table) -> Result<()> {
    let model = ClipModel::from_directory(directory, device)?;
    let (mut files, mut captions) = (vec![], vec![]);
    for item in DataConfig::new(&arguments.drawn).open()?.epoch(Order::Listed) {
        let item = item?;
        if !item.caption.is_empty() {
            files.push(item.picture.file.to_path_buf());
            captions.push(item.caption);
        }
    }
    if files.is_empty() {
        let folder = arguments.drawn.display();
        return Err(
            format!("{folder}: no captions (metadata.jsonl, or a .txt beside each) for --clip").into()
        );
    }
    let bar = spinner("");
    let told = |n| bar.set_message(format!("CLIP: {n} of {}", files.len()));
    let scores = model.scores(&files, &captions, arguments.batch, told)?;
    bar.finish_and_clear();
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    table.value("CLIP score", mean.max(0.0), &format!("{} pictures with captions", scores.len()));
    Ok(())
}

/// The figures of pictures that are each other's counterparts.
fn pixels(arguments: &Arguments, device: &Device, table: &mut Table) -> Result<()> {
    const FIGURES: [&str; 3] = ["PSNR (dB)", "SSIM", "LPIPS"];
    let pairs = match arguments.real.is_dir() {
        true => pairs_in(&arguments.drawn, &arguments.real),
        false => Ok(vec![]),
    };
    let pairs = match pairs {
        Ok(pairs) if !pairs.is_empty() => pairs,
        Ok(_) => {
            FIGURES.iter().for_each(|figure| table.missing(figure, "needs a folder of real pictures"));
            return Ok(());
        }
        // Two sets without counterparts are nothing wrong, unless LPIPS was asked for.
        Err(e) if arguments.lpips.is_some() => return Err(e.into()),
        Err(e) => {
            FIGURES.iter().for_each(|figure| table.missing(figure, &format!("needs pairs: {e}")));
            return Ok(());
        }
    };
    let lpips = match &arguments.lpips {
        Some(path) => Some(Lpips::load(path, arguments.lpips_linear.as_deref(), device)?),
        None => None,
    };
    let bar = spinner("comparing pictures");
    let mut values: [Vec<f64>; 3] = Default::default();
    for (i, (a, b)) in pairs.iter().enumerate() {
        bar.set_message(format!("comparing pictures: {} of {}", i + 1, pairs.len()));
        let (x, y) = (read_picture(a, device)?, read_picture(b, device)?);
        let both = psnr(x.clone(), y.clone()).and_then(|found| Ok((found, ssim(x.clone(), y.clone())?)));
        match both {
            Ok((of_noise, of_structure)) => {
                values[0].extend(of_noise);
                values[1].extend(of_structure);
            }
            Err(e) => {
                let why = format!("{} and {}: {e}", a.display(), b.display());
                if arguments.lpips.is_some() {
                    return Err(why.into());
                }
                // Names that happen to be alike, as 00000.png is, make no pairs.
                bar.finish_and_clear();
                FIGURES.iter().for_each(|figure| table.missing(figure, &format!("needs pairs: {why}")));
                return Ok(());
            }
        }
        if let Some(lpips) = &lpips {
            values[2].push(lpips.forward(x, y).into_scalar::<f32>().into());
        }
    }
    bar.finish_and_clear();
    for (figure, values) in FIGURES.iter().zip(&values) {
        match values.is_empty() {
            true => table.missing(figure, "needs --lpips FILE"),
            false => table.value(
                figure,
                values.iter().sum::<f64>() / values.len() as f64,
                &format!("{} pairs", values.len()),
            ),
        }
    }
    Ok(())
}

/// The figures of two sets of features.
fn features(arguments: &Arguments, weights: &Path, device: &Device, table: &mut Table) -> Result<()> {
    let inception = Inception::from_file(weights, device)?;
    let extract = |folder: &Path| -> Result<FeatureSet> {
        let files = pictures_in(folder)?;
        let bar = spinner("");
        let told = |n| bar.set_message(format!("{}: {n} of {}", folder.display(), files.len()));
        let set = inception.extract(&files, arguments.batch, told)?;
        bar.finish_and_clear();
        Ok(set)
    };
    let drawn = extract(&arguments.drawn)?;
    let n = drawn.pool.rows();
    let given = !arguments.real.is_dir();
    let real = if given { None } else { Some(extract(&arguments.real)?) };

    let kinds =
        [("FID", StatisticsKind::Pool, &drawn.pool), ("sFID", StatisticsKind::Spatial, &drawn.spatial)];
    let mut statistics = vec![];
    for (figure, kind, features) in kinds {
        let theirs = match (&real, kind) {
            (None, kind) => Statistics::read_npz(&arguments.real, kind),
            (Some(real), StatisticsKind::Pool) => Statistics::of(&real.pool),
            (Some(real), StatisticsKind::Spatial) => Statistics::of(&real.spatial),
        };
        match theirs {
            Ok(theirs) => {
                let distance = frechet_distance(&Statistics::of(features)?, &theirs)?;
                table.value(figure, distance, &over(n, real.as_ref()));
                statistics.push((kind, theirs));
            }
            // pytorch-fid's files have no spatial statistics.
            Err(e) if given && kind == StatisticsKind::Spatial => table.missing(figure, &e.to_string()),
            Err(e) => return Err(e.into()),
        }
    }
    // Parts of all classes, as torch-fidelity takes them, and not of the files' order.
    match inception_score(&drawn.logits.shuffled(0), Splits::Count(arguments.splits)) {
        Ok(score) => {
            table.value("Inception Score", score.mean, &format!("{n} pictures, deviation {:.4}", score.std))
        }
        Err(e) => table.missing("Inception Score", &e.to_string()),
    }
    match &real {
        None => {
            ["precision", "recall"].iter().for_each(|f| table.missing(f, "needs a folder of real pictures"))
        }
        Some(real) => match precision_recall(&drawn.pool, &real.pool, arguments.neighbours) {
            Ok(found) => {
                let over = over(n, Some(real));
                table.value("precision", found.precision, &over);
                table.value("recall", found.recall, &over);
            }
            Err(e) => ["precision", "recall"].iter().for_each(|f| table.missing(f, &e.to_string())),
        },
    }
    if let Some(path) = &arguments.save_statistics {
        let all: Vec<_> = statistics.iter().map(|(kind, statistics)| (*kind, statistics)).collect();
        Statistics::write_npz(path, &all)?;
        println!("{}", path.display());
    }
    Ok(())
}

fn over(drawn: usize, real: Option<&FeatureSet>) -> String {
    match real {
        Some(real) => format!("{drawn} and {} pictures", real.pool.rows()),
        None => format!("{drawn} pictures and given statistics"),
    }
}

/// Rows of figures, printed as they come.
struct Table;

impl Table {
    fn new() -> Self {
        println!("{:<16} {:>12}  over", "figure", "value");
        Self
    }

    fn value(&mut self, figure: &str, value: f64, over: &str) {
        match value.abs() {
            small if small > 0.0 && small < 0.01 => println!("{figure:<16} {value:>12.3e}  {over}"),
            _ => println!("{figure:<16} {value:>12.4}  {over}"),
        }
    }

    fn missing(&mut self, figure: &str, why: &str) {
        println!("{figure:<16} {:>12}  {why}", "-");
    }
}
