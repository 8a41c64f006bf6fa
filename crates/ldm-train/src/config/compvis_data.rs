//! The section `data`: ours, or what counts of the reference's own.

use serde::Deserialize;
use serde_json::Value;

use super::compvis::{name_unused, parse};
use super::{DataSection, Target};
use crate::conditions::ConditionConfig;
use crate::data::{Crop, Filter, Transform};

/// The data, and what a `LR_image` of it is.
pub(super) fn read(
    section: &Value,
    unused: &mut Vec<String>,
) -> Result<(DataSection, Option<ConditionConfig>), String> {
    let Some(keys) = section.as_object() else { return Err("`data`: expected keys and values".into()) };
    if !keys.contains_key("target") {
        return Ok((parse("data", section)?, None));
    }
    let target: Target = parse("data", section)?;
    let (mut data, mut small) = (DataSection::default(), None);
    for (key, value) in target.params.as_object().into_iter().flatten() {
        match key.as_str() {
            "batch_size" => data.loader.batch_size = parse("data.params.batch_size", value)?,
            "train" if value.pointer("/params/degradation").is_some_and(Value::is_string) => {
                let made = SmallPictures::read(value, unused)?;
                data.loader.transform = made.transform();
                small = Some(made.condition());
            }
            _ => unused.push(format!("data.params.{key}")),
        }
    }
    unused.push(format!("data.target = {}", target.target));
    Ok((data, small))
}

/// The arguments of the reference's data of pictures and small pictures.
///
/// The reference resizes a crop to `size` by OpenCV's INTER_AREA.
///
/// Source: `ImageNetSR` in `ldm/data/imagenet.py`.
#[derive(Deserialize)]
struct SmallPictures {
    size: usize,
    degradation: String,
    #[serde(default = "four")]
    downscale_f: usize,
    #[serde(default = "half")]
    min_crop_f: f64,
    #[serde(default = "whole")]
    max_crop_f: f64,
    #[serde(default = "yes")]
    random_crop: bool,
}

/// All of its keys.
const KEYS: [&str; 6] = ["size", "degradation", "downscale_f", "min_crop_f", "max_crop_f", "random_crop"];

fn four() -> usize {
    4
}

fn half() -> f64 {
    0.5
}

fn whole() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

impl SmallPictures {
    /// `train`: a class, whose name says nothing here, and its arguments.
    fn read(train: &Value, unused: &mut Vec<String>) -> Result<Self, String> {
        for (place, section, used) in [
            ("data.params.train", train, &["target", "params"][..]),
            ("data.params.train.params", &train["params"], &KEYS[..]),
        ] {
            if let Some(keys) = section.as_object() {
                name_unused(place, keys, &[used], unused);
            }
        }
        if let Some(class) = train["target"].as_str() {
            unused.push(format!("data.params.train.target = {class}"));
        }
        parse("data.params.train.params", &train["params"])
    }

    fn transform(&self) -> Transform {
        let crop = if self.random_crop { Crop::Random } else { Crop::Center };
        let crop_f = Some([self.min_crop_f, self.max_crop_f]);
        Transform { crop, crop_f, filter: Filter::Area, ..Transform::new(self.size) }
    }

    fn condition(self) -> ConditionConfig {
        let (degradation, factor) = (self.degradation, self.downscale_f);
        match degradation.as_str() {
            "pil_bicubic" => ConditionConfig::LowResolution { factor },
            _ => ConditionConfig::Degraded { degradation, factor },
        }
    }
}
