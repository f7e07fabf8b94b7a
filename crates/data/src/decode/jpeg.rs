//! What the JPEG decoder would let pass: it fills the missing part of a file that ends early with grey, and it has no way to tell
//! how a CMYK file's inks are meant.

const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;

/// Refuses JPEG files that end before their end marker, and those of four components.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    walk(bytes).unwrap_or_else(|| Err("a JPEG file that ends early".into()))
}

/// Goes from marker to marker; `None` where the bytes end before the end marker.
fn walk(bytes: &[u8]) -> Option<Result<(), String>> {
    let mut position = 0;
    loop {
        // Damage between segments and fill bytes are the decoder's to judge.
        while *bytes.get(position)? != 0xFF || matches!(*bytes.get(position + 1)?, 0x00 | 0xFF) {
            position += 1;
        }
        let marker = bytes[position + 1];
        position += 2;
        match marker {
            END_OF_IMAGE => return Some(Ok(())),
            // TEM, RST0..=RST7 and the start of the image stand alone.
            0x01 | 0xD0..=0xD7 | START_OF_IMAGE => {}
            _ => {
                let length = usize::from(u16::from_be_bytes([*bytes.get(position)?, *bytes.get(position + 1)?]));
                let is_frame = matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
                // Length, precision, height and width come before the number of components.
                if is_frame && *bytes.get(position + 7)? == 4 {
                    return Some(Err("a CMYK JPEG, only RGB and grey ones are read".into()));
                }
                // Of a scan this skips the header. Its data hold no markers but RST0..=RST7, so the search goes through them.
                position += length;
            }
        }
    }
}
