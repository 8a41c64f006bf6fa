//! Conditions that stand for none, and their place in a batch.

use burn::tensor::kind::Basic;
use burn::tensor::{Bool, Tensor, TensorData};
use ldm_conditioning::Condition;

/// Empty texts, zeros; `None` where a condition's kind has nothing that stands for none.
pub(super) fn null(given: &Condition) -> Option<Condition> {
    Some(match given {
        Condition::Text(texts) => Condition::Text(vec![String::new(); texts.len()]),
        Condition::Image(x) => Condition::Image(x.zeros_like()),
        Condition::Latent(x) => Condition::Latent(x.zeros_like()),
        Condition::Context(x) => Condition::Context(x.zeros_like()),
        Condition::Vector(x) => Condition::Vector(x.zeros_like()),
        Condition::Both(first, second) => Condition::both(null(first)?, null(second)?),
        Condition::None | Condition::Classes(_) | Condition::Tokens(_) => return None,
    })
}

/// `given`, with the dropped items from `null`; `None` where they differ in kind, number or shape.
pub(crate) fn replaced(given: Condition, null: &Condition, drop: &[bool]) -> Option<Condition> {
    if !drop.contains(&true) {
        return Some(given);
    }
    Some(match (given, null) {
        (Condition::Text(given), Condition::Text(null)) => Condition::Text(list(given, null, drop)?),
        (Condition::Classes(given), Condition::Classes(null)) => Condition::Classes(list(given, null, drop)?),
        (Condition::Tokens(given), Condition::Tokens(null)) => Condition::Tokens(tensor(given, null, drop)?),
        (Condition::Image(given), Condition::Image(null)) => Condition::Image(tensor(given, null, drop)?),
        (Condition::Latent(given), Condition::Latent(null)) => Condition::Latent(tensor(given, null, drop)?),
        (Condition::Context(given), Condition::Context(null)) => {
            Condition::Context(tensor(given, null, drop)?)
        }
        (Condition::Vector(given), Condition::Vector(null)) => Condition::Vector(tensor(given, null, drop)?),
        (Condition::Both(first, second), Condition::Both(no_first, no_second)) => {
            Condition::both(replaced(*first, no_first, drop)?, replaced(*second, no_second, drop)?)
        }
        _ => return None,
    })
}

fn list<T: Clone>(given: Vec<T>, null: &[T], drop: &[bool]) -> Option<Vec<T>> {
    if given.len() != null.len() || given.len() != drop.len() {
        return None;
    }
    let each = given.into_iter().zip(null).zip(drop);
    Some(each.map(|((given, null), drop)| if *drop { null.clone() } else { given }).collect())
}

fn tensor<const D: usize, K: Basic>(
    given: Tensor<D, K>,
    null: &Tensor<D, K>,
    drop: &[bool],
) -> Option<Tensor<D, K>> {
    let shape = given.dims();
    if shape != null.dims() || shape[0] != drop.len() {
        return None;
    }
    let mut each = [1; D];
    each[0] = drop.len();
    let mask = Tensor::<D, Bool>::from_data(TensorData::new(drop.to_vec(), each), &given.device());
    Some(given.mask_where(mask.expand(shape), null.clone()))
}
