//! The kernels as operations of burn's backend. burn's macro, which makes those of [`super::super::ops`], has no lists.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;

use super::super::bridge::Primitive;
use super::super::conv2d::Work;
use super::{adamw, copies, ema, linear, squares, together};
use crate::optimizer::AdamWFactors;

/// On [`Gpu`](super::super::bridge::Gpu).
pub trait Lists {
    /// See [`adamw::step`].
    fn adamw(tensors: Vec<Primitive>, factors: AdamWFactors) -> Vec<Primitive>;

    /// See [`ema::step`].
    fn ema(tensors: Vec<Primitive>, step: f64) -> Vec<Primitive>;

    /// See [`squares::sum`].
    fn sum_of_squares(tensors: Vec<Primitive>) -> Option<Primitive>;

    /// See [`linear::layers`].
    fn linear_layers(tensors: Vec<Primitive>, biased: bool) -> Vec<Primitive>;

    /// See [`together::lay`].
    fn lay_together(weights: Vec<Primitive>) -> Vec<Primitive>;

    /// See [`together::project`].
    fn project(tensors: Vec<Primitive>, work: Work) -> Vec<Primitive>;

    /// See [`copies::copies`].
    fn copies(tensors: Vec<Primitive>, shapes: Vec<[usize; 3]>, dtype: DType) -> Vec<Primitive>;
}

#[cfg(not(feature = "fusion"))]
impl Lists for CubeBackend {
    fn lay_together(weights: Vec<Primitive>) -> Vec<Primitive> {
        together::lay(weights)
    }

    fn project(tensors: Vec<Primitive>, work: Work) -> Vec<Primitive> {
        together::project(tensors, work)
    }

    fn sum_of_squares(tensors: Vec<Primitive>) -> Option<Primitive> {
        squares::sum(tensors)
    }

    fn linear_layers(tensors: Vec<Primitive>, biased: bool) -> Vec<Primitive> {
        linear::layers(tensors, biased)
    }

    fn adamw(tensors: Vec<Primitive>, factors: AdamWFactors) -> Vec<Primitive> {
        adamw::step(tensors, factors)
    }

    fn ema(tensors: Vec<Primitive>, step: f64) -> Vec<Primitive> {
        ema::step(tensors, step)
    }

    fn copies(tensors: Vec<Primitive>, shapes: Vec<[usize; 3]>, dtype: DType) -> Vec<Primitive> {
        copies::copies(tensors, &shapes, dtype)
    }
}

#[cfg(feature = "fusion")]
mod fused {
    use burn::backend::fusion::custom::{
        CustomOpIr, HandleContainer, OperationFn, OperationIr, StreamId, TensorIr, TensorSpec,
    };
    use burn::tensor::Shape;
    use burn_cubecl::fusion::CubeFusionHandle;

    use burn_cubecl::tensor::CubeTensor;

    use super::super::super::bridge::Gpu;
    use super::*;

    impl Lists for Gpu {
        fn lay_together(weights: Vec<Primitive>) -> Vec<Primitive> {
            let outputs = weights.iter().map(spec).collect();
            later("lay_together", weights, outputs, together::lay)
        }

        fn project(tensors: Vec<Primitive>, work: Work) -> Vec<Primitive> {
            let Some((x, weights)) = tensors.split_first() else { return Vec::new() };
            let output = |weight: &Primitive| {
                let mut output = spec(x);
                let last = output.shape.num_dims() - 1;
                output.shape[last] = weight.shape[0];
                output
            };
            let outputs = weights.iter().map(output).collect();
            later("project", tensors, outputs, move |tensors| together::project(tensors, work))
        }

        fn sum_of_squares(tensors: Vec<Primitive>) -> Option<Primitive> {
            let output = TensorSpec::new(Shape::from([1]), DType::F32);
            let run = |tensors| squares::sum(tensors).into_iter().collect();
            later("sum_of_squares", tensors, vec![output], run).pop()
        }

        fn linear_layers(tensors: Vec<Primitive>, biased: bool) -> Vec<Primitive> {
            let Some((x, rest)) = tensors.split_first() else { return Vec::new() };
            let each = if biased { 2 } else { 1 };
            let outputs = rest
                .chunks_exact(each)
                .map(|layer| TensorSpec::new(Shape::from([x.shape[0], layer[0].shape[0]]), x.dtype));
            let outputs = outputs.collect();
            later("linear_layers", tensors, outputs, move |tensors| linear::layers(tensors, biased))
        }

        fn adamw(tensors: Vec<Primitive>, factors: AdamWFactors) -> Vec<Primitive> {
            // Of each four the gradient's float type may be another.
            let outputs =
                tensors.chunks_exact(4).flat_map(|parameter| [0, 2, 3].map(|i| spec(&parameter[i])));
            let outputs = outputs.collect();
            later("adamw", tensors, outputs, move |tensors| adamw::step(tensors, factors))
        }

        fn ema(tensors: Vec<Primitive>, step: f64) -> Vec<Primitive> {
            let outputs = tensors.chunks_exact(2).map(|pair| spec(&pair[0])).collect();
            later("ema", tensors, outputs, move |tensors| ema::step(tensors, step))
        }

        fn copies(tensors: Vec<Primitive>, shapes: Vec<[usize; 3]>, dtype: DType) -> Vec<Primitive> {
            let outputs = tensors.iter().map(|x| TensorSpec::new(x.shape.clone(), dtype)).collect();
            later("copies", tensors, outputs, move |tensors| copies::copies(tensors, &shapes, dtype))
        }
    }

    fn spec(x: &Primitive) -> TensorSpec {
        TensorSpec::new(x.shape.clone(), x.dtype)
    }

    /// What `run` will make of the tensors when fusion gets there.
    fn later(
        id: &str,
        tensors: Vec<Primitive>,
        outputs: Vec<TensorSpec>,
        run: impl Fn(Vec<CubeTensor>) -> Vec<CubeTensor> + Send + Sync + 'static,
    ) -> Vec<Primitive> {
        let Some(client) = tensors.first().map(|x| x.client.clone()) else { return Vec::new() };
        let inputs: Vec<TensorIr> = tensors.into_iter().map(|x| x.into_ir()).collect();
        let outputs: Vec<TensorIr> = outputs
            .into_iter()
            .map(|spec| TensorIr::uninit(client.create_empty_handle(), spec.shape, spec.dtype))
            .collect();
        let operation =
            CustomOpIr { id: id.into(), inputs: inputs.clone(), outputs: outputs.clone(), scalars: vec![] };
        let run = OperationFn(move |handles: &mut HandleContainer<CubeFusionHandle>| {
            let tensors = inputs.iter().map(|x| handles.get_float_tensor::<CubeBackend>(x)).collect();
            for (to, x) in outputs.iter().zip(run(tensors)) {
                handles.register_float_tensor::<CubeBackend>(&to.id, x);
            }
            Ok(())
        });
        client.register(StreamId::current(), OperationIr::Custom(operation), run)
    }
}
