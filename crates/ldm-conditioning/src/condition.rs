use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::ConditioningError;

/// A batch of conditions `y`, as they come from a data set or a user, before tau_theta.
#[derive(Debug, Clone)]
pub enum Condition {
    /// Nothing: an unconditional model.
    None,
    /// A class for each item.
    Classes(Vec<i64>),
    /// A text for each item.
    Text(Vec<String>),
    /// Token ids `[b, m]`: texts already tokenized, layouts.
    Tokens(Tensor<2, Int>),
    /// A picture in [-1, 1] or a map, `[b, c, h, w]` in pixels.
    Image(Tensor<4>),
    /// What a first stage made of a picture, `[b, c, h, w]` in latent pixels.
    Latent(Tensor<4>),
    /// Vectors that need no encoder, `[b, m, d]`: neighbours' embeddings.
    Context(Tensor<3>),
    /// One vector an item that needs no encoder, `[b, d]`.
    Vector(Tensor<2>),
    /// Two conditions at once (the reference's `hybrid`).
    Both(Box<Condition>, Box<Condition>),
}

impl Condition {
    /// Two conditions at once.
    pub fn both(first: Self, second: Self) -> Self {
        Self::Both(Box::new(first), Box::new(second))
    }

    /// What kind of condition it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Classes(_) => "classes",
            Self::Text(_) => "texts",
            Self::Tokens(_) => "tokens",
            Self::Image(_) => "pictures",
            Self::Latent(_) => "latents",
            Self::Context(_) => "a context",
            Self::Vector(_) => "vectors",
            Self::Both(..) => "two conditions",
        }
    }

    /// The number of items; `None` for [`Condition::None`].
    pub fn batch(&self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Classes(classes) => Some(classes.len()),
            Self::Text(texts) => Some(texts.len()),
            Self::Tokens(tokens) => Some(tokens.dims()[0]),
            Self::Image(x) | Self::Latent(x) => Some(x.dims()[0]),
            Self::Context(x) => Some(x.dims()[0]),
            Self::Vector(x) => Some(x.dims()[0]),
            Self::Both(first, second) => first.batch().or(second.batch()),
        }
    }

    /// The items with these numbers, in this order; a number may come several times.
    ///
    /// # Errors
    /// [`ConditioningError::Item`] for a number beyond the batch.
    pub fn select(&self, items: &[usize]) -> Result<Self, ConditioningError> {
        let count = self.batch().unwrap_or(usize::MAX);
        if let Some(item) = items.iter().find(|item| **item >= count) {
            return Err(ConditioningError::Item { item: *item, items: count });
        }
        let index = |device: &Device| {
            let items: Vec<i64> = items.iter().map(|item| *item as i64).collect();
            let n = items.len();
            Tensor::<1, Int>::from_data(TensorData::new(items, [n]), device)
        };
        Ok(match self {
            Self::None => Self::None,
            Self::Classes(classes) => Self::Classes(items.iter().map(|i| classes[*i]).collect()),
            Self::Text(texts) => Self::Text(items.iter().map(|i| texts[*i].clone()).collect()),
            Self::Tokens(x) => Self::Tokens(x.clone().select(0, index(&x.device()))),
            Self::Image(x) => Self::Image(x.clone().select(0, index(&x.device()))),
            Self::Latent(x) => Self::Latent(x.clone().select(0, index(&x.device()))),
            Self::Context(x) => Self::Context(x.clone().select(0, index(&x.device()))),
            Self::Vector(x) => Self::Vector(x.clone().select(0, index(&x.device()))),
            Self::Both(first, second) => Self::both(first.select(items)?, second.select(items)?),
        })
    }
}
