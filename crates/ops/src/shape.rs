//! Ops that move values and compute nothing.
#![allow(unsafe_code, reason = "results are written without being zeroed first")]

use std::mem::MaybeUninit;

use candle_core::{Result, Shape, Tensor};

use crate::check::{self, refuse};
use crate::kernel::{InputGradients, by_candle, deal_each, has_kernel, node, values, wide, written};

/// Values that one piece of work copies: a share of a processor's second cache.
const PIECE: usize = 1 << 16;

/// Stacks the channels of images `(n, c_i, h, w)`, to `(n, sum of c_i, h, w)`.
///
/// # Errors
/// No images, empty ones, and ones that differ in more than their channels.
pub fn cat(images: &[&Tensor]) -> Result<Tensor> {
    const OP: &str = "cat";
    let Some((&first, rest)) = images.split_first() else { refuse!("{OP}: no images") };
    let (n, mut channels, h, w) = check::image(OP, "image 0", first)?;
    for (at, image) in (1..).zip(rest) {
        let name = format!("image {at}");
        let (images, c, height, width) = check::image(OP, &name, image)?;
        if (images, height, width) != (n, h, w) {
            refuse!("{OP}: {name} has shape {:?}, image 0 {:?}", image.dims(), first.dims());
        }
        // Either may have been left in bf16.
        check::same_kind(OP, &name, image, first)
            .or_else(|error| check::same_kind(OP, "", first, image).map_err(|_| error))?;
        channels += c;
    }
    if let [a, b, rest @ ..] = images
        && rest.len() > 1
    {
        // A node of candle's takes three inputs.
        return cat(&[*a, *b, &cat(rest)?]);
    }
    #[cfg(feature = "cuda")]
    if let Some(stage) = crate::cuda::Stage::of_image(first)
        && images.iter().all(|x| crate::cuda::Stage::of_image(x).is_some())
    {
        return crate::cuda::moves::cat(&stage, images);
    }
    if !has_kernel(first) {
        let wide = images.iter().map(|x| wide(x)).collect::<Result<Vec<_>>>()?;
        return by_candle(OP, &wide.iter().collect::<Vec<_>>(), |images| Tensor::cat(images, 1));
    }
    let images = images.iter().map(|image| image.contiguous()).collect::<Result<Vec<_>>>()?;
    let shapes: Vec<Shape> = images.iter().map(|image| image.shape().clone()).collect();
    let lens: Vec<usize> = images.iter().map(|image| image.elem_count() / n).collect();
    let y = {
        let images = images.iter().map(values).collect::<Result<Vec<_>>>()?;
        stacked(&images.iter().map(|image| &**image).collect::<Vec<_>>(), &lens)
    };
    node(OP, &images.iter().collect::<Vec<_>>(), y, (n, channels, h, w), move |pass| {
        let gradient = values(pass.gradient)?;
        let mut gradients: InputGradients = InputGradients::default();
        let mut start = 0;
        for (at, (shape, &len)) in shapes.iter().zip(&lens).enumerate() {
            if pass.needed[at] {
                let part = part(&gradient, start..start + len, lens.iter().sum());
                gradients[at] = Some(Tensor::from_vec(part, shape, pass.gradient.device())?);
            }
            start += len;
        }
        Ok(gradients)
    })
}

/// The same values in another shape of as many elements.
///
/// # Errors
/// An empty tensor, and a shape of more or fewer elements.
pub fn reshape(x: &Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    if shape.elem_count() != x.elem_count() {
        refuse!("reshape: x has shape {:?}, which is not made {:?}", x.dims(), shape.dims());
    }
    check::not_empty("reshape", "x", x)?;
    let x = &wide(x)?;
    #[cfg(feature = "cuda")]
    if crate::cuda::Stage::of(x).is_some() {
        let (y, before) = (crate::kernel::Made::copy_of(x)?, x.shape().clone());
        return node("reshape", &[x], y, shape, move |pass| Ok([Some(pass.gradient.reshape(&before)?), None, None]));
    }
    if !has_kernel(x) {
        return by_candle("reshape", &[x], move |x| x[0].reshape(&shape));
    }
    let x = x.contiguous()?;
    let (y, before) = (values(&x)?.to_vec(), x.shape().clone());
    node("reshape", &[&x], y, shape, move |pass| Ok([Some(pass.gradient.reshape(&before)?), None, None]))
}

/// Of each image `lens[i]` values of the `i`-th tensor, one after the other.
pub(crate) fn stacked(images: &[&[f32]], lens: &[usize]) -> Vec<f32> {
    let whole: usize = lens.iter().sum();
    let len = images.iter().map(|image| image.len()).sum();
    let write = |out: &mut [MaybeUninit<f32>]| {
        let mut pieces = Vec::new();
        for (at, mut out) in out.chunks_exact_mut(whole).enumerate() {
            for (image, &len) in images.iter().zip(lens) {
                let (part, rest) = out.split_at_mut(len);
                pieces.extend(part.chunks_mut(PIECE).zip(image[at * len..][..len].chunks(PIECE)));
                out = rest;
            }
        }
        copy(pieces);
    };
    // SAFETY: the parts cover each image, and each is copied to whole.
    unsafe { written(len, write) }
}

/// The values `range` of each run of `whole` values.
pub(crate) fn part(x: &[f32], range: std::ops::Range<usize>, whole: usize) -> Vec<f32> {
    let write = |out: &mut [MaybeUninit<f32>]| {
        let parts = out.chunks_exact_mut(range.len()).zip(x.chunks_exact(whole));
        copy(parts.flat_map(|(out, x)| out.chunks_mut(PIECE).zip(x[range.clone()].chunks(PIECE))).collect());
    };
    // SAFETY: there are as many parts as runs, and each is copied to whole.
    unsafe { written(x.len() / whole * range.len(), write) }
}

/// Fills each first slice with the second, which is as long.
fn copy(pieces: Vec<(&mut [MaybeUninit<f32>], &[f32])>) {
    deal_each(pieces, |(out, x)| {
        out.write_copy_of_slice(x);
    });
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::{cat, reshape};
    use crate::verify::{self, draw, refusal, values};

    #[test]
    fn holds_everywhere() {
        for channels in [vec![3], vec![1, 2], vec![5, 1, 3], vec![1, 2, 3, 1], vec![2, 1, 1, 3, 1]] {
            for (n, h, w) in [(1, 1, 1), (3, 5, 7), (2, 190, 181)] {
                let images: Vec<Tensor> = (1..).zip(&channels).map(|(seed, &c)| draw((n, c, h, w), seed)).collect();
                let stack = |images: &[Tensor]| cat(&images.iter().collect::<Vec<_>>());
                if n * h * w < 200 {
                    verify::assert_op(&stack, &images);
                }
                let expected = Tensor::cat(&images, 1).unwrap();
                assert_eq!(values(&stack(&images).unwrap()), values(&expected));
            }
        }
        verify::assert_op(&|x| reshape(&x[0], (5, 6)), &[draw((2, 3, 5), 1)]);
    }

    #[test]
    fn each_gradient_is_computed_alone() {
        let [a, b] = [draw((2, 3, 4, 5), 1), draw((2, 1, 4, 5), 2)];
        let cotangent = draw((2, 4, 4, 5), 3);
        let (_, gradients) = verify::differentiate(&|x| cat(&[&x[0], &b]), std::slice::from_ref(&a), &cotangent);
        assert_eq!(values(&gradients[0]), values(&cotangent.narrow(1, 0, 3).unwrap()));
        let (_, gradients) = verify::differentiate(&|x| cat(&[&a, &x[0]]), std::slice::from_ref(&b), &cotangent);
        assert_eq!(values(&gradients[0]), values(&cotangent.narrow(1, 3, 1).unwrap()));
        let (_, gradients) = verify::differentiate(&|x| cat(&[&x[0], &x[0]]), &[draw((2, 2, 4, 5), 1)], &cotangent);
        let sum = (cotangent.narrow(1, 0, 2).unwrap() + cotangent.narrow(1, 2, 2).unwrap()).unwrap();
        assert_eq!(values(&gradients[0]), values(&sum));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let [x, narrow] = [draw((2, 3, 4, 5), 1), draw((2, 3, 4, 4), 1)];
        assert_eq!(refusal(cat(&[])), "cat: no images");
        assert_eq!(refusal(cat(&[&x, &narrow])), "cat: image 1 has shape [2, 3, 4, 4], image 0 [2, 3, 4, 5]");
        let double = Tensor::zeros((2, 1, 4, 5), DType::F64, &Device::Cpu).unwrap();
        assert_eq!(refusal(cat(&[&x, &double])), "cat: image 1 is F64 where F32 is expected");
        assert_eq!(refusal(reshape(&x, (7, 2))), "reshape: x has shape [2, 3, 4, 5], which is not made [7, 2]");
    }
}
