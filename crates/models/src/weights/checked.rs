//! Tensors from bytes whose type and shape somebody else has claimed.

use candle_core::{DType, Device, Error, Result, Tensor};
use safetensors::Dtype;

/// Convolutions have 4.
const MAX_RANK: usize = 8;

/// A type of numbers that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(DType);

impl Kind {
    pub(super) fn of_safetensors(dtype: Dtype) -> Option<Self> {
        Some(Self(match dtype {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::U8 => DType::U8,
            Dtype::U32 => DType::U32,
            Dtype::I16 => DType::I16,
            Dtype::I32 => DType::I32,
            Dtype::I64 => DType::I64,
            _ => return None,
        }))
    }

    /// By the name of PyTorch's class of storages.
    pub(super) fn of_storage(name: &str) -> Option<Self> {
        Some(Self(match name {
            "HalfStorage" => DType::F16,
            "BFloat16Storage" => DType::BF16,
            "FloatStorage" => DType::F32,
            "DoubleStorage" => DType::F64,
            "ByteStorage" | "BoolStorage" => DType::U8,
            "ShortStorage" => DType::I16,
            "IntStorage" => DType::I32,
            "LongStorage" => DType::I64,
            _ => return None,
        }))
    }

    pub(super) fn size_in_bytes(self) -> usize {
        self.0.size_in_bytes()
    }
}

/// How many elements a shape has. Too many dimensions are refused, and sides whose product overflows even where another is 0: candle
/// multiplies them in their order.
pub(super) fn elements(shape: &[usize]) -> Result<usize> {
    if shape.len() > MAX_RANK {
        return Err(Error::Msg(format!("{} dimensions, at most {MAX_RANK} are read", shape.len())));
    }
    let bytes = shape.iter().try_fold(8_usize, |product, &side| product.checked_mul(side.max(1)));
    match bytes.filter(|&bytes| isize::try_from(bytes).is_ok()) {
        Some(_) => Ok(shape.iter().product()),
        None => Err(Error::Msg(format!("shape {shape:?} is larger than any memory"))),
    }
}

/// The tensor of exactly these bytes (little endian).
pub(super) fn tensor(bytes: &[u8], kind: Kind, shape: &[usize]) -> Result<Tensor> {
    let needed = elements(shape)? * kind.size_in_bytes();
    if needed != bytes.len() {
        return Err(Error::Msg(format!("shape {shape:?} needs {needed} bytes, there are {}", bytes.len())));
    }
    Tensor::from_raw_buffer(bytes, kind.0, shape, &Device::Cpu)
}

/// The tensor of exactly these bytes, whose numbers all are finite in f32.
pub(super) fn finite_tensor(bytes: &[u8], kind: Kind, shape: &[usize]) -> Result<Tensor> {
    let tensor = tensor(bytes, kind, shape)?;
    if kind.0.is_float() {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let what = if values[at].is_nan() { "not a number" } else { "infinite" };
            return Err(Error::Msg(format!("element {at} of {} is {what}", values.len())));
        }
    }
    Ok(tensor)
}
