//! Whether a JPEG is all there: the decoder fills what is missing with grey and says nothing.

/// Whether the file goes on to its end marker. Walks segments and scans (ITU-T T.81, annex B), as a thumbnail among them has an end
/// marker of its own.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    const END: u8 = 0xd9;
    let mut at = 2;
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            END => return true,
            // By themselves.
            0x01 | 0xd0..=0xd7 => {}
            _ => {
                let Some(&[high, low]) = bytes.get(at..at + 2) else { return false };
                // Behind a scan's header is its data, up to the next marker.
                at += usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    false
}

/// The marker that comes next, and the place behind it. In a scan's data 0xff stands before 0 or a restart's number, which is none.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let rest = bytes.get(*at..)?;
        let found = rest.iter().position(|byte| *byte == 0xff)?;
        *at += found + 1;
        match *bytes.get(*at)? {
            0xff => {}
            0x00 => *at += 1,
            marker => {
                *at += 1;
                return Some(marker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::{Rgb, RgbImage};

    use super::is_whole;

    #[test]
    fn a_jpeg_is_whole_with_its_end_marker_only() {
        let picture =
            RgbImage::from_fn(70, 50, |x, y| Rgb([(x * y % 251) as u8, (x * 7 % 256) as u8, y as u8]));
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&picture).unwrap();
        assert!(is_whole(&bytes));
        assert!((0..bytes.len()).all(|length| !is_whole(&bytes[..length])));
        // A trailer of the camera's.
        assert!(is_whole(&[&bytes[..], b"trailer"].concat()));

        // A thumbnail in a segment has an end of its own.
        let mut within = vec![0xff, 0xe1];
        within.extend((bytes.len() as u16 + 2).to_be_bytes());
        within.extend(&bytes);
        let both = [&bytes[..2], &within, &bytes[2..]].concat();
        assert!(is_whole(&both));
        assert!(!is_whole(&both[..both.len() - 2]));
    }
}
