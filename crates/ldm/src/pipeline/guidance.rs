use burn::tensor::Tensor;

/// Classifier-free guidance: away from the unconditional prediction, towards the conditional one.
///
/// Source: Ho and Salimans 2022, equation 6; the rescale is Lin et al. 2023, section 3.4.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// `s` in `u + s (c - u)`; at 1 or below the unconditional prediction isn't computed.
    pub scale: f64,
    /// How much of the result gets the conditional prediction's standard deviation back: 0 none, 1 all.
    pub rescale: f64,
}

impl Guidance {
    /// Guidance of this scale, without rescaling.
    pub fn new(scale: f64) -> Self {
        Self { scale, rescale: 0.0 }
    }

    /// Whether two predictions are needed.
    pub fn is_active(&self) -> bool {
        self.scale > 1.0
    }

    /// Joins the two predictions, each `[b, c, h, w]`.
    pub fn apply(&self, unconditional: Tensor<4>, conditional: Tensor<4>) -> Tensor<4> {
        let guided = unconditional.clone() + (conditional.clone() - unconditional) * self.scale;
        if self.rescale <= 0.0 {
            return guided;
        }
        let rescaled = guided.clone() * (std(conditional) / std(guided.clone()));
        rescaled * self.rescale + guided * (1.0 - self.rescale)
    }
}

/// The unbiased standard deviation of each item, `[b, 1, 1, 1]`.
fn std(x: Tensor<4>) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c * h * w]).var(1).sqrt().reshape([b, 1, 1, 1])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn tensor(values: [f32; 4]) -> Tensor<4> {
        Tensor::<1>::from_floats(values, &Device::default()).reshape([1, 1, 2, 2])
    }

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn it_extrapolates_from_unconditional_to_conditional() {
        let guided = Guidance::new(7.5).apply(tensor([0.0, 1.0, 2.0, 3.0]), tensor([1.0, 1.0, 1.0, 5.0]));
        assert_eq!(values(guided), [7.5, 1.0, -5.5, 18.0]);
    }

    #[test]
    fn a_full_rescale_restores_the_conditional_deviation() {
        let conditional = tensor([1.0, -1.0, 0.5, 2.0]);
        let guidance = Guidance { scale: 5.0, rescale: 1.0 };
        let guided = guidance.apply(tensor([0.5, 0.25, -1.0, 0.0]), conditional.clone());
        let (a, b) = (values(std(guided))[0], values(std(conditional))[0]);
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }

    #[test]
    fn scale_one_needs_no_second_prediction() {
        assert!(!Guidance::new(1.0).is_active() && Guidance::new(1.01).is_active());
    }
}
