//! Weights by name into modules, gradients by name out of them.

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};
use ldm_nn::weights::{Entry, KeyMap, Loader, Saver, WeightFile};
use ldm_test_support::{Fixture, seeded_input, write_weights};
use ldm_train::{Lpips, NLayerDiscriminator};

/// The parameters of a kind, of which the fixture names those that the reference has.
pub type Shapes = Vec<(String, Vec<usize>)>;

/// The module with the reference's seeded weights. Its parameters need gradients.
pub fn seeded<M: Module>(module: M, map: &dyn KeyMap, prefix: &str, shapes: &Shapes) -> M {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    write_weights(&path, shapes);
    let file = WeightFile::open(&path).unwrap();
    let (module, report) =
        Loader::new(map).prefix(prefix).load(module, &file).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(report.loaded.len(), shapes.len(), "{:?}", report.unknown);
    module.train()
}

/// A discriminator's names; its running statistics are none of the reference's parameters.
pub fn names(discriminator: &NLayerDiscriminator) -> impl KeyMap + use<> {
    let names = discriminator.names();
    move |path: &str| -> Option<Entry> { if path.contains("running") { None } else { names(path) } }
}

/// LPIPS with seeded weights, under the names of a saved `LPIPS`.
pub fn seeded_lpips(shapes: &Shapes, device: &Device) -> Lpips {
    let folder = tempfile::tempdir().unwrap();
    let drawn = folder.path().join("drawn.safetensors");
    write_weights(&drawn, shapes);
    let drawn = WeightFile::open(&drawn).unwrap();
    let path = folder.path().join("lpips.safetensors");
    renamed(&drawn, |name| Some(name.trim_start_matches("lpips.").into())).write(&path).unwrap();
    Lpips::load(&path, None, device).unwrap_or_else(|e| panic!("{e}"))
}

/// The same tensors under other names; `None` leaves one out.
pub fn renamed(file: &WeightFile, name: impl Fn(&str) -> Option<String>) -> Saver<'static> {
    file.tensors().fold(Saver::new(), |saver, info| match name(&info.name) {
        Some(name) => {
            let (shape, values) = file.read_f32(&info.name).unwrap();
            saver.add_tensor(name, burn::tensor::TensorData::new(values, shape))
        }
        None => saver,
    })
}

/// Puts each parameter's gradient in its place.
struct InPlace<'a>(&'a mut GradientsParams);

impl ModuleMapper for InPlace<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.remove::<D>(param.id) {
            Some(gradient) => Param::initialized(param.id, gradient),
            None => param,
        }
    }
}

/// Compares every gradient of a module with the fixture's digests `{variant}.gradient.{name}`, each within 1e-3 of its
/// largest element, or of a thousandth of the largest of all: some parameters, such as a bias before a norm, have no
/// gradient but rounding.
pub fn compare_gradients<M: Module>(
    module: M,
    mut gradients: GradientsParams,
    map: &dyn KeyMap,
    prefix: &str,
    fixture: &Fixture,
    variant: &str,
    shapes: &Shapes,
) {
    let in_place = module.map(&mut InPlace(&mut gradients));
    assert!(gradients.is_empty(), "gradients of parameters that are not the module's");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gradients.safetensors");
    Saver::new().dtype(DType::F32).add(&in_place, map, prefix).write(&path).unwrap();
    let file = WeightFile::open(&path).unwrap();
    assert_eq!(file.tensors().count(), shapes.len());
    let digest = |name: &str| digest_of(fixture, &format!("{variant}gradient.{name}"));
    let floors = shapes.iter().fold([0f64; 2], |floor, (name, _)| {
        let expected = digest(name);
        [floor[0].max(expected[0]), floor[1].max(expected[1])]
    });
    let floors = floors.map(|floor| 1e-3 * floor);
    let mut worst = (0f64, String::new());
    for (name, _) in shapes {
        let (_, values) = file.read_f32(name).unwrap();
        let difference = difference(name, &values, &digest(name), floors);
        assert!(difference <= 1e-3, "{variant}{name}: difference {difference:.2e}");
        if difference > worst.0 {
            worst = (difference, name.clone());
        }
    }
    println!("{variant}: {} gradients, worst {:.2e} at {}", shapes.len(), worst.0, worst.1);
}

/// A digest: largest element, norm, four projections, the first eight elements.
pub fn digest_of(fixture: &Fixture, key: &str) -> Vec<f64> {
    fixture.tensor::<1>(key, &Device::default()).into_data().iter::<f64>().collect()
}

/// How far a gradient is from its digest, in units of its size (at least `floors`: of an element, of the norm).
pub fn difference(name: &str, values: &[f32], expected: &[f64], floors: [f64; 2]) -> f64 {
    let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
    let (size, length) = (expected[0].max(floors[0]), expected[1].max(floors[1]));
    if length == 0.0 {
        // All zero, and has to be.
        return values.iter().map(|v| v.abs()).fold(0.0, f64::max);
    }
    let largest = values.iter().fold(0f64, |m, v| m.max(v.abs()));
    let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt();
    let projection = |k: usize| -> f64 {
        let drawn = seeded_input(&format!("{name}.{k}"), [values.len()], &Device::default());
        values.iter().zip(drawn.into_data().iter::<f64>()).map(|(a, b)| a * b).sum()
    };
    let mut worst = ((largest - expected[0]).abs() / size).max((norm - expected[1]).abs() / length);
    for k in 0..4 {
        worst = worst.max((projection(k) - expected[2 + k]).abs() / length);
    }
    for (value, expected) in values.iter().zip(&expected[6..]) {
        worst = worst.max((value - expected).abs() / size);
    }
    if worst.is_nan() { f64::INFINITY } else { worst }
}
