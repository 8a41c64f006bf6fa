use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Error, SamplerKind};

/// A scheduler_config.json, kept whole.
///
/// Nothing is read until a [`crate::Scheduler`] is built from it, because what an absent key means
/// depends on the class that reads it. So `--sampler X` is the model's own config read by X, as
/// diffusers' `X.from_config` does; keys that X doesn't know are ignored, and kept for the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchedulerConfig {
    values: Map<String, Value>,
}

impl SchedulerConfig {
    /// Reads the text of a scheduler_config.json.
    ///
    /// Python writes infinities as bare words, which JSON has not; they are accepted.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        Ok(serde_json::from_str(&quote_infinities(text))?)
    }

    /// The text of a scheduler_config.json that diffusers reads.
    pub fn to_json(&self) -> String {
        let text = format!("{:#}\n", Value::Object(self.values.clone()));
        ["-Infinity", "Infinity", "NaN"]
            .iter()
            .fold(text, |text, word| text.replace(&format!(": \"{word}\""), &format!(": {word}")))
    }

    /// The config that stands for the schedule of a CompVis YAML file (`linear_start`, `linear_end`,
    /// `timesteps`, `beta_schedule`).
    ///
    /// CompVis' "linear" is diffusers' "scaled_linear", its "sqrt_linear" is "linear", its "cosine"
    /// is "squaredcos_cap_v2" (ldm/modules/diffusionmodules/util.py). The rest is what CompVis' samplers
    /// do: no clipping, the first alpha-bar at the end, and timesteps that start at 1
    /// (`timestep_spacing` "compvis": `range(0, T, T // S) + 1`, which may give more than S steps; DDIM and
    /// PNDM know this word of ours, the others take their default).
    pub fn compvis(
        beta_schedule: &str,
        linear_start: f64,
        linear_end: f64,
        timesteps: usize,
    ) -> Result<Self, Error> {
        let beta_schedule = match beta_schedule {
            "linear" => "scaled_linear",
            "sqrt_linear" => "linear",
            "cosine" => "squaredcos_cap_v2",
            _ => {
                return Err(Error::Value {
                    key: "beta_schedule",
                    value: json!(beta_schedule).to_string(),
                    expected: "\"linear\", \"sqrt_linear\" or \"cosine\"".into(),
                });
            }
        };
        Ok(Self::default()
            .with("_class_name", "DDIMScheduler")
            .with("beta_schedule", beta_schedule)
            .with("beta_start", linear_start)
            .with("beta_end", linear_end)
            .with("num_train_timesteps", timesteps)
            .with("clip_sample", false)
            .with("set_alpha_to_one", false)
            .with("skip_prk_steps", true)
            .with("steps_offset", 1)
            .with("timestep_spacing", "compvis"))
    }

    /// What diffusers' Stable Diffusion 1 and 2 pipelines make of outdated configs when they are built:
    /// `steps_offset` 1 and `clip_sample` false, whatever the file says. Where the file says nothing they
    /// change the defaults of the model's own class, and a sampler chosen later keeps its own.
    /// (SDXL's pipelines don't.)
    pub fn for_stable_diffusion(self, sampler: SamplerKind) -> Self {
        self.mended(sampler, [("steps_offset", json!(1)), ("clip_sample", json!(false))])
    }

    /// What their pipelines for inpainting make of them, in the same way: `steps_offset` 1 and `skip_prk_steps` true.
    pub fn for_stable_diffusion_inpainting(self, sampler: SamplerKind) -> Self {
        self.mended(sampler, [("steps_offset", json!(1)), ("skip_prk_steps", json!(true))])
    }

    fn mended(self, sampler: SamplerKind, values: [(&'static str, Value); 2]) -> Self {
        let own = self.kind().is_ok_and(|kind| kind.class_name() == sampler.class_name());
        values
            .into_iter()
            .filter(|(key, _)| own || self.chosen(key).is_some())
            .collect::<Vec<_>>()
            .into_iter()
            .fold(self, |config, (key, value)| config.with(key, value))
    }

    /// The same config in words that diffusers has: where it says CompVis' own timesteps, those that start at 1 (`leading`
    /// with `steps_offset` 1), which are the same where the steps divide the schedule.
    pub fn for_diffusers(self) -> Self {
        if self.get("timestep_spacing").is_some_and(|spacing| spacing == "compvis") {
            return self.with("timestep_spacing", "leading").with("steps_offset", 1);
        }
        self
    }

    /// The same config with `key` set.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.values.insert(key.into(), value.into());
        self
    }

    /// The value under `key`, as it stands in the file.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The sampler that `_class_name` names.
    pub fn kind(&self) -> Result<SamplerKind, Error> {
        match self.get("_class_name") {
            Some(Value::String(name)) => name.parse(),
            _ => Err(Error::MissingClass),
        }
    }

    /// The same config for another sampler: its class, and what its name fixes
    /// (`dpmpp_2m_karras` sets `use_karras_sigmas`).
    pub fn for_kind(&self, kind: SamplerKind) -> Self {
        let named = self.clone().with("_class_name", kind.class_name());
        kind.overrides().into_iter().fold(named, |config, (key, value)| config.with(key, value))
    }

    // Typed reads. An absent key takes the default of the class that asks; so does a key that diffusers
    // lists as "not chosen, was the default of the class that wrote the file".

    fn chosen(&self, key: &str) -> Option<&Value> {
        let defaults = self.values.get("_use_default_values").and_then(Value::as_array);
        let chosen = !defaults.is_some_and(|keys| keys.iter().any(|k| k == key));
        self.values.get(key).filter(|_| chosen)
    }

    pub(crate) fn flag(&self, key: &'static str, default: bool) -> Result<bool, Error> {
        match self.chosen(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false), // None is false in Python
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(wrong(key, value, "true or false")),
        }
    }

    pub(crate) fn count(&self, key: &'static str, default: usize) -> Result<usize, Error> {
        let Some(value) = self.chosen(key) else { return Ok(default) };
        // Far beyond any schedule, and small enough to allocate.
        let count = value.as_u64().filter(|n| *n <= 1_000_000);
        count.map(|n| n as usize).ok_or_else(|| wrong(key, value, "a whole number up to 1000000"))
    }

    pub(crate) fn number(&self, key: &'static str, default: f64) -> Result<f64, Error> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    pub(crate) fn optional_number(&self, key: &'static str) -> Result<Option<f64>, Error> {
        match self.chosen(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(word)) if word == "-Infinity" => Ok(Some(f64::NEG_INFINITY)),
            Some(Value::String(word)) if word == "Infinity" => Ok(Some(f64::INFINITY)),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| wrong(key, value, "a number")),
        }
    }

    pub(crate) fn numbers(&self, key: &'static str) -> Result<Option<Vec<f64>>, Error> {
        let Some(value) = self.chosen(key).filter(|v| !v.is_null()) else { return Ok(None) };
        let numbers = value.as_array().and_then(|a| a.iter().map(Value::as_f64).collect());
        numbers.map(Some).ok_or_else(|| wrong(key, value, "a list of numbers"))
    }

    pub(crate) fn choice<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&str, T)],
        default: T,
    ) -> Result<T, Error> {
        let Some(value) = self.chosen(key) else { return Ok(default) };
        let choice = choices.iter().find(|(name, _)| value == name);
        choice.map(|c| c.1).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            wrong(key, value, &format!("one of {}", names.join(", ")))
        })
    }

    /// An error if a feature that is not supported here is switched on.
    pub(crate) fn must_be_off(&self, key: &'static str) -> Result<(), Error> {
        match self.chosen(key) {
            None | Some(Value::Null | Value::Bool(false)) => Ok(()),
            Some(value) => Err(wrong(key, value, "it to be off: this is not supported")),
        }
    }
}

impl From<Map<String, Value>> for SchedulerConfig {
    fn from(values: Map<String, Value>) -> Self {
        Self { values }
    }
}

pub(crate) fn wrong(key: &'static str, value: &Value, expected: &str) -> Error {
    Error::Value { key, value: value.to_string(), expected: expected.into() }
}

/// Puts `Infinity`, `-Infinity` and `NaN` in quotes where they stand outside a string.
fn quote_infinities(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| !in_string && rest.starts_with(w));
        let taken = match (word, c) {
            (Some(word), _) => {
                quoted.extend(["\"", word, "\""]);
                rest = &rest[word.len()..];
                continue;
            }
            (None, '\\') if in_string => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            _ => c.len_utf8(),
        };
        in_string ^= c == '"';
        quoted.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SamplerOptions, Scheduler};

    #[test]
    fn infinities_survive_a_round_trip() {
        let text = r#"{"a": "x \" -Infinity", "lambda_min_clipped": -Infinity}"#;
        let config = SchedulerConfig::from_json(text).unwrap();
        assert_eq!(config.number("lambda_min_clipped", 0.0).unwrap(), f64::NEG_INFINITY);
        assert_eq!(config.get("a").unwrap(), "x \" -Infinity");
        assert!(config.to_json().contains(r#""lambda_min_clipped": -Infinity"#));
        assert_eq!(SchedulerConfig::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn wrong_values_are_named() {
        let config = SchedulerConfig::from_json(r#"{"clip_sample": 3, "solver_order": -1}"#).unwrap();
        let flag = config.flag("clip_sample", true).unwrap_err().to_string();
        assert_eq!(flag, "scheduler config: `clip_sample` is 3, expected true or false");
        assert!(config.count("solver_order", 2).unwrap_err().to_string().contains("`solver_order` is -1"));
        assert!(matches!(SchedulerConfig::from_json("[]"), Err(Error::Json(_))));
        assert!(matches!(SchedulerConfig::from_json("{"), Err(Error::Json(_))));
        assert!(matches!(config.kind(), Err(Error::MissingClass)));
    }

    /// Whatever offset the file has: CompVis' own timesteps go by none.
    #[test]
    fn diffusers_words_give_the_timesteps_of_compvis() {
        let own = SchedulerConfig::compvis("linear", 0.0015, 0.0195, 1000).unwrap();
        let mut unsaid = own.clone();
        unsaid.values.remove("steps_offset").unwrap();
        let timesteps = |kind, config: &SchedulerConfig, steps: usize| {
            let scheduler = Scheduler::from_config(kind, config).unwrap();
            scheduler.sampler::<4>(SamplerOptions::steps(steps)).unwrap().timesteps().to_vec()
        };
        for own in [own.clone(), own.with("steps_offset", 0), unsaid] {
            let theirs = own.clone().for_diffusers();
            for kind in [SamplerKind::Ddim, SamplerKind::Pndm] {
                for steps in [20, 25, 50] {
                    let found = timesteps(kind, &theirs, steps);
                    assert_eq!(found, timesteps(kind, &own, steps), "{kind:?}, {steps} steps");
                    assert_eq!(found.last(), Some(&1.0));
                }
            }
        }
    }

    #[test]
    fn defaults_of_the_writing_class_are_not_choices() {
        let text = r#"{"clip_sample": false, "_use_default_values": ["clip_sample"]}"#;
        assert!(SchedulerConfig::from_json(text).unwrap().flag("clip_sample", true).unwrap());
    }
}
