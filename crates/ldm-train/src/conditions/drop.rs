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

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::{Fixture, assert_close, seeded_input};

    use super::*;

    /// With the numbers and the masks of diffusers' train_instruct_pix2pix.py (tests/reference/objective.py): a text
    /// goes below twice the probability, a picture from one to three times.
    #[test]
    fn conditions_are_dropped_as_diffusers_does() {
        let (device, fixture) = (Device::default(), Fixture::open("objective"));
        let uniform: Vec<f64> = fixture.tensor::<1>("uniform", &device).into_data().iter().collect();
        let text: Vec<bool> = uniform.iter().map(|u| *u < 0.1).collect();
        let image: Vec<bool> = uniform.iter().map(|u| (0.05..0.15).contains(u)).collect();
        let context = seeded_input::<3>("context", [9, 3, 4], &device);
        let no_context = seeded_input::<3>("null", [1, 3, 4], &device).expand([9, 3, 4]);
        let picture = seeded_input::<4>("picture", [9, 2, 2, 2], &device);
        let given = Condition::both(Condition::Context(context), Condition::Image(picture));

        let replace = |given: &Condition, null: &Condition, drop: &[bool]| {
            let Some(Condition::Both(context, picture)) = replaced(given.clone(), null, drop) else {
                panic!()
            };
            let (Condition::Context(context), Condition::Image(picture)) = (*context, *picture) else {
                panic!()
            };
            (context, picture)
        };
        let Some(Condition::Both(_, no_picture)) = null(&given) else { panic!() };
        let none = Condition::both(Condition::Context(no_context), *no_picture);
        let (context, _) = replace(&given, &none, &text);
        assert_close("context", &context, &fixture.tensor("dropped.context", &device), 0.0);
        let (_, picture) = replace(&given, &none, &image);
        assert_close("picture", &picture, &fixture.tensor("dropped.picture", &device), 0.0);

        let classes = |classes: &[i64]| Condition::Classes(classes.to_vec());
        let dropped = replaced(classes(&[3, 4, 5]), &classes(&[9, 9, 9]), &[true, false, true]);
        assert!(matches!(dropped, Some(Condition::Classes(classes)) if classes == [9, 4, 9]));
        // Of another kind, or another number.
        assert!(
            replaced(classes(&[3, 4]), &Condition::Text(vec![String::new(); 2]), &[true, false]).is_none()
        );
        assert!(replaced(classes(&[3, 4]), &classes(&[9]), &[true, false]).is_none());
    }
}
