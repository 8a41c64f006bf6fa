use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_test_support::{Fixture, assert_close, seeded_input, seeded_weight};
use ldm_vae::VectorQuantizer;

use crate::{Case, ints};

fn quantizer(beta: f64, device: &Device) -> VectorQuantizer {
    let mut quantizer = VectorQuantizer::new(16, 3, beta, device);
    let values = TensorData::new(seeded_weight("embedding.weight", &[16, 3]), [16, 3]);
    quantizer.embedding.weight =
        quantizer.embedding.weight.map(|_| Tensor::from_data(values, device).require_grad());
    quantizer
}

#[test]
fn every_convention_has_tamings_loss_and_gradients() {
    let (plain, device) = (Device::default(), Device::default().autodiff());
    let fixture = Fixture::open("vq_gradients");
    let conventions = [
        ("legacy", quantizer(0.25, &device), 2),
        ("fixed", quantizer(0.25, &device).with_legacy(false).with_sane_index_shape(true), 3),
        ("v1", quantizer(0.4, &device), 1),
    ];
    for (name, quantizer, _) in conventions {
        let key = |part: &str| format!("{name}.{part}");
        let z = seeded_input::<4>("quantizer.z", [2, 3, 4, 5], &device).require_grad();
        let quantized = quantizer.forward(z.clone()).unwrap();
        let weight = seeded_input::<4>("quantizer.weight", [2, 3, 4, 5], &device);
        let loss = (quantized.z_q.clone() * weight).sum() + quantized.loss.clone() * 3.0;
        let gradients = loss.backward();
        let indices = quantized.indices.to_data();
        assert_eq!(ints(&indices), fixture.ints(&key("indices")));
        assert_eq!(indices.shape().len(), if name == "fixed" { 3 } else { 1 });
        assert_close(&key("z_q"), &quantized.z_q.inner(), &fixture.tensor(&key("z_q"), &plain), 1e-5);
        assert_close(&key("loss"), &quantized.loss.inner(), &fixture.tensor(&key("loss"), &plain), 1e-5);
        let gradient = z.grad(&gradients).unwrap();
        assert_close(&key("grad_z"), &gradient, &fixture.tensor(&key("grad_z"), &plain), 1e-4);
        let gradient = quantizer.embedding.weight.val().grad(&gradients).unwrap();
        let expected = fixture.tensor(&key("grad_codebook"), &plain);
        assert_close(&key("grad_codebook"), &gradient, &expected, 1e-4);
    }
}

#[test]
fn a_training_step_has_compvis_gradients() {
    let (plain, device) = (Device::default(), Device::default().autodiff());
    let case = Case::compvis("vq-gradients");
    let model = case.model(DType::F32, &device).train();
    let x = seeded_input::<4>("step.x", [2, 3, 16, 12], &device).clamp(-1.0, 1.0);
    let output = model.forward(x.clone()).unwrap();
    let expected = |key: &str| case.fixture.tensor::<4>(&format!("step.{key}"), &plain);
    assert_close("picture", &output.picture.clone().inner(), &expected("picture"), 1e-4);
    assert_eq!(ints(&output.quantized.indices.to_data()), case.fixture.ints("step.indices"));
    let loss = output.quantized.loss;
    assert_close("loss", &loss.clone().inner(), &case.fixture.tensor("step.loss", &plain), 1e-4);
    let gradients = ((output.picture - x).abs().mean() + loss).backward();

    let vector = |name: &str| case.fixture.tensor::<1>(&format!("step.{name}"), &plain);
    let kernels = [
        ("encoder.conv_in.weight", model.encoder.conv_in.weight.val()),
        ("quant_conv.weight", model.quant_conv.weight.val()),
        ("post_quant_conv.weight", model.post_quant_conv.weight.val()),
        ("decoder.conv_out.weight", model.decoder.conv_out.weight.val()),
    ];
    for (name, weight) in kernels {
        assert_close(name, &weight.grad(&gradients).unwrap(), &expected(name), 1e-3);
    }
    let biases = [
        (
            "encoder.down.1.block.0.conv1.bias",
            model.encoder.down[1].resnets[0].conv1.bias.as_ref().unwrap().val(),
        ),
        ("quant_conv.bias", model.quant_conv.bias.as_ref().unwrap().val()),
    ];
    for (name, bias) in biases {
        assert_close(name, &bias.grad(&gradients).unwrap(), &vector(name), 1e-3);
    }
    let codebook = model.quantize.embedding.weight.val().grad(&gradients).unwrap();
    let theirs = case.fixture.tensor::<2>("step.quantize.embedding.weight", &plain);
    assert_close("codebook", &codebook, &theirs, 1e-3);
    let q = model.decoder.mid.attention.as_ref().unwrap().q.weight.val().grad(&gradients).unwrap();
    let [rows, columns] = q.dims();
    let theirs = expected("decoder.mid.attn_1.q.weight").reshape([rows, columns]);
    assert_close("attention's query", &q, &theirs, 1e-3);
}
