use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::super::attention::attend;
use super::super::attention_gradient::{self, Place};
use super::super::bridge;
use super::super::buffer::Buffer;
use super::super::heads::Heads;
use super::super::product::Target;
use super::{Gradient, node, record};

/// See [`crate::attention`]; `None` where the tensors are not f32 on flex under autodiff.
pub fn attention(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> Option<Tensor<4>> {
    let [batch, heads, n, _] = q.dims();
    let [_, _, _, width] = v.dims();
    let nodes = [node(q)?, node(k)?, node(v)?];
    let [q, k, v] = nodes.each_ref().map(|x| Heads::of(x.primitive().clone()));
    let (output, statistics) = attend(&q, &k, &v)?;
    let output = merged(output, [batch, n, heads, width]);
    let statistics = bridge::primitive(statistics, [2, batch * heads, n]);
    let saved = Attention { q, k, v, output: Heads::of(output.clone()), statistics };
    record(nodes.each_ref(), Tensor::<4>::from_primitive::<Flex>(output), saved)
}

#[derive(Debug, Clone)]
struct Attention {
    q: Heads,
    k: Heads,
    v: Heads,
    output: Heads,
    /// `[2, b * heads, n]`, as [`attend`] gives them.
    statistics: FlexTensor,
}

impl Gradient<3> for Attention {
    const VIEWS: bool = true;

    fn gradients(self, output: FlexTensor, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let gradient = Heads::of(output);
        let shapes = [&self.q, &self.k, &self.v].map(|x| {
            let [batch, heads, tokens, width] = x.dims();
            [batch, tokens, heads, width]
        });
        let size = |i: usize| shapes[i].iter().product();
        let mut values: [Option<Buffer>; 3] =
            std::array::from_fn(|i| wanted[i].then(|| Buffer::take(size(i))));
        {
            let mut shape = shapes.iter();
            let targets = values.each_mut().map(|values| {
                let row = shape.next().map_or(0, |[_, _, heads, width]| heads * width);
                values.as_mut().map(|values| Target::new(values, row, 1))
            });
            let [batch, n, heads, _] = shapes[0];
            let (largest, inverses) = bridge::slice(&self.statistics).split_at(batch * heads * n);
            (0..batch * heads).into_par_iter().for_each(|index| {
                let at = [index / heads, index % heads];
                let head = attention_gradient::Attention {
                    q: self.q.head(at),
                    k: self.k.head(at),
                    v: self.v.head(at),
                    output: self.output.head(at),
                    gradient: gradient.head(at),
                    largest: &largest[index * n..][..n],
                    inverses: &inverses[index * n..][..n],
                };
                let place = |i: usize| {
                    let [_, tokens, heads, width] = shapes[i];
                    let start = (at[0] * tokens * heads + at[1]) * width;
                    targets[i].as_ref().map(|target| Place { target, start })
                };
                // SAFETY: this head belongs to this task.
                unsafe { head.gradients([place(0), place(1), place(2)]) };
            });
        }
        let mut shape = shapes.into_iter();
        values.map(|values| {
            let shape = shape.next()?;
            values.map(|values| merged(values, shape))
        })
    }
}

/// `[b, n, heads, width]`, which merging the heads copies nothing of, seen as `[b, heads, n, width]`.
fn merged(values: Buffer, shape: [usize; 4]) -> FlexTensor {
    bridge::primitive(values, shape).permute(&[0, 2, 1, 3])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bool, Device};
    use ldm_test_support::{assert_close, relative_difference, seeded_input};
    use rayon::ThreadPoolBuilder;

    use super::*;
    use crate::attention::plain;

    const TOLERANCE: f64 = 1e-5;
    const NAMES: [&str; 3] = ["q", "k", "v"];

    /// Batch, heads, queries, keys, and the widths of the queries and of the values.
    type Sizes = [usize; 6];
    type Gradients = [Option<Tensor<4>>; 3];

    fn shapes([b, h, n, m, d, width]: Sizes) -> [[usize; 4]; 3] {
        [[b, h, n, d], [b, h, m, d], [b, h, m, width]]
    }

    fn ours(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
        assert!(attention(&q, &k, &v).is_some(), "the kernel takes it");
        crate::attention(q, k, v, None, false)
    }

    fn burns(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
        plain(q, k, v, None)
    }

    /// Output and gradients under a loss that weighs every output differently.
    fn run(
        sizes: Sizes,
        tracked: [bool; 3],
        f: impl Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> (Tensor<4>, Gradients) {
        let device = Device::flex().autodiff();
        let shapes = shapes(sizes);
        let leaves: [Tensor<4>; 3] = std::array::from_fn(|i| {
            let x = seeded_input(NAMES[i], shapes[i], &device) * 2.0;
            if tracked[i] { x.detach().require_grad() } else { x }
        });
        let [q, k, v] = leaves.clone();
        let y = f(q, k, v);
        let weights = seeded_input("loss", y.dims(), &device);
        let gradients = (y.clone() * weights).sum().backward();
        (y.inner(), leaves.map(|x| x.grad(&gradients)))
    }

    fn compare(name: &str, (y, gradients): (Tensor<4>, Gradients), (y2, expected): (Tensor<4>, Gradients)) {
        assert_close(&format!("{name}: output"), &y, &y2, TOLERANCE);
        for ((gradient, expected), of) in gradients.into_iter().zip(expected).zip(NAMES) {
            assert_close(&format!("{name}: {of}"), &gradient.unwrap(), &expected.unwrap(), TOLERANCE);
        }
    }

    #[test]
    fn has_burns_gradients() {
        let cases = [
            [1, 1, 1, 2, 1, 1],
            [2, 3, 5, 7, 9, 9],
            [1, 2, 64, 77, 40, 40],
            [2, 2, 300, 77, 33, 20],
            [1, 3, 256, 256, 32, 32],
            [1, 1, 530, 130, 64, 64],
            [1, 1, 9, 200, 100, 100],
        ];
        for sizes in cases {
            compare(&format!("{sizes:?}"), run(sizes, [true; 3], ours), run(sizes, [true; 3], burns));
        }
    }

    /// The gradients of projections, one tensor being cut into heads; keys and values are halves of another.
    #[test]
    fn split_heads_are_read_as_views() {
        let device = Device::flex().autodiff();
        let gradients = |f: fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>| {
            let leaves = [("x", 270, 60), ("y", 50, 120)]
                .map(|(name, n, width)| seeded_input::<3>(name, [2, n, width], &device).require_grad());
            let split = |x: Tensor<3>| {
                let n = x.dims()[1];
                (x * 2.0).reshape([2, n, 3, 20]).swap_dims(1, 2)
            };
            let [x, y] = leaves.clone();
            let (k, v) = (y.clone().narrow(2, 0, 60), y.narrow(2, 60, 60));
            let merged = f(split(x), split(k), split(v)).swap_dims(1, 2).reshape([2, 270, 60]);
            let weights = seeded_input("loss", [2, 270, 60], &device);
            let gradients = (merged * weights).sum().backward();
            leaves.map(|x| x.grad(&gradients).unwrap())
        };
        for (gradient, expected) in gradients(ours).iter().zip(gradients(burns)) {
            assert_close("views", gradient, &expected, TOLERANCE);
        }
    }

    #[test]
    fn one_tensor_may_be_all_three() {
        let device = Device::flex().autodiff();
        let gradient = |f: fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>| {
            let x = seeded_input::<4>("x", [2, 2, 70, 24], &device).require_grad();
            let y = f(x.clone(), x.clone(), x.clone());
            let weights = seeded_input("loss", y.dims(), &device);
            x.grad(&(y * weights).sum().backward()).unwrap()
        };
        assert_close("all three", &gradient(ours), &gradient(burns), TOLERANCE);
    }

    #[test]
    fn only_what_is_wanted_gets_a_gradient() {
        let sizes = [1, 2, 270, 77, 24, 24];
        let (_, all) = run(sizes, [true; 3], ours);
        for subset in 1..7 {
            let tracked = [0, 1, 2].map(|i| subset >> i & 1 == 1);
            let (_, some) = run(sizes, tracked, ours);
            for i in 0..3 {
                assert_eq!(some[i].is_some(), tracked[i], "{tracked:?}: {}", NAMES[i]);
                if let (Some(gradient), Some(expected)) = (&some[i], &all[i]) {
                    assert_eq!(relative_difference(gradient, expected), 0.0, "{tracked:?}: {}", NAMES[i]);
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let on = |threads: usize| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (y, gradients) = run([2, 3, 530, 150, 40, 40], [true; 3], ours);
                let tensors = gradients.into_iter().flatten().chain([y]);
                tensors.map(|x| x.to_data().try_to_vec::<f32>().unwrap()).collect::<Vec<_>>()
            })
        };
        let (one, two) = (on(1), on(2));
        assert_eq!(one.len(), 4);
        let bits = |x: &[Vec<f32>]| x.concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&one), bits(&two));
        assert!(one.iter().all(|x| x.iter().any(|v| *v != 0.0)));
    }

    /// Every query looks at one key alone.
    #[test]
    fn large_scores_stay_finite() {
        let gradients = |f: fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>| {
            run([1, 1, 9, 11, 16, 16], [true; 3], |q, k, v| f(q * 100.0, k * 100.0, v)).1
        };
        let [ours, burns] = [gradients(ours), gradients(burns)];
        for i in 0..3 {
            let values = ours[i].clone().unwrap().to_data().try_to_vec::<f32>().unwrap();
            assert!(values.iter().all(|v| v.is_finite()), "{}", NAMES[i]);
        }
        assert_close("v", ours[2].as_ref().unwrap(), burns[2].as_ref().unwrap(), 1e-4);
    }

    #[test]
    fn steps_aside_for_checkpointing_and_masks() {
        let device = Device::flex().autodiff().gradient_checkpointing();
        let [q, k, v] = NAMES.map(|name| seeded_input::<4>(name, [1, 2, 9, 8], &device).require_grad());
        assert!(attention(&q, &k, &v).is_none());
        let gradients = crate::attention(q.clone(), k, v, None, false).sum().backward();
        assert_eq!(q.grad(&gradients).map(|g| g.dims()), Some([1, 2, 9, 8]));
        let masked = |f: fn(Tensor<4>, Tensor<4>, Tensor<4>, Option<Tensor<4, Bool>>) -> Tensor<4>| {
            run([1, 1, 9, 11, 8, 8], [true; 3], |q, k, v| {
                let mask = q.clone().matmul(k.clone().swap_dims(2, 3)).lower_elem(0.0);
                f(q, k, v, Some(mask))
            })
        };
        compare("masked", masked(|q, k, v, mask| crate::attention(q, k, v, mask, false)), masked(plain));
    }
}
