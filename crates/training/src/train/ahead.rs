//! Batches on a device, each on its way there while the one before it is learned from.

use candle_core::Device;
use img2seg_data::{Batch, DataError};
use img2seg_ops::{Upload, Uploader};

/// Batches of the CPU, on a device. Where they go there beside what the device computes, the next one is asked for before the last one is
/// given; an error of it waits for its turn.
pub(super) struct Ahead<I> {
    batches: I,
    uploader: Uploader,
    next: Option<Result<OnItsWay, DataError>>,
}

struct OnItsWay {
    names: Vec<String>,
    photos: Upload,
    label_maps: Upload,
    labels: Upload,
}

impl<I: Iterator<Item = Result<Batch, DataError>>> Ahead<I> {
    pub(super) fn new(batches: I, device: &Device) -> Result<Self, DataError> {
        let mut ahead = Self { batches, uploader: Uploader::new(device)?, next: None };
        if ahead.uploader.goes_beside() {
            ahead.next = ahead.start();
        }
        Ok(ahead)
    }

    fn start(&mut self) -> Option<Result<OnItsWay, DataError>> {
        let Self { batches, uploader, .. } = self;
        let mut start = |batch: Batch| {
            Ok(OnItsWay {
                photos: uploader.start(&batch.photos)?,
                label_maps: uploader.start(&batch.label_maps)?,
                labels: uploader.start(&batch.labels)?,
                names: batch.names,
            })
        };
        batches.next().map(|batch| batch.and_then(&mut start))
    }
}

impl<I: Iterator<Item = Result<Batch, DataError>>> Iterator for Ahead<I> {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = if self.uploader.goes_beside() {
            let next = self.start();
            std::mem::replace(&mut self.next, next)
        } else {
            self.start()
        };
        let finish = |batch: OnItsWay| {
            let OnItsWay { names, photos, label_maps, labels } = batch;
            Ok(Batch { names, photos: photos.finish()?, label_maps: label_maps.finish()?, labels: labels.finish()? })
        };
        batch.map(|batch| batch.and_then(finish))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use img2seg_data::{Batch, DataError, streets};

    use super::Ahead;

    #[test]
    fn batches_and_errors_come_in_their_turn() {
        let batch = |index| Batch::stack(&[streets::scene(0, index, 16, 16)]);
        let wrong = || Err(DataError::from(candle_core::Error::Msg("a broken file".into())));
        let batches = vec![batch(0), batch(1), wrong(), batch(2)].into_iter();
        let mut ahead = Ahead::new(batches, &Device::Cpu).unwrap();
        for index in 0..2 {
            let (batch, expected) = (ahead.next().unwrap().unwrap(), batch(index).unwrap());
            assert_eq!(batch.names, expected.names);
            for (x, expected) in [(batch.photos, expected.photos), (batch.label_maps, expected.label_maps)] {
                let values = |x: candle_core::Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(values(x), values(expected));
            }
        }
        assert!(ahead.next().unwrap().is_err_and(|error| error.to_string().contains("a broken file")));
        assert!(ahead.next().unwrap().is_ok());
        assert!(ahead.next().is_none());
    }
}
