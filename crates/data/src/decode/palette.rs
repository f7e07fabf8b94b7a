//! What the PNG decoder (png 0.18) trips over: it takes a palette's length for a multiple of 3, as the format has it, and goes beyond its
//! end where it is not.

/// Refuses PNG files with a palette that ends within a colour.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    // The signature, then chunks: length, kind, data, checksum.
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((length, kind)) = rest.first_chunk::<8>().map(|head| head.split_at(4)) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        match kind {
            b"PLTE" if !length.is_multiple_of(3) => {
                return Err(format!("a palette of {length} bytes, which are no colours"));
            }
            b"IDAT" => break,
            // The decoder judges the rest, ends that come early too.
            _ => rest = rest.get(length.saturating_add(12)..).unwrap_or_default(),
        }
    }
    Ok(())
}
