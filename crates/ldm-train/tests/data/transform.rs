use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, Luma, LumaA, Pixel, Rgb, RgbImage, Rgba, RgbaImage,
};
use ldm_train::data::{Crop, Filter, Transform, View};

/// Red says the column, green the row.
fn places(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([10 * x as u8, 10 * y as u8, 0])).into()
}

/// The column and row that a view's pixel comes from.
fn origin(planes: &[f32], size: usize, x: usize, y: usize) -> (usize, usize) {
    let at = |c: usize| ((planes[(c * size + y) * size + x] + 1.0) * 12.75).round() as usize;
    (at(0), at(1))
}

#[test]
fn crops_and_flips_lie_where_their_numbers_say() {
    let transform =
        Transform { size: 4, resize: Some(8), crop: Crop::Five, flip: true, ..Transform::default() };
    let picture = places(10, 8);
    let corners = [(3, 2), (0, 0), (6, 0), (0, 4), (6, 4)];
    assert_eq!(transform.views(), Some(10));
    for (i, (left, top)) in corners.into_iter().enumerate() {
        let (plain, flipped) =
            (transform.view(2 * i as u64).unwrap(), transform.view(2 * i as u64 + 1).unwrap());
        let planes = transform.apply(&picture, plain).unwrap();
        assert_eq!(origin(&planes, 4, 0, 0), (left, top));
        assert_eq!(origin(&planes, 4, 3, 2), (left + 3, top + 2));
        let planes = transform.apply(&picture, flipped).unwrap();
        assert_eq!(origin(&planes, 4, 0, 0), (left + 3, top));
    }
    assert_eq!(transform.view(10), None);
    assert_eq!(Transform { crop: Crop::Random, ..transform }.views(), None);
}

#[test]
fn the_shorter_side_is_resized_and_the_middle_taken() {
    for (w, h) in [(20, 10), (10, 20), (5, 11), (11, 5)] {
        let transform = Transform::new(10);
        let picture = RgbImage::from_pixel(w, h, Rgb([40, 80, 120])).into();
        let planes = transform.apply(&picture, transform.view(0).unwrap()).unwrap();
        assert_eq!(planes.len(), 300);
        for (c, value) in [40.0, 80.0, 120.0].into_iter().enumerate() {
            let expected = value / 127.5 - 1.0;
            assert!(planes[c * 100..(c + 1) * 100].iter().all(|v| (v - expected).abs() < 1e-6), "{w} x {h}");
        }
    }
    // An area of four becomes its average, however it is resized.
    let checks: DynamicImage =
        RgbImage::from_fn(16, 16, |x, y| Rgb([if (x + y) % 2 == 0 { 0 } else { 200 }; 3])).into();
    for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos, Filter::Area] {
        let transform = Transform { filter, ..Transform::new(8) };
        let planes = transform.apply(&checks, transform.view(0).unwrap()).unwrap();
        let inner = planes[3 * 8 + 3];
        assert!((inner - (100.0 / 127.5 - 1.0)).abs() < 0.02, "{filter:?}: {inner}");
    }
}

/// A square of so much of the shorter side, at the crop's size.
#[test]
fn crops_of_any_size_are_resized() {
    let transform =
        Transform { size: 4, crop: Crop::Random, crop_f: Some([0.5, 1.0]), ..Transform::default() };
    transform.validate().unwrap();
    assert_eq!((transform.views(), transform.view(0)), (None, None));
    let picture = places(16, 8);
    let see = |x, y, part| transform.apply(&picture, View { number: None, x, y, flip: false, part }).unwrap();
    // Half of the shorter side is the size already.
    let planes = see(1.0, 0.5, 0.5);
    assert_eq!(origin(&planes, 4, 0, 0), (12, 2));
    assert_eq!(origin(&planes, 4, 3, 3), (15, 5));
    let planes = see(0.0, 0.0, 1.0);
    assert_eq!(planes.len(), 48);
    let red = (planes[5] + 1.0) * 12.75;
    assert!((red - 2.5).abs() < 0.3, "{red}");
}

#[test]
fn transparent_pixels_show_the_background() {
    let picture: DynamicImage =
        RgbaImage::from_fn(2, 2, |x, _| Rgba([100, 0, 0, if x == 0 { 0 } else { 128 }])).into();
    let view = View { number: Some(0), x: 0.5, y: 0.5, flip: false, part: 1.0 };
    let red = |background| {
        let planes = Transform { background, ..Transform::new(2) }.apply(&picture, view).unwrap();
        [0, 1].map(|x| ((planes[x] + 1.0) * 127.5).round() as i32)
    };
    assert_eq!(red([255; 3]), [255, 177]);
    assert_eq!(red([0, 0, 0]), [0, 50]);
}

/// Of 16 bits the upper eight count, alpha's too: whatever the lower ones are, the picture is its twin of 8 bits.
#[test]
fn sixteen_bits_are_cut_to_eight() {
    fn deep<P: Pixel<Subpixel = u16>>(flat: &[u8], lower: u16) -> ImageBuffer<P, Vec<u16>> {
        ImageBuffer::from_raw(2, 2, flat.iter().map(|v| (u16::from(*v) << 8) | lower).collect()).unwrap()
    }
    let bytes = |channels: u8| -> Vec<u8> { (0..4 * channels).map(|i| 15 * i).collect() };
    let flat: [DynamicImage; 4] = [
        GrayImage::from_raw(2, 2, bytes(1)).unwrap().into(),
        GrayAlphaImage::from_raw(2, 2, bytes(2)).unwrap().into(),
        RgbImage::from_raw(2, 2, bytes(3)).unwrap().into(),
        RgbaImage::from_raw(2, 2, bytes(4)).unwrap().into(),
    ];
    let transform = Transform { background: [10, 120, 250], ..Transform::new(2) };
    let see = |picture: &DynamicImage| transform.apply(picture, transform.view(0).unwrap()).unwrap();
    for lower in [0, 127, 128, 255] {
        let deep = [
            DynamicImage::ImageLuma16(deep::<Luma<u16>>(&bytes(1), lower)),
            DynamicImage::ImageLumaA16(deep::<LumaA<u16>>(&bytes(2), lower)),
            DynamicImage::ImageRgb16(deep::<Rgb<u16>>(&bytes(3), lower)),
            DynamicImage::ImageRgba16(deep::<Rgba<u16>>(&bytes(4), lower)),
        ];
        for (deep, flat) in deep.iter().zip(&flat) {
            assert_eq!(see(deep), see(flat), "{:?} ending in {lower}", deep.color());
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let text = |transform: Transform| transform.validate().unwrap_err().to_string();
    assert!(text(Transform::new(0)).contains("`size` = 0"));
    assert!(text(Transform { resize: Some(32), ..Transform::new(64) }).contains("`resize` = 32"));
    let parts =
        |crop_f, crop, resize| text(Transform { crop_f: Some(crop_f), crop, resize, ..Transform::new(64) });
    let none = parts([0.0, 1.0], Crop::Random, None);
    assert!(none.contains("`crop_f` = [0.0, 1.0]") && none.contains("above 0"), "{none}");
    assert!(parts([0.9, 0.5], Crop::Random, None).contains("not falling"));
    assert!(parts([0.5, 1.0], Crop::Five, None).contains("`random`"));
    assert!(parts([0.5, 1.0], Crop::Center, Some(80)).contains("`resize`"));
    let strip: DynamicImage = RgbImage::new(1, 1000).into();
    let transform = Transform::new(64);
    assert!(transform.apply(&strip, transform.view(0).unwrap()).unwrap_err().contains("64 times"));
    assert!(serde_json::from_str::<Transform>(r#"{"size": 8, "rotate": true}"#).is_err());
}
