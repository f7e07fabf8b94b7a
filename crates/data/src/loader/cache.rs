use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::{DataError, Sample};

/// Samples kept in memory, up to a limit that is never passed. Which ones are kept is a matter of timing; what comes out is not.
#[derive(Debug)]
pub(crate) struct Cache {
    slots: Vec<OnceLock<Arc<Sample>>>,
    free_bytes: AtomicUsize,
}

impl Cache {
    pub(crate) fn new(samples: usize, mib: usize) -> Self {
        Self {
            slots: (0..samples).map(|_| OnceLock::new()).collect(),
            free_bytes: AtomicUsize::new(mib.saturating_mul(1 << 20)),
        }
    }

    /// Sample `i`, from memory or else by `read`; kept where it fits.
    pub(crate) fn get_or_read(
        &self,
        i: usize,
        read: impl FnOnce() -> Result<Sample, DataError>,
    ) -> Result<Arc<Sample>, DataError> {
        if let Some(sample) = self.slots[i].get() {
            return Ok(Arc::clone(sample));
        }
        let sample = Arc::new(read()?);
        let bytes = bytes_of(&sample);
        let taken = self.free_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes));
        if taken.is_ok() && self.slots[i].set(Arc::clone(&sample)).is_err() {
            // Another thread has read it meanwhile.
            self.free_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(sample)
    }
}

fn bytes_of(sample: &Sample) -> usize {
    let pixels = sample.photo.as_raw().capacity() + sample.label_map.as_raw().capacity() + sample.labels.capacity();
    pixels + sample.name.capacity() + size_of::<Sample>()
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    #[test]
    fn what_fits_is_kept_and_no_more() {
        // 7 bytes a pixel: two of these fit into a MiB, three do not.
        let sample = |_| {
            let image = RgbImage::new(256, 256);
            Sample { name: String::new(), photo: image.clone(), label_map: image, labels: vec![0; 256 * 256] }
        };
        let cache = Cache::new(4, 1);
        let reads = AtomicUsize::new(0);
        for _ in 0..3 {
            for i in 0..4 {
                let read = || {
                    reads.fetch_add(1, Ordering::Relaxed);
                    Ok(sample(i))
                };
                assert_eq!(*cache.get_or_read(i, read).unwrap(), sample(i));
            }
        }
        assert_eq!(cache.slots.iter().filter(|slot| slot.get().is_some()).count(), 2);
        assert_eq!(reads.into_inner(), 4 + 2 + 2);

        let failing = Cache::new(1, 1);
        assert!(failing.get_or_read(0, || Err(DataError::image("x.png", "broken"))).is_err());
        assert!(failing.get_or_read(0, || Ok(sample(0))).is_ok());
    }
}
