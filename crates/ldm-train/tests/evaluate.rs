//! Scores of made models whose answers are known.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "data/made.rs"]
#[allow(dead_code, reason = "shared with the tests of the data")]
mod made;

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor};
use ldm_train::data::{Loader, LoaderConfig};
use ldm_train::evaluate::{
    Catalogue, EvaluateError, ModelError, Questions, mean, nearest, reconstruction, share,
};
use made::{shards, small};

/// 120 pictures of one colour each, as latents of 2x2.
fn catalogue(loader: &Loader) -> Catalogue {
    Catalogue::encode(loader, &Device::default(), encode).unwrap()
}

fn encode(pictures: Tensor<4>) -> Result<Tensor<4>, ModelError> {
    let [b, ..] = pictures.dims();
    Ok(pictures.slice([0..b, 0..3, 0..2, 0..2]))
}

/// The pictures by caption: what a perfect model draws.
fn drawings(loader: &Loader) -> BTreeMap<String, Tensor<4>> {
    let batches = loader.once().unwrap().map(Result::unwrap);
    let each = batches.flat_map(|batch| {
        let pictures = batch.to_tensor(&Device::default()).split(1, 0);
        batch.captions.into_iter().zip(pictures).collect::<Vec<_>>()
    });
    each.collect()
}

#[test]
fn a_model_that_is_right_every_third_time_scores_a_third() {
    let dir = tempfile::tempdir().unwrap();
    let loader = made::loader(&shards(dir.path(), &[120]), small(16));
    let (catalogue, drawings) = (catalogue(&loader), drawings(&loader));
    let asked: Vec<usize> = (0..catalogue.len()).filter(|i| i % 2 == 0).collect();
    let questions = Questions { prompts: 60, candidates: 20, seed: 4 }.draw(&catalogue, &asked).unwrap();

    let perfect =
        |prompts: &[String]| Ok(Tensor::cat(prompts.iter().map(|p| drawings[p].clone()).collect(), 0));
    let answers = nearest(&catalogue, &questions, 7, perfect, encode).unwrap();
    assert_eq!(share(&answers), 1.0);
    assert!(answers.iter().all(|a| a.rank == 1 && a.nearest == a.prompt));

    // Colour n is drawn as its opposite end for two of three prompts.
    let wrong = |prompts: &[String]| {
        let drawn = prompts.iter().map(|prompt| {
            let n: usize = prompt.trim_start_matches("number ").parse().unwrap();
            let right = drawings[prompt].clone();
            if n.is_multiple_of(3) { right } else { -right * 3.0 }
        });
        Ok(Tensor::cat(drawn.collect(), 0))
    };
    let answers = nearest(&catalogue, &questions, 7, wrong, encode).unwrap();
    assert_eq!(share(&answers), 1.0 / 3.0);

    // A model that gives nothing but NaN, or the same for all, is right by chance at best.
    let nan = |prompts: &[String]| Ok(drawings["number 1"].clone().repeat_dim(0, prompts.len()) * f32::NAN);
    assert_eq!(share(&nearest(&catalogue, &questions, 60, nan, encode).unwrap()), 0.0);
    let same = |prompts: &[String]| Ok(drawings["number 1"].clone().repeat_dim(0, prompts.len()));
    assert!(share(&nearest(&catalogue, &questions, 60, same, encode).unwrap()) < 0.2);
}

#[test]
fn questions_are_fixed_by_their_seed() {
    let dir = tempfile::tempdir().unwrap();
    let loader = made::loader(&shards(dir.path(), &[120]), small(16));
    let catalogue = catalogue(&loader);
    let asked: Vec<usize> = (10..90).collect();
    let draw = |seed| Questions { prompts: 50, candidates: 20, seed }.draw(&catalogue, &asked).unwrap();
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let rights: BTreeSet<_> = draw(1).iter().map(|q| q.right).collect();
    assert_eq!(rights.len(), 50);
    assert!(rights.iter().all(|r| asked.contains(r)));
    for question in draw(1) {
        let mut candidates: BTreeSet<_> = question.others.iter().collect();
        candidates.insert(&question.right);
        assert_eq!(candidates.len(), 20);
    }
    for (prompts, candidates, expected) in
        [(81, 20, "81 prompts out of 80"), (5, 121, "121 candidates out of 120")]
    {
        let questions = Questions { prompts, candidates, seed: 0 };
        let error = questions.draw(&catalogue, &asked).unwrap_err().to_string();
        assert_eq!(error, expected);
    }
    let one = Questions { prompts: 1, ..Questions::default() }.draw(&catalogue, &[0]).unwrap();
    let few = |_: &[String]| Ok(Tensor::<4>::zeros([2, 3, 8, 8], &Device::default()));
    assert!(matches!(nearest(&catalogue, &one, 1, few, encode), Err(EvaluateError::Shape { .. })));
}

#[test]
fn reconstruction_is_measured_in_decibels() {
    let dir = tempfile::tempdir().unwrap();
    let loader = made::loader(&shards(dir.path(), &[9]), LoaderConfig { shuffle: true, ..small(4) });
    // An error of 0.02 of a range of 2 everywhere: 40 dB. Towards the middle, so that nothing is clamped.
    let off = |pictures: Tensor<4>| Ok(pictures.clone() - pictures.sign() * 0.02);
    let figures = reconstruction(&loader, &Device::default(), off).unwrap();
    assert_eq!(figures.len(), 9);
    assert_eq!(figures[3].0, "p003");
    assert!((mean(&figures) - 40.0).abs() < 1e-3, "{}", mean(&figures));
}
