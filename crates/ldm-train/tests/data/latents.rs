use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use ldm_test_support::seeded_input;
use ldm_train::data::{CacheKey, Crop, DataError, LatentCache, Loader, LoaderConfig, Transform};
use ldm_train::run::{Purpose, Random};
use ldm_vae::{AutoencoderKl, AutoencoderKlConfig, DiagonalGaussian};

use super::made::{loader, sample, shards, small, tar};

/// A first stage with f = 2 and 3 latent channels.
fn first_stage(device: &Device) -> AutoencoderKl {
    let config = serde_json::json!({
        "embed_dim": 3,
        "ddconfig": {
            "double_z": true, "z_channels": 3, "resolution": 8, "in_channels": 3, "out_ch": 3, "ch": 32,
            "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
        },
    });
    let config: AutoencoderKlConfig = serde_json::from_value(config).unwrap();
    config.init(device).unwrap()
}

fn flipped() -> LoaderConfig {
    LoaderConfig { transform: Transform { flip: true, ..Transform::new(8) }, ..small(5) }
}

fn key(loader: &Loader) -> CacheKey {
    CacheKey::new(&first_stage(&Device::default()), loader).unwrap()
}

#[test]
fn a_cache_has_what_the_first_stage_says_of_every_view() {
    let device = Device::default();
    let dir = tempfile::tempdir().unwrap();
    let loader = loader(&shards(dir.path(), &[6, 5]), flipped());
    let vae = first_stage(&device);
    let cache =
        LatentCache::build(&loader, CacheKey::new(&vae, &loader).unwrap(), &device, |x| vae.encode(x))
            .unwrap();
    assert_eq!(cache.len(), 22);

    // A shuffled batch with its flips.
    let batch = loader.batches_from(4).unwrap().next().unwrap().unwrap();
    let views = batch.views.clone().unwrap();
    let expected = vae.encode(batch.to_tensor(&device)).unwrap();
    let posterior = cache.posterior(&views, &device).unwrap();
    let close = |a: Tensor<4>, b: Tensor<4>| {
        ldm_test_support::assert_close("cached posterior", &a, &b, 1e-5);
    };
    close(posterior.mean(), expected.mean());
    close(posterior.logvar(), expected.logvar());
    assert!(matches!(cache.posterior(&[22], &device), Err(DataError::NotCached { view: 22 })));
}

#[test]
fn samples_have_the_posterior_s_mean_and_deviation() {
    let device = Device::default();
    let dir = tempfile::tempdir().unwrap();
    let loader = loader(&shards(dir.path(), &[4]), LoaderConfig { transform: Transform::new(8), ..small(2) });
    // Log-variances from -4 to 2.
    let encode = |x: Tensor<4>| {
        let [b, ..] = x.dims();
        let mean = seeded_input::<4>("mean", [b, 3, 2, 2], &device) * 3.0;
        let logvar = seeded_input::<4>("logvar", [b, 3, 2, 2], &device).clamp(-1.0, 1.0) * 3.0 - 1.0;
        DiagonalGaussian::new(mean, logvar)
    };
    let cache = LatentCache::build(&loader, key(&loader), &device, encode).unwrap();
    let views = [2, 0];
    let numbers = |t: Tensor<4>| t.into_data().try_into_vec::<f32>().unwrap();
    let posterior = cache.posterior(&views, &device).unwrap();
    let (mean, std) = (numbers(posterior.mean()), numbers(posterior.std()));

    // As a run draws: from (seed, number of the micro-batch, purpose).
    let sample = |seed, micro| {
        let noise = Random::new(seed).normal(micro, Purpose::Posterior, [2, 3, 2, 2], &device).unwrap();
        numbers(cache.posterior(&views, &device).unwrap().sample(noise).unwrap())
    };
    let draws = 3000;
    let (mut sum, mut squares) = (vec![0f64; mean.len()], vec![0f64; mean.len()]);
    for step in 0..draws {
        let z = sample(9, step);
        for (i, z) in z.iter().enumerate() {
            let deviation = f64::from((z - mean[i]) / std[i]);
            sum[i] += deviation;
            squares[i] += deviation * deviation;
        }
    }
    for (sum, squares) in sum.iter().zip(&squares) {
        // Five standard errors.
        let (mean, variance) = (sum / draws as f64, squares / draws as f64);
        assert!(mean.abs() < 5.0 / (draws as f64).sqrt(), "{mean}");
        assert!((variance - 1.0).abs() < 5.0 * (2.0 / draws as f64).sqrt(), "{variance}");
    }
    assert_eq!(sample(9, 3), sample(9, 3));
    assert_ne!(sample(9, 3), sample(9, 4));
    assert_ne!(sample(9, 3), sample(8, 3));
}

/// Adds a little to every weight.
struct Nudge;

impl ModuleMapper for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value + 1e-3)
    }
}

#[test]
fn a_stale_cache_is_refused() {
    let device = Device::default();
    let dir = tempfile::tempdir().unwrap();
    let data = shards(dir.path(), &[6, 5]);
    let loader_of = |config| loader(&data, config);
    let loader = loader_of(flipped());
    let vae = first_stage(&device);
    let key = CacheKey::new(&vae, &loader).unwrap();
    let file = dir.path().join("latents.safetensors");
    let open = |loader: &Loader, key: &CacheKey| {
        LatentCache::open_or_build(&file, loader, key.clone(), &device, |x| vae.encode(x))
    };
    let built = open(&loader, &key).unwrap();
    assert_eq!(open(&loader, &key).unwrap(), built, "as written");
    // Threads and order are not what latents depend on.
    let other = loader_of(LoaderConfig { seed: 77, workers: 1, batch_size: 3, ..flipped() });
    assert_eq!(CacheKey::new(&vae, &other).unwrap(), key);

    let stale = |loader: &Loader, key: CacheKey, what: &str| {
        let error = open(loader, &key).unwrap_err();
        assert!(matches!(&error, DataError::Stale { what: found, .. } if found == what), "{what}: {error}");
    };
    let trained = vae.clone().map(&mut Nudge);
    stale(&loader, CacheKey::new(&trained, &loader).unwrap(), "first_stage");
    let larger = loader_of(LoaderConfig {
        transform: Transform { resize: Some(12), ..flipped().transform },
        ..flipped()
    });
    stale(&larger, CacheKey::new(&vae, &larger).unwrap(), "transform");
    let grown = tempfile::tempdir().unwrap();
    let grown = super::made::loader(&shards(grown.path(), &[6, 6]), flipped());
    stale(&grown, CacheKey::new(&vae, &grown).unwrap(), "data");

    let bytes = std::fs::read(&file).unwrap();
    for damaged in [&bytes[..bytes.len() - 4], &bytes[..9], b"x".as_slice()] {
        std::fs::write(&file, damaged).unwrap();
        assert!(matches!(open(&loader, &key), Err(DataError::Cache { .. })));
    }
    assert!(!file.with_extension("safetensors.part").exists());
}

#[test]
fn broken_pictures_are_left_out_and_never_asked_for() {
    let device = Device::default();
    let dir = tempfile::tempdir().unwrap();
    let mut entries: Vec<_> = (0..9).flat_map(sample).collect();
    entries[2 * 5].1.truncate(40);
    let loader = loader(&tar(&dir.path().join("a.tar"), &entries), flipped());
    let encode = |x: Tensor<4>| DiagonalGaussian::new(x.clone(), x);
    let cache = LatentCache::build(&loader, key(&loader), &device, encode).unwrap();
    assert_eq!(cache.len(), 16);

    let held = cache.clone();
    let views = loader.views_from(0, move |view| held.contains(view)).unwrap();
    let batches = loader.batches_from(0).unwrap();
    for (views, pictures) in views.zip(batches).take(12) {
        let (views, pictures) = (views.unwrap(), pictures.unwrap());
        assert_eq!(views.keys, pictures.keys);
        let latent = cache.posterior(views.views.as_ref().unwrap(), &device).unwrap().mean();
        let expected = TensorData::new(pictures.pictures, latent.dims());
        assert_eq!(latent.into_data(), expected);
    }

    // A run that finds its cache opens no picture: what is not in it is counted and named all the same.
    let fresh = Loader::new(loader.source().clone(), flipped()).unwrap();
    let epoch = fresh.views_from(0, move |view| cache.contains(view)).unwrap().take(2);
    assert_eq!(epoch.map(|batch| batch.unwrap().len()).sum::<usize>(), 10);
    let broken = fresh.report().broken();
    assert_eq!(broken.keys().collect::<Vec<_>>(), ["p005"]);
    assert!(
        broken["p005"].skipped > 0 && broken["p005"].reason == "not in the cache of latents",
        "{broken:?}"
    );
}

#[test]
fn crops_anywhere_and_of_any_size_are_not_kept() {
    let device = Device::default();
    let dir = tempfile::tempdir().unwrap();
    let data = shards(dir.path(), &[2]);
    for (crop, crop_f, key_and_value) in [
        (Crop::Random, None, "`crop` = Random"),
        (Crop::Random, Some([0.5, 1.0]), "`crop` = Random"),
        (Crop::Center, Some([0.5, 1.0]), "`crop_f` = [0.5, 1.0]"),
    ] {
        let transform = Transform { crop, crop_f, ..Transform::new(8) };
        let loader = loader(&data, LoaderConfig { transform, ..small(2) });
        let encode = |x: Tensor<4>| DiagonalGaussian::new(x.clone(), x);
        let kept = LatentCache::build(&loader, key(&loader), &device, encode).unwrap_err();
        let numbered = loader.views_from(0, |_| true).unwrap_err();
        for error in [kept, numbered] {
            assert!(error.to_string().contains(key_and_value), "{error}");
        }
    }
}
