//! Every operation at fixed parameters, and both pipelines whole, against CompVis' (tests/reference/degradation.py).

use burn::tensor::Device;
use image::{Rgb32FImage, RgbImage};
use ldm_test_support::{Fixture, assert_close, seeded_input};
use serde_json::Value;

use super::resize::Interpolation;
use super::*;

/// Draws that the fixture lists, as the script drew them.
struct Listed<'a> {
    name: &'a str,
    units: std::vec::IntoIter<f64>,
    fields: usize,
}

impl<'a> Listed<'a> {
    fn new(fixture: &Fixture, name: &'a str) -> Self {
        let units = fixture.tensor::<1>(&format!("units.{name}"), &Device::default());
        let units: Vec<f64> = units.into_data().iter::<f64>().collect();
        Self { name, units: units.into_iter(), fields: 0 }
    }
}

impl Draws for Listed<'_> {
    fn unit(&mut self) -> f64 {
        self.units.next().expect("no more draws than the reference's")
    }

    fn normals(&mut self, n: usize) -> Vec<f32> {
        self.fields += 1;
        let name = format!("{}.{}", self.name, self.fields - 1);
        seeded_input::<1>(&name, [n], &Device::default()).into_data().iter::<f32>().collect()
    }

    fn poissons(&mut self, means: &[f64]) -> Vec<f64> {
        means.iter().enumerate().map(|(i, mean)| (mean * 1.1).floor() + (i % 3) as f64).collect()
    }
}

fn picture(fixture: &Fixture, key: &str) -> RgbImage {
    let (shape, bytes) = fixture.bytes(key);
    RgbImage::from_raw(shape[1] as u32, shape[0] as u32, bytes).unwrap()
}

/// Every `stride`-th pixel each way is the fixture's.
#[track_caller]
fn same(fixture: &Fixture, key: &str, found: &Rgb32FImage, stride: usize, tolerance: f64) {
    let device = Device::default();
    let found = blur::decimate(found, stride);
    let (w, h) = found.dimensions();
    let found = burn::tensor::Tensor::<1>::from_floats(found.as_raw().as_slice(), &device);
    let found = found.reshape([h as usize, w as usize, 3]);
    assert_close(key, &found, &fixture.tensor::<3>(key, &device), tolerance);
}

/// The largest and the mean difference of two pictures.
fn apart(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences: Vec<u8> = a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).collect();
    let mean = differences.iter().map(|d| f64::from(*d)).sum::<f64>() / differences.len() as f64;
    (differences.into_iter().max().unwrap_or(0), mean)
}

fn names(fixture: &Fixture, key: &str) -> Vec<String> {
    serde_json::from_value(fixture.json(key)).unwrap()
}

#[test]
fn kernels_and_blurs_are_the_references() {
    let fixture = Fixture::open("degradation");
    let small = to_f32(&picture(&fixture, "small"));
    let cases = |key: &str| -> Vec<Vec<f64>> { serde_json::from_value(fixture.json(key)).unwrap() };
    let anisotropic = cases("anisotropic").into_iter();
    let anisotropic = anisotropic.map(|c| Kernel::anisotropic(c[0] as usize, c[1], c[2], c[3]));
    let gaussian = cases("gaussian").into_iter().map(|c| Kernel::gaussian(c[0] as usize, c[1]));
    let compare = |key: &str, kernel: &Kernel| {
        let weights: Vec<f32> = kernel.weights().iter().map(|w| *w as f32).collect();
        let found = burn::tensor::Tensor::<1>::from_floats(weights.as_slice(), &Device::default());
        let found = found.reshape([kernel.size(), kernel.size()]);
        assert_close(key, &found, &fixture.tensor::<2>(key, &Device::default()), 1e-6);
    };
    for (i, kernel) in anisotropic.chain(gaussian).enumerate() {
        compare(&format!("kernel.{i}"), &kernel);
        same(&fixture, &format!("blur.{i}"), &blur::blur(&small, &kernel), 3, 1e-6);
    }
    for sf in [2, 3, 4] {
        compare(&format!("shifted.{sf}"), &Kernel::gaussian(25, 1.9).shifted(sf));
    }
    // A kernel larger than the picture is mirrored more than once.
    let tiny = Rgb32FImage::from_pixel(2, 1, image::Rgb([0.25; 3]));
    let blurred = blur::blur(&tiny, &Kernel::gaussian(25, 4.0));
    assert!(blurred.iter().all(|v| (v - 0.25).abs() < 1e-6));
}

#[test]
fn pictures_are_resized_as_opencv_and_matlab_resize() {
    let fixture = Fixture::open("degradation");
    let [small, even] = ["small", "even"].map(|key| to_f32(&picture(&fixture, key)));
    let sizes: Vec<[u32; 2]> = serde_json::from_value(fixture.json("sizes")).unwrap();
    for [w, h] in sizes {
        for (kind, code) in [(Interpolation::Linear, 1), (Interpolation::Cubic, 2), (Interpolation::Area, 3)]
        {
            let resized = resize::resize(&small, (w, h), kind);
            same(&fixture, &format!("resize.{w}x{h}.{code}"), &resized, 2, 1e-5);
        }
    }
    let halved = resize::resize(&even, (16, 12), Interpolation::Linear);
    same(&fixture, "resize.even", &halved, 1, 1e-6);
    same(&fixture, "imresize.even", &imresize::imresize(&even, 0.5), 1, 1e-5);
    same(&fixture, "imresize.small", &imresize::imresize(&small, 0.5), 1, 1e-5);
}

#[test]
fn jpeg_is_opencvs() {
    let fixture = Fixture::open("degradation");
    for name in ["small", "even", "narrow"] {
        let picture = picture(&fixture, name);
        for quality in names_of_numbers(&fixture.json("qualities")) {
            let found = jpeg::compressed(&picture, quality as u8);
            let key = format!("jpeg.{name}.{quality}");
            let (shape, bytes) = fixture.bytes(&key);
            let theirs = RgbImage::from_raw(shape[1] as u32, shape[0] as u32, bytes).unwrap();
            let (worst, mean) = apart(&found, &theirs);
            println!("{key}: at most {worst} of 255, {mean:.4} on average");
            assert_eq!(worst, 0, "{key}: {mean} on average");
        }
    }
}

fn names_of_numbers(value: &Value) -> Vec<u64> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn noises_are_the_references() {
    let fixture = Fixture::open("degradation");
    let small = to_f32(&picture(&fixture, "small"));
    for (key, speckles) in [("add_Gaussian_noise", false), ("add_speckle_noise", true)] {
        let cases = names(&fixture, key);
        assert_eq!(cases.len(), 3, "one of each kind");
        for name in cases {
            let mut draws = Listed::new(&fixture, &name);
            let field = noise::Noise::draw(&(2..=25), &mut draws).field(small.dimensions(), &mut draws);
            let noisy = if speckles { noise::speckle(&small, &field) } else { noise::add(&small, &field) };
            same(&fixture, &name, &noisy, 2, 1e-5);
            assert_eq!(draws.units.len(), 0, "{name}: every draw is made");
        }
    }
    for name in names(&fixture, "poisson") {
        let mut draws = Listed::new(&fixture, &name);
        let vals = 10f64.powf(2.0 * draws.unit() + 2.0);
        let grey = draws.unit() >= 0.5;
        same(&fixture, &name, &noise::poisson(&small, vals, grey, &mut draws), 2, 1e-5);
    }
}

#[test]
fn whole_pipelines_are_the_references() {
    let fixture = Fixture::open("degradation");
    let square = picture(&fixture, "square");
    let runs: Vec<(String, String, usize)> = serde_json::from_value(fixture.json("runs")).unwrap();
    assert_eq!(runs.len(), 12);
    for (name, kind, sf) in runs {
        let mut draws = Listed::new(&fixture, &name);
        let found = Degradation::named(&kind).unwrap().degrade(&square, sf, &mut draws).unwrap();
        assert_eq!(draws.units.len(), 0, "{name}: every draw is made");
        let (shape, bytes) = fixture.bytes(&name);
        let theirs = RgbImage::from_raw(shape[1] as u32, shape[0] as u32, bytes).unwrap();
        let (worst, mean) = apart(&found, &theirs);
        println!("{name}: at most {worst} of 255, {mean:.4} on average");
        assert_eq!(worst, 0, "{name}: {mean} on average");
    }
}

#[test]
fn a_seed_gives_one_picture_and_seeds_differ() {
    let square = picture(&Fixture::open("degradation"), "square");
    for degradation in [Degradation::Bsrgan, Degradation::BsrganLight] {
        let worn = |seed| degradation.degrade(&square, 4, &mut SeededDraws::new(seed)).unwrap();
        assert_eq!(worn(1).dimensions(), (16, 16));
        assert_eq!(worn(1), worn(1));
        assert_ne!(worn(1), worn(2));
        // Whatever is drawn, the size is right and the picture is still there.
        let plain = to_u8(&resize::resize(&to_f32(&square), (16, 16), Interpolation::Area));
        for seed in 0..25 {
            let worn = worn(seed);
            assert_eq!(worn.dimensions(), (16, 16), "{seed}");
            let (_, mean) = apart(&worn, &plain);
            assert!(mean < 60.0, "{degradation:?} {seed}: {mean}");
        }
    }
    let wide = image::imageops::crop_imm(&square, 0, 0, 65, 41).to_image();
    let worn = Degradation::BsrganLight.degrade(&wide, 4, &mut SeededDraws::new(1)).unwrap();
    assert_eq!(worn.dimensions(), (16, 10));
}

#[test]
fn what_cannot_be_degraded_is_named() {
    let error = Degradation::named("bsrgan_heavy").unwrap_err().to_string();
    assert!(error.contains("bsrgan_heavy"), "{error}");
    let degrade = |w, h, sf| {
        Degradation::Bsrgan.degrade(&RgbImage::new(w, h), sf, &mut SeededDraws::new(0)).map(|_| ())
    };
    let error = degrade(40, 7, 4).unwrap_err().to_string();
    assert!(error.contains("40x7") && error.contains('4'), "{error}");
    assert!(degrade(40, 40, 0).unwrap_err().to_string().contains("sf"));
    assert!(degrade(0, 0, 1).is_err());
    for seed in 0..20 {
        let picture = RgbImage::new(8, 8);
        Degradation::Bsrgan.degrade(&picture, 4, &mut SeededDraws::new(seed)).unwrap();
    }
}
