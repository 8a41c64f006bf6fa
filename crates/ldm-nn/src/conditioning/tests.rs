use burn::tensor::{Device, Tensor};

use super::{Conditioning, ConditioningMismatch};

fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::zeros(shape, &Device::default())
}

/// Item `i` of the context holds the number `i`.
fn numbered(b: usize) -> Conditioning {
    let values: Vec<f32> = (0..b).map(|i| i as f32).collect();
    let context = Tensor::<1>::from_floats(values.as_slice(), &Device::default()).reshape([b, 1, 1]);
    Conditioning::context(context).with_class_labels((0..b as i64).collect::<Vec<_>>())
}

fn numbers(conditioning: &Conditioning) -> (Vec<f32>, Vec<i64>) {
    let context = conditioning.context.clone().expect("a context").into_data();
    (context.try_to_vec().expect("f32"), conditioning.class_labels.clone().expect("labels"))
}

#[test]
fn all_parts_have_one_batch() {
    assert_eq!(Conditioning::none().batch(), Ok(None));
    assert!(Conditioning::none().is_none() && !numbered(1).is_none());
    assert_eq!(numbered(3).with_y(zeros([3, 2])).batch(), Ok(Some(3)));
    let error = numbered(3).with_concat(zeros([2, 1, 4, 4])).batch().expect_err("an error");
    let expected = ConditioningMismatch::Batch { part: "concat", got: 2, other: "context", expected: 3 };
    assert_eq!(error, expected);
    assert_eq!(error.to_string(), "`concat` has 2 items, `context` has 3");
}

#[test]
fn items_are_selected_repeated_and_joined() {
    let picked = numbered(3).select(&[2, 0, 2]).expect("items");
    assert_eq!(numbers(&picked), (vec![2.0, 0.0, 2.0], vec![2, 0, 2]));
    let twice = numbered(2).repeat_items(2).expect("items");
    assert_eq!(numbers(&twice), (vec![0.0, 0.0, 1.0, 1.0], vec![0, 0, 1, 1]));
    let joined = Conditioning::cat(&[picked, twice]).expect("alike");
    assert_eq!(numbers(&joined).1, [2, 0, 2, 0, 0, 1, 1]);
    let error = numbered(3).select(&[3]).expect_err("an error");
    assert_eq!(error, ConditioningMismatch::Item { item: 3, items: 3 });
}

#[test]
fn what_differs_can_not_be_joined() {
    let cat = |a, b| Conditioning::cat(&[a, b]).expect_err("an error");
    let labels = numbered(1);
    let none = Conditioning { class_labels: None, ..numbered(1) };
    assert_eq!(cat(labels.clone(), none.clone()), ConditioningMismatch::Partial { part: "class_labels" });
    let other = Conditioning::none().with_class_labels([0]);
    assert_eq!(cat(labels.clone(), other), ConditioningMismatch::Partial { part: "context" });
    let longer = Conditioning::context(zeros([1, 2, 1]));
    let shape = ConditioningMismatch::Shape { part: "context", expected: vec![1, 1], got: vec![2, 1] };
    assert_eq!(cat(none, longer), shape);
}

#[test]
fn hybrid_is_two_conditionings_in_one() {
    let merged = numbered(2).merge(Conditioning::concat(zeros([2, 3, 4, 4]))).expect("both");
    assert!(merged.context.is_some() && merged.concat.is_some());
    let twice = merged.clone().merge(Conditioning::concat(zeros([2, 3, 4, 4]))).expect_err("an error");
    assert_eq!(twice, ConditioningMismatch::Twice { part: "concat" });
    let batch = numbered(2).merge(Conditioning::concat(zeros([1, 3, 4, 4]))).expect_err("an error");
    assert!(matches!(batch, ConditioningMismatch::Batch { part: "concat", got: 1, .. }));
}

#[test]
fn zeros_leave_labels_and_sizes() {
    let ones = Conditioning::context(zeros([1, 2, 3]) + 1.0)
        .with_class_labels([5])
        .with_text_time(zeros([1, 4]) + 1.0, zeros([1, 6]) + 1.0);
    let zeroed = ones.zeros_like();
    let sum = |x: Tensor<2>| x.sum().into_scalar::<f32>();
    assert_eq!(zeroed.context.expect("a context").sum().into_scalar::<f32>(), 0.0);
    assert_eq!(sum(zeroed.text_embeds.expect("a vector")), 0.0);
    assert_eq!(sum(zeroed.time_ids.expect("sizes")), 6.0);
    assert_eq!(zeroed.class_labels, Some(vec![5]));
}
