//! cuDNN's backend: descriptors that are given attributes, made final, and then taken by others.
#![allow(unsafe_code, reason = "cuDNN is told where values lie")]

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type, cudnnBackendCreateDescriptor,
    cudnnBackendDescriptor_t, cudnnBackendDescriptorType_t as Kind, cudnnBackendDestroyDescriptor, cudnnBackendExecute,
    cudnnBackendFinalize, cudnnBackendGetAttribute, cudnnBackendHeurMode_t, cudnnBackendSetAttribute,
    cudnnConvolutionMode_t, cudnnDataType_t, cudnnHandle_t, cudnnPointwiseMode_t,
};
use candle_core::cuda_backend::cudarc::cudnn::{CudnnError, result};

use super::plan::Fallible;

/// Something that cuDNN knows by its attributes. Those that it was given live as long as it does.
pub(super) struct Descriptor {
    raw: cudnnBackendDescriptor_t,
    parts: Vec<Arc<Descriptor>>,
}

/// What attributes are made of.
///
/// # Safety
/// cuDNN reads a value of `TYPE` as what this lies in memory as.
pub(super) unsafe trait Value: Copy {
    const TYPE: Type;
}

/// An address of the device.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Address(pub(super) u64);

macro_rules! values {
    ($($value:ty: $kind:ident),*) => {$(
        // SAFETY: the twin of C's type of that name.
        unsafe impl Value for $value {
            const TYPE: Type = Type::$kind;
        }
    )*};
}

values! {
    i64: CUDNN_TYPE_INT64,
    f32: CUDNN_TYPE_FLOAT,
    bool: CUDNN_TYPE_BOOLEAN,
    Address: CUDNN_TYPE_VOID_PTR,
    cudnnHandle_t: CUDNN_TYPE_HANDLE,
    cudnnDataType_t: CUDNN_TYPE_DATA_TYPE,
    cudnnConvolutionMode_t: CUDNN_TYPE_CONVOLUTION_MODE,
    cudnnPointwiseMode_t: CUDNN_TYPE_POINTWISE_MODE,
    cudnnBackendHeurMode_t: CUDNN_TYPE_HEUR_MODE
}

impl Descriptor {
    /// One without attributes.
    pub(super) fn new(kind: Kind) -> Fallible<Self> {
        let mut raw = ptr::null_mut();
        // SAFETY: it is written to.
        unsafe { cudnnBackendCreateDescriptor(kind, &raw mut raw) }.result()?;
        Ok(Self { raw, parts: Vec::new() })
    }

    pub(super) fn set<T: Value>(&mut self, name: Name, values: &[T]) -> Fallible<()> {
        // SAFETY: so many values of that type are copied.
        unsafe { cudnnBackendSetAttribute(self.raw, name, T::TYPE, values.len() as i64, values.as_ptr().cast()) }
            .result()
    }

    pub(super) fn take(&mut self, name: Name, parts: &[&Arc<Self>]) -> Fallible<()> {
        let raw: Vec<_> = parts.iter().map(|part| part.raw).collect();
        let kind = Type::CUDNN_TYPE_BACKEND_DESCRIPTOR;
        // SAFETY: so many descriptors are copied; they are kept.
        unsafe { cudnnBackendSetAttribute(self.raw, name, kind, raw.len() as i64, raw.as_ptr().cast()) }.result()?;
        self.parts.extend(parts.iter().map(|&part| Arc::clone(part)));
        Ok(())
    }

    /// What others may take from now on.
    ///
    /// # Errors
    /// Attributes that do not go together, or that cuDNN has nothing for.
    pub(super) fn finish(self) -> Fallible<Arc<Self>> {
        // SAFETY: a descriptor.
        unsafe { cudnnBackendFinalize(self.raw) }.result()?;
        Ok(Arc::new(self))
    }

    pub(super) fn number(&self, name: Name) -> Fallible<i64> {
        let (mut number, mut count) = (0i64, 0);
        let to = (&raw mut number).cast();
        // SAFETY: at most one value is written.
        unsafe { cudnnBackendGetAttribute(self.raw, name, Type::CUDNN_TYPE_INT64, 1, &raw mut count, to) }.result()?;
        Ok(number)
    }

    /// Notes as numbers, since a later cuDNN may have others than are known here.
    pub(super) fn notes(&self, name: Name) -> Fallible<Vec<u32>> {
        const MOST: usize = 64;
        let (mut notes, mut count) = ([0u32; MOST], 0);
        let kind = Type::CUDNN_TYPE_NUMERICAL_NOTE;
        // SAFETY: C's enumerations are of 32 bits, and at most so many are written.
        unsafe {
            let to = notes.as_mut_ptr().cast();
            cudnnBackendGetAttribute(self.raw, name, kind, MOST as i64, &raw mut count, to)
        }
        .result()?;
        Ok(notes[..usize::try_from(count).unwrap_or(0).min(MOST)].to_vec())
    }

    /// The descriptors of an attribute, as many as there are.
    pub(super) fn others(&self, name: Name, kind: Kind) -> Fallible<Vec<Arc<Self>>> {
        let mut count = 0;
        let get = |requested, count: &mut i64, to: *mut c_void| {
            let of = Type::CUDNN_TYPE_BACKEND_DESCRIPTOR;
            // SAFETY: `to` has as many descriptors of the attribute's kind as are requested.
            unsafe { cudnnBackendGetAttribute(self.raw, name, of, requested, count, to) }.result()
        };
        get(0, &mut count, ptr::null_mut())?;
        let others = (0..count).map(|_| Self::new(kind)).collect::<Fallible<Vec<_>>>()?;
        let mut raw: Vec<_> = others.iter().map(|other| other.raw).collect();
        let mut given = 0;
        get(count, &mut given, raw.as_mut_ptr().cast())?;
        let given = usize::try_from(given).unwrap_or(0);
        Ok(others.into_iter().take(given).map(Arc::new).collect())
    }
}

// SAFETY: cuDNN ties no descriptor to a thread, and after `finish` nothing changes one.
unsafe impl Send for Descriptor {}
// SAFETY: as above.
unsafe impl Sync for Descriptor {}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: nobody else has it. What cuDNN says of it changes nothing.
        let _ = unsafe { cudnnBackendDestroyDescriptor(self.raw) };
    }
}

/// A handle whose work goes to this stream. It is never destroyed: at the end of a process the device may be gone already.
pub(super) fn handle(stream: *mut c_void) -> Result<cudnnHandle_t, CudnnError> {
    let handle = result::create_handle()?;
    // SAFETY: a stream of the context that is current.
    unsafe { result::set_stream(handle, stream.cast()) }?;
    Ok(handle)
}

/// Asks for the work of an execution plan, and does not wait for it.
///
/// # Safety
/// Memory of the sizes that the plan was made for, and the workspace that it asks for, lie at these addresses until the stream is done with
/// them; and nobody else writes there.
pub(super) unsafe fn execute(
    handle: cudnnHandle_t,
    plan: &Descriptor,
    names: &[i64],
    addresses: &[Address],
    workspace: Address,
) -> Fallible<()> {
    let mut pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?;
    pack.set(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, names)?;
    pack.set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, addresses)?;
    pack.set(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[workspace])?;
    let pack = pack.finish()?;
    // SAFETY: the caller's promise.
    unsafe { cudnnBackendExecute(handle, plan.raw, pack.raw) }.result()
}
