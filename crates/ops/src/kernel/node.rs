//! Kernels and candle: results, on the CPU or a CUDA device, with a backward pass as nodes of candle's graph and of ours.
//!
//! candle's graph cannot be read from outside, so each node keeps a record of its own: what it was made from, and how to
//! go back. `backward` goes along the records, candle's `Tensor::backward` along its own graph; both call the same passes.

mod gradient;
mod in_candle;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, Result, Shape, Storage, Tensor, TensorId, Var};

use super::Order;
use super::values::{has_kernel, lend, values};
use crate::check::refuse;
pub(crate) use gradient::Gradient;
use in_candle::{Link, Node};

/// What a backward pass is given.
pub(crate) struct Pass<'a> {
    /// The gradient of the node's value, in f32 unless the node takes bf16, contiguous or, where that is in the order of pixels, in that order.
    pub(crate) gradient: &'a Tensor,
    /// Whether nobody else sees its storage.
    is_own: bool,
    /// Which inputs take a gradient.
    pub(crate) needed: [bool; MOST_INPUTS],
    /// The first input's gradient by other uses, if that may be added to in place.
    so_far: Cell<Option<Tensor>>,
    beside: Option<&'a Beside<'a>>,
}

/// Computes the gradients of two neighbouring inputs, parameters.
pub(crate) type OfParameters = Box<dyn FnOnce() -> Result<[Option<Gradient>; 2]> + Send>;

/// Hands these out to be computed, those of the input of this number and the next, or gives them back.
pub(crate) type Beside<'a> = dyn Fn(usize, OfParameters) -> Option<OfParameters> + 'a;

impl Pass<'_> {
    /// The gradient, to be handed on or written over: itself, or a copy where candle has it too. It is to be read no more by `gradient`.
    pub(crate) fn take_gradient(&self) -> Result<Tensor> {
        if self.is_own { Ok(self.gradient.clone()) } else { self.gradient.copy() }
    }

    /// What `work` makes of the gradient in place, given the values of `of`, and what it gives; both are f32 on the CPU, in memories of their own.
    /// The gradient is to be read no more by `gradient`.
    pub(crate) fn overwritten<R>(
        &self,
        of: &Tensor,
        work: impl FnOnce(&mut [f32], &[f32]) -> R,
    ) -> Result<(Tensor, R)> {
        let (gradient, of) = (self.take_gradient()?, values(of)?);
        let given = lend(&gradient, |gradient| Ok(work(gradient, &of)))?;
        Ok((gradient, given))
    }

    /// The sum of the gradients that the first input has by its other uses so far, contiguous and in f32 on the CPU: whoever takes it
    /// adds to it in place, and gives the sum for the gradient. None where there is none yet, or nobody knows.
    pub(crate) fn take_so_far(&self) -> Option<Tensor> {
        self.so_far.take()
    }

    /// Has the gradients of the input `at` and the next, parameters, computed beside this pass and those that follow. Where nobody can they are
    /// given back, to be computed by the pass; otherwise it gives none for these inputs.
    pub(crate) fn beside(&self, at: usize, of: OfParameters) -> Option<OfParameters> {
        match self.beside {
            Some(beside) if self.needed[at..].contains(&true) => beside(at, of),
            _ => Some(of),
        }
    }
}

/// Inputs of a node, at most.
pub(super) const MOST_INPUTS: usize = 4;

/// Gradients of the inputs, none for those that are not needed. They have to come from detached tensors, or each
/// would keep the whole graph alive; and nothing else may use their storage, since gradients of other uses are added to
/// them in place. The node's own gradient may be handed on.
pub(crate) type InputGradients<const N: usize = 3, G = Tensor> = [Option<G>; N];

/// Whether a result of these takes part in a graph.
pub(crate) fn is_tracked(inputs: &[&Tensor]) -> bool {
    inputs.iter().any(|x| x.track_op())
}

type Backward = dyn Fn(&Pass) -> Result<InputGradients<MOST_INPUTS, Gradient>> + Send + Sync;

/// What kernels have computed: as many values as its shape says, of f32 if nothing is said of them.
pub(crate) struct Made(pub(crate) Storage);

impl From<Vec<f32>> for Made {
    fn from(values: Vec<f32>) -> Self {
        Self(Storage::Cpu(CpuStorage::F32(values)))
    }
}

impl Made {
    /// The values of a tensor in the order of planes, in memory of their own.
    pub(crate) fn copy_of(x: &Tensor) -> Result<Self> {
        // The whole of a storage, and nobody else's.
        let x = Order::Planes.arrange(&x.detach())?.force_contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        storage.try_clone(layout).map(Self)
    }
}

/// A result that kernels have computed from up to [`MOST_INPUTS`] inputs, in both graphs if one of them is. `backward` gives as many
/// gradients as there are inputs, or none for what follows them.
pub(crate) fn node<const N: usize, G: Into<Gradient>>(
    name: &'static str,
    inputs: &[&Tensor],
    result: impl Into<Made>,
    shape: impl Into<Shape>,
    backward: impl Fn(&Pass) -> Result<InputGradients<N, G>> + Send + Sync + 'static,
) -> Result<Tensor> {
    node_in(Order::Planes, name, inputs, result, shape, backward)
}

/// [`node`] of a result that lies in this order; in that of pixels `shape` is an image's.
pub(crate) fn node_in<const N: usize, G: Into<Gradient>>(
    order: Order,
    name: &'static str,
    inputs: &[&Tensor],
    result: impl Into<Made>,
    shape: impl Into<Shape>,
    backward: impl Fn(&Pass) -> Result<InputGradients<N, G>> + Send + Sync + 'static,
) -> Result<Tensor> {
    make_node(order, false, name, inputs, result.into(), shape.into(), backward)
}

/// [`node_in`] whose way back takes a gradient in bf16 as it is, in the order of pixels; others are given it in f32.
pub(crate) fn node_taking_bf16<const N: usize, G: Into<Gradient>>(
    order: Order,
    name: &'static str,
    inputs: &[&Tensor],
    result: impl Into<Made>,
    shape: impl Into<Shape>,
    backward: impl Fn(&Pass) -> Result<InputGradients<N, G>> + Send + Sync + 'static,
) -> Result<Tensor> {
    make_node(order, order == Order::Pixels, name, inputs, result.into(), shape.into(), backward)
}

fn make_node<const N: usize, G: Into<Gradient>>(
    order: Order,
    takes_bf16: bool,
    name: &'static str,
    inputs: &[&Tensor],
    Made(result): Made,
    mut shape: Shape,
    backward: impl Fn(&Pass) -> Result<InputGradients<N, G>> + Send + Sync + 'static,
) -> Result<Tensor> {
    if order == Order::Pixels {
        let (n, c, h, w) = shape.dims4()?;
        shape = Shape::from(&order.shape([n, c, h, w])[..]);
    }
    if let Storage::Cpu(CpuStorage::F32(values)) = &result
        && values.len() != shape.elem_count()
    {
        refuse!("{name}: its result does not fill {shape:?}");
    }
    if !is_tracked(inputs) {
        return order.seen(&Tensor::from_storage(result, shape, BackpropOp::none(), false));
    }
    let backward = move |pass: &Pass| {
        let mut gradients = backward(pass)?.into_iter();
        Ok(std::array::from_fn(|_| gradients.next().flatten().map(Into::into)))
    };
    let record = Arc::new(Record::new(order, takes_bf16, inputs, Box::new(backward)));
    let last = Arc::default();
    let result = Mutex::new(Some((result, shape)));
    let node = Node { name, result, record: record.clone(), last: Arc::clone(&last) };
    let result = match *inputs {
        [a] => a.apply_op1(node),
        [a, b] => a.apply_op2(b, node),
        [a, b, c] => a.apply_op3(b, c, node),
        [a, b, c, d] => a.apply_op3(b, &c.apply_op2(d, Link { gradient: last })?, node),
        _ => refuse!("{name}: nodes have one to {MOST_INPUTS} inputs, not {}", inputs.len()),
    }?;
    let result = order.seen(&result)?;
    record.id.get_or_init(|| result.id());
    records().insert(result.id(), Arc::downgrade(&record));
    Ok(result)
}

/// [`node_taking_bf16`] whose way back is given the result, and keeps that instead of an input: what follows keeps it too, as a rule.
pub(crate) fn node_of_result<const N: usize, G: Into<Gradient>>(
    order: Order,
    name: &'static str,
    inputs: &[&Tensor],
    result: impl Into<Made>,
    shape: impl Into<Shape>,
    backward: impl Fn(&Pass, &Tensor) -> Result<InputGradients<N, G>> + Send + Sync + 'static,
) -> Result<Tensor> {
    let result_of = Arc::new(OnceLock::new());
    let kept = Arc::clone(&result_of);
    let y = node_taking_bf16(order, name, inputs, result, shape, move |pass| match kept.get() {
        Some(y) => backward(pass, y),
        None => refuse!("{name}: it has no result yet"),
    })?;
    result_of.get_or_init(|| y.detach()); // which keeps no graph
    Ok(y)
}

/// What an op of candle's makes of `inputs`. On a CUDA device it is a node of both graphs, or the way back would be candle's all the way: the
/// op is applied to tensors without a gradient and, when one is asked for, to variables of the same values.
pub(crate) fn by_candle(
    name: &'static str,
    inputs: &[&Tensor],
    op: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    if inputs.iter().all(|x| x.device().is_cuda() && x.dtype() == DType::F32) && is_tracked(inputs) {
        return recorded(name, inputs, op);
    }
    op(&inputs.iter().map(|&x| x.clone()).collect::<Vec<_>>())
}

fn recorded(
    name: &'static str,
    inputs: &[&Tensor],
    op: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let detached = inputs.iter().map(|x| Order::Planes.arrange(&x.detach())).collect::<Result<Vec<_>>>()?;
    let y = op(&detached)?;
    let result = Made::copy_of(&y)?;
    node(name, inputs, result, y.shape(), move |pass| {
        let input = |(at, x): (usize, &Tensor)| {
            if pass.needed[at] { Ok(Var::from_tensor(x)?.into_inner()) } else { Ok(x.clone()) }
        };
        let inputs = detached.iter().enumerate().map(input).collect::<Result<Vec<_>>>()?;
        let mut of = (op(&inputs)? * pass.gradient)?.sum_all()?.backward()?;
        let mut gradients = InputGradients::<MOST_INPUTS>::default();
        for (at, x) in inputs.iter().enumerate().filter(|&(at, _)| pass.needed[at]) {
            gradients[at] = Some(match of.remove(x) {
                Some(gradient) => gradient.detach().force_contiguous()?,
                None => x.zeros_like()?,
            });
        }
        Ok(gradients)
    })
}

/// How a tensor of ours was made, for as long as its node in candle's graph or a later record needs it.
pub(crate) struct Record {
    /// Counts all records: what a record is made from comes before it.
    pub(super) order: u64,
    pub(super) inputs: Vec<Source>,
    /// How its result lies.
    result_order: Order,
    /// Whether the result's gradient may be bf16.
    takes_bf16: bool,
    id: OnceLock<TensorId>,
    backward: Box<Backward>,
}

/// Where an input of a record comes from.
pub(crate) enum Source {
    /// No gradient is needed.
    Constant,
    Variable(TensorId),
    Record(Arc<Record>),
    /// From variables by an op of candle's, which only candle can go back through.
    Candle,
}

impl Source {
    pub(crate) fn of(x: &Tensor) -> Self {
        if x.is_variable() {
            return Self::Variable(x.id());
        }
        if !x.track_op() {
            return Self::Constant;
        }
        let record = records().get(&x.id()).and_then(Weak::upgrade);
        record.map_or(Self::Candle, Self::Record)
    }
}

impl Record {
    fn new(result_order: Order, takes_bf16: bool, inputs: &[&Tensor], backward: Box<Backward>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self {
            order: COUNT.fetch_add(1, Ordering::Relaxed),
            inputs: inputs.iter().map(|x| Source::of(x)).collect(),
            result_order,
            takes_bf16,
            id: OnceLock::new(),
            backward,
        }
    }

    /// Whether the input of this number takes a gradient.
    #[cfg(test)]
    pub(crate) fn needs(&self, at: usize) -> bool {
        self.inputs.get(at).is_some_and(|input| !matches!(input, Source::Constant))
    }

    /// Gradients of the inputs, given that of the result, which may be written over if it is the caller's own. The gradient that the first
    /// input has so far may become part of its gradient, or is left. Those of parameters may be handed out to `beside`.
    pub(crate) fn pass(
        &self,
        gradient: &Tensor,
        is_own: bool,
        so_far: &mut Option<Tensor>,
        beside: Option<&Beside>,
    ) -> Result<InputGradients<MOST_INPUTS, Gradient>> {
        let mut needed = [false; MOST_INPUTS];
        for (needed, input) in needed.iter_mut().zip(&self.inputs) {
            *needed = !matches!(input, Source::Constant);
        }
        let gradient = if self.takes_bf16 { gradient.clone() } else { in_f32(gradient)? };
        let gradient = arranged(self.result_order, &gradient)?;
        let fitting = so_far.take_if(|sum| has_kernel(sum) && sum.is_contiguous());
        let pass = Pass { gradient: &gradient, is_own, needed, so_far: Cell::new(fitting), beside };
        let gradients = (self.backward)(&pass)?;
        if let Some(sum) = pass.so_far.take() {
            *so_far = Some(sum);
        }
        Ok(gradients)
    }
}

/// What is bf16 in f32, in the order in which it lies, without a gradient; anything else as it is.
pub(crate) fn in_f32(x: &Tensor) -> Result<Tensor> {
    if x.dtype() != DType::BF16 {
        return Ok(x.clone());
    }
    #[cfg(feature = "cuda")]
    if let Some(stage) = crate::cuda::Stage::of_image(x) {
        return crate::cuda::moves::widened(&stage, x)?.into_tensor_like(x);
    }
    let (order, x) = (Order::of(x), x.detach());
    order.seen(&order.stored(&x)?.to_dtype(DType::F32)?)
}

/// What ops of this crate have left in bf16 on a CUDA device, in f32, for an op that takes no other; anything else as it is.
#[cfg_attr(not(feature = "cuda"), allow(clippy::unnecessary_wraps, reason = "a device may have no memory left"))]
pub(crate) fn wide(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(stage) = crate::cuda::Stage::of_image(x).filter(|_| x.dtype() == DType::BF16) {
        let y = crate::cuda::moves::widened(&stage, x)?;
        return node_in(Order::of(x), "wide", &[x], y, x.shape(), |pass| Ok([Some(pass.gradient.clone()), None, None]));
    }
    Ok(x.clone())
}

/// The same values in this order, without a gradient of their own.
fn arranged(order: Order, x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.rank() == 4
        && let Some(stage) = crate::cuda::Stage::of(x)
    {
        return crate::cuda::moves::arrange(&stage, order, x);
    }
    order.arrange(&x.detach())
}

/// The records of all tensors that are alive in candle's graph.
fn records() -> MutexGuard<'static, HashMap<TensorId, Weak<Record>>> {
    static RECORDS: LazyLock<Mutex<HashMap<TensorId, Weak<Record>>>> = LazyLock::new(Mutex::default);
    RECORDS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) fn is_recorded(id: TensorId) -> bool {
    records().contains_key(&id)
}

#[cfg(test)]
mod tests {
    use candle_core::{Tensor, Var};

    use super::recorded;
    use crate::verify::{self, draw, values};

    #[test]
    fn what_candle_computes_is_recorded() {
        let op = |x: &[Tensor]| recorded("product", &[&x[0], &x[1]], |x| (&x[0] * x[1].sqr()?)?.tanh());
        let plain = |x: &[Tensor]| (&x[0] * x[1].sqr()?)?.tanh();
        let inputs = [draw((2, 3, 4, 5), 1), draw((2, 3, 4, 5), 2)];
        let cotangent = draw((2, 3, 4, 5), 3);
        let by = |op: verify::Op| verify::differentiate(op, &inputs, &cotangent);
        let ((y, gradients), (expected, expected_gradients)) = (by(&op), by(&plain));
        assert_eq!(values(&y), values(&expected));
        for (gradient, expected) in gradients.iter().zip(&expected_gradients) {
            assert_eq!(values(gradient), values(expected));
        }
        verify::assert_strided(&op, &inputs);
        let variable = Var::from_tensor(&inputs[0]).unwrap();
        let gradients = crate::backward(op(&[variable.as_tensor().clone(), inputs[1].clone()]).unwrap()).unwrap();
        assert!(!gradients.through_candle() && gradients.len() == 1);
    }
}
