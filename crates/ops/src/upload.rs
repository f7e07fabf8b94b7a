//! Tensors on their way to a device, beside what it computes.

use candle_core::{Device, Result, Tensor};

/// Copies tensors to a device. To a CUDA device of [`cuda_device`](crate::cuda_device) they go from pinned memory and on a way of their
/// own, while the device computes; for every other device nothing is gained by starting early.
#[derive(Debug)]
pub struct Uploader {
    device: Device,
    #[cfg(feature = "cuda")]
    lane: Option<crate::cuda::lane::Lane>,
}

/// A tensor on its way.
#[derive(Debug)]
pub struct Upload {
    /// Dropped before the tensor, whose memory it lets wait for the copy.
    #[cfg(feature = "cuda")]
    arrival: Option<crate::cuda::lane::Arrival>,
    tensor: Tensor,
}

impl Uploader {
    /// # Errors
    /// What a device refuses.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            device: device.clone(),
            #[cfg(feature = "cuda")]
            lane: match device {
                Device::Cuda(device) => Some(crate::cuda::lane::Lane::new(device)?),
                _ => None,
            },
        })
    }

    /// Whether what is started early arrives while the device computes.
    pub fn goes_beside(&self) -> bool {
        #[cfg(feature = "cuda")]
        return self.lane.is_some();
        #[cfg(not(feature = "cuda"))]
        false
    }

    /// Sets a tensor of the CPU on its way, and returns as soon as it may be dropped.
    ///
    /// # Errors
    /// A device without memory for it.
    pub fn start(&mut self, x: &Tensor) -> Result<Upload> {
        #[cfg(feature = "cuda")]
        if let Some(lane) = &mut self.lane
            && let Some((tensor, arrival)) = lane.send(x)?
        {
            return Ok(Upload { arrival: Some(arrival), tensor });
        }
        Ok(Upload {
            #[cfg(feature = "cuda")]
            arrival: None,
            tensor: x.to_device(&self.device)?,
        })
    }
}

impl Upload {
    /// The tensor on the device. What is asked of that from now on waits for it to arrive; the caller does not.
    ///
    /// # Errors
    /// What a device refuses.
    pub fn finish(self) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(arrival) = &self.arrival {
            arrival.expect()?;
        }
        Ok(self.tensor)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::Uploader;
    use crate::verify::{draw, values};

    #[test]
    fn what_is_sent_arrives() {
        let mut uploader = Uploader::new(&Device::Cpu).unwrap();
        assert!(!uploader.goes_beside());
        let x = draw((2, 3, 4), 1);
        assert_eq!(values(&uploader.start(&x).unwrap().finish().unwrap()), values(&x));
    }
}
