use std::cmp::Ordering;
use std::collections::BTreeSet;

use burn::tensor::Tensor;

use super::catalogue::values;
use super::{Catalogue, EvaluateError, ModelError};
use crate::data::random::{Purpose, below, rng, shuffle};

/// What is asked: of how many prompts, among how many pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Questions {
    /// Prompts (100).
    pub prompts: usize,
    /// Pictures to choose from: the right one and others (20).
    pub candidates: usize,
    /// What prompts and candidates are drawn from.
    pub seed: u64,
}

impl Default for Questions {
    fn default() -> Self {
        Self { prompts: 100, candidates: 20, seed: 0 }
    }
}

/// One prompt and the pictures to choose from, as places in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The picture that the prompt names.
    pub right: usize,
    /// Others, all different.
    pub others: Vec<usize>,
}

/// How near the model came to the picture that was named.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The prompt.
    pub prompt: String,
    /// The place of the named picture among the candidates, 1 for the nearest.
    pub rank: usize,
    /// The caption of the nearest candidate.
    pub nearest: String,
}

impl Questions {
    /// Draws different prompts out of `asked` (places in the catalogue) and for each its other candidates out of the
    /// whole catalogue. The same seed gives the same questions.
    ///
    /// # Errors
    ///
    /// [`EvaluateError::Questions`] where the data has fewer than are asked.
    pub fn draw(&self, catalogue: &Catalogue, asked: &[usize]) -> Result<Vec<Question>, EvaluateError> {
        if self.prompts > asked.len() {
            let text = format!("{} prompts out of {}", self.prompts, asked.len());
            return Err(EvaluateError::Questions(text));
        }
        if self.candidates == 0 || self.candidates > catalogue.len() {
            let text = format!("{} candidates out of {}", self.candidates, catalogue.len());
            return Err(EvaluateError::Questions(text));
        }
        if let Some(wrong) = asked.iter().find(|i| **i >= catalogue.len()) {
            return Err(EvaluateError::Questions(format!("picture {wrong} of {}", catalogue.len())));
        }
        let mut order = asked.to_vec();
        shuffle(&mut rng(self.seed, Purpose::Questions, 0, 0), &mut order);
        let question = |right: usize| {
            let mut draws = rng(self.seed, Purpose::Questions, 1, right as u64);
            let (mut seen, mut others) = (BTreeSet::from([right]), Vec::new());
            while others.len() + 1 < self.candidates {
                let other = below(&mut draws, catalogue.len());
                if seen.insert(other) {
                    others.push(other);
                }
            }
            Question { right, others }
        };
        Ok(order.into_iter().take(self.prompts).map(question).collect())
    }
}

/// Lets the model draw every question's prompt, `batch` at a time, and looks which candidate is nearest to the drawing.
///
/// `sample`: captions to pictures `[b, 3, h, w]` in [-1, 1], one a caption; `encode`: as the catalogue was encoded.
/// A candidate as near as the right one counts as nearer.
///
/// # Errors
///
/// What the model says; [`EvaluateError::Shape`] where it gives too few pictures, or latents of another size.
pub fn nearest(
    catalogue: &Catalogue,
    questions: &[Question],
    batch: usize,
    mut sample: impl FnMut(&[String]) -> Result<Tensor<4>, ModelError>,
    mut encode: impl FnMut(Tensor<4>) -> Result<Tensor<4>, ModelError>,
) -> Result<Vec<Answer>, EvaluateError> {
    let mut answers = Vec::new();
    for questions in questions.chunks(batch.max(1)) {
        let prompts: Vec<String> =
            questions.iter().map(|question| catalogue.captions()[question.right].clone()).collect();
        let pictures = sample(&prompts).map_err(EvaluateError::Model)?;
        let latents = encode(pictures).map_err(EvaluateError::Model)?;
        let found = latents.dims();
        if found[0] != prompts.len() || found[1..].iter().product::<usize>() != catalogue.size() {
            let expected = vec![prompts.len(), catalogue.size()];
            return Err(EvaluateError::Shape { what: "latents", found: found.to_vec(), expected });
        }
        let latents = values(latents)?;
        for ((question, prompt), latent) in
            questions.iter().zip(prompts).zip(latents.chunks_exact(catalogue.size()))
        {
            answers.push(answer(catalogue, question, prompt, latent));
        }
    }
    Ok(answers)
}

fn answer(catalogue: &Catalogue, question: &Question, prompt: String, latent: &[f32]) -> Answer {
    let right = catalogue.distance(latent, question.right);
    let (mut rank, mut least, mut nearest) = (1, right, question.right);
    for other in &question.others {
        let distance = catalogue.distance(latent, *other);
        // A tie counts against the model, as a NaN does.
        if right.partial_cmp(&distance) != Some(Ordering::Less) {
            rank += 1;
        }
        if distance < least || least.is_nan() {
            (least, nearest) = (distance, *other);
        }
    }
    Answer { prompt, rank, nearest: catalogue.captions()[nearest].clone() }
}

/// The share of answers where the named picture was the nearest, 0 to 1.
pub fn share(answers: &[Answer]) -> f64 {
    answers.iter().filter(|answer| answer.rank == 1).count() as f64 / answers.len().max(1) as f64
}
