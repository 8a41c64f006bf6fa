//! What an item's JSON says of it.

use std::collections::BTreeSet;

use ldm_conditioning::{BoundingBox, LayoutObject};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::DataConfig;

/// The fields that matter, of one JSON object.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub caption: Option<String>,
    pub split: Option<String>,
    pub class: Option<Label>,
    pub objects: Option<Vec<LayoutObject>>,
}

/// A class as the data says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Label {
    Number(i64),
    Name(String),
}

/// Reads the fields; the error says which key is wrong.
pub(super) fn fields(object: &Map<String, Value>, config: &DataConfig) -> Result<Fields, String> {
    let text = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("`{key}` is {other}, expected a string")),
    };
    let split = text("split")?;
    // Items of another split are not taken: they may lack what those of this one have.
    let taken = config.split.is_none() || split == config.split;
    let caption = match &config.caption_key {
        Some(key) if !taken => text(key)?,
        Some(key) => Some(text(key)?.ok_or_else(|| format!("no `{key}`"))?),
        None => text("text")?.map_or_else(|| text("caption"), |caption| Ok(Some(caption)))?,
    };
    let class = match &config.class_key {
        _ if !taken => None,
        None => None,
        Some(key) => Some(match object.get(key) {
            Some(Value::String(name)) => Label::Name(name.clone()),
            Some(Value::Number(n)) if n.is_i64() => Label::Number(n.as_i64().unwrap_or_default()),
            Some(other) => return Err(format!("`{key}` is {other}, expected a class's name or number")),
            None => return Err(format!("no `{key}`")),
        }),
    };
    let objects = match &config.objects_key {
        Some(key) if taken => Some(objects(key, object.get(key).ok_or_else(|| format!("no `{key}`"))?)?),
        _ => None,
    };
    Ok(Fields { caption, split, class, objects })
}

/// One object, as the data says it.
#[derive(Deserialize)]
struct Object {
    class: usize,
    bbox: [f64; 4],
    #[serde(default)]
    is_group_of: bool,
    #[serde(default)]
    is_occluded: bool,
    #[serde(default)]
    is_depiction: bool,
    #[serde(default)]
    is_inside: bool,
}

fn objects(key: &str, value: &Value) -> Result<Vec<LayoutObject>, String> {
    let found: Vec<Object> = serde_path_to_error::deserialize(value).map_err(|e| format!("`{key}`: {e}"))?;
    let object = |found: Object| {
        let Object { class, bbox: [x, y, width, height], is_group_of, is_occluded, is_depiction, is_inside } =
            found;
        let bbox = BoundingBox::new(x, y, width, height);
        LayoutObject { class, bbox, is_group_of, is_occluded, is_depiction, is_inside }
    };
    Ok(found.into_iter().map(object).collect())
}

/// The classes' names, numbered in their order.
#[derive(Debug, Default, Clone)]
pub(super) struct ClassNames(Vec<String>);

impl ClassNames {
    pub fn new<'a>(labels: impl Iterator<Item = Option<&'a Label>>) -> Self {
        let name = |label: &Label| match label {
            Label::Name(name) => Some(name.clone()),
            Label::Number(_) => None,
        };
        Self(labels.flatten().filter_map(name).collect::<BTreeSet<_>>().into_iter().collect())
    }

    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// `None` for a name that wasn't there when the data was opened.
    pub fn number(&self, label: &Label) -> Option<i64> {
        match label {
            Label::Number(n) => Some(*n),
            Label::Name(name) => self.0.binary_search(name).ok().map(|n| n as i64),
        }
    }
}
