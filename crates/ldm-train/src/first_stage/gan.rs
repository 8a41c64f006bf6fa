//! The two players' losses.

use burn::tensor::{DType, Tensor, activation};

use super::DiscLoss;

/// What the discriminator minimises (`hinge_d_loss`, `vanilla_d_loss`): `[1]`, f32.
pub(super) fn discriminator(loss: DiscLoss, real: Tensor<4>, fake: Tensor<4>) -> Tensor<1> {
    let (real, fake) = (real.cast(DType::F32), fake.cast(DType::F32));
    // softplus(x) = -log_sigmoid(-x), which overflows nowhere.
    let sum = match loss {
        DiscLoss::Hinge => activation::relu(1.0 - real).mean() + activation::relu(fake + 1.0).mean(),
        DiscLoss::Vanilla => -activation::log_sigmoid(real).mean() - activation::log_sigmoid(-fake).mean(),
    };
    sum * 0.5
}

/// What the generator minimises: `[1]`, f32.
pub(super) fn generator(fake: Tensor<4>) -> Tensor<1> {
    -fake.cast(DType::F32).mean()
}
