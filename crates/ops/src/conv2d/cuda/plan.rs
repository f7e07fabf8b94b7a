//! One direction of a convolution as cuDNN plans it: described as a graph of one or two operations, for which cuDNN lists engines.
#![allow(clippy::enum_glob_use, reason = "C's names carry the name of their enumeration")]

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cudnn::CudnnError;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t::*, cudnnBackendDescriptorType_t::*, cudnnBackendHeurMode_t as Heuristic,
    cudnnBackendNumericalNote_t as Note, cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION, cudnnDataType_t as Type,
    cudnnHandle_t, cudnnPointwiseMode_t::CUDNN_POINTWISE_ADD,
};

use super::backend::Descriptor;
use super::direction::Direction;
use crate::Exactness;
use crate::conv2d::Geometry;
use crate::cuda::Algorithms;
use crate::kernel::Order;

pub(super) type Fallible<T> = Result<T, CudnnError>;

/// What tensors are called in a graph.
const IMAGE: i64 = 1;
const KERNEL: i64 = 2;
const RESULT: i64 = 3;
pub(super) const BIAS: i64 = 4;
const BEFORE_BIAS: i64 = 5;

/// The names of the two tensors that a direction takes, and of what it gives.
pub(super) fn names(direction: Direction) -> [i64; 3] {
    match direction {
        Direction::Forward => [IMAGE, KERNEL, RESULT],
        Direction::InputGradient => [RESULT, KERNEL, IMAGE],
        Direction::WeightGradient => [IMAGE, RESULT, KERNEL],
    }
}

/// What a plan is made for, and all that it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) direction: Direction,
    pub(super) geometry: Geometry,
    pub(super) order: Order,
    /// Whether tensors are of bf16, not f32. Sums are in f32.
    pub(super) narrow: bool,
    /// Whether an f32 bias is added to the result.
    pub(super) biased: bool,
}

/// An engine with its settings, ready to run.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) descriptor: Arc<Descriptor>,
    /// Bytes of the workspace.
    pub(super) workspace: usize,
}

impl Plan {
    fn new(handle: cudnnHandle_t, engine: &Arc<Descriptor>) -> Fallible<Self> {
        let mut plan = Descriptor::new(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
        plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, &[handle])?;
        plan.take(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &[engine])?;
        let descriptor = plan.finish()?;
        let workspace = descriptor.number(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)?;
        Ok(Self { descriptor, workspace: usize::try_from(workspace).unwrap_or(0) })
    }
}

/// Bytes of a workspace that says little against an engine, and that is kept. In one that needs more, tensors are copied into another order
/// first.
pub(super) const SMALL_WORKSPACE: usize = 33 << 20;

/// A workspace that is not worth its memory.
const LARGE_WORKSPACE: usize = 1 << 30;

/// A workspace without parts of sums that are added up afterwards.
const NO_WORKSPACE: usize = 1 << 20;

/// Engines of a list that are looked at: the first are the ones that cuDNN expects to be fastest.
const LOOKED_AT: usize = 8;

/// Of these, those that are as good as the first.
const NEAR: usize = 4;

/// Plans to choose from, the first of which is the one that does not depend on a measurement; none where cuDNN has no engine.
pub(super) fn plans(handle: cudnnHandle_t, wanted: &Wanted, algorithms: Algorithms) -> Fallible<Vec<Plan>> {
    let graph = graph(handle, wanted)?;
    let needs_parts = !fills_device(wanted);
    let mut plans: Vec<(Plan, bool)> = Vec::new();
    let mut chosen: Option<Plan> = None;
    for heuristic in heuristics(wanted.geometry.exactness) {
        if heuristic == Heuristic::CUDNN_HEUR_MODE_FALLBACK && !plans.is_empty() {
            break;
        }
        let mut looked_at = 0;
        for engine in engines(&graph, heuristic)? {
            let notes = notes(&engine)?;
            if !may_run(&notes, wanted.geometry.exactness, algorithms) {
                continue;
            }
            let Ok(plan) = Plan::new(handle, &engine) else { continue };
            if plan.workspace > LARGE_WORKSPACE || hides_rounding(wanted, &plan) {
                continue;
            }
            looked_at += 1;
            let on_tensor_cores = notes.contains(&(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE as u32));
            let is_like_first = plans.first().is_none_or(|&(_, first)| first == on_tensor_cores);
            if algorithms == Algorithms::Deterministic && is_like_first && plan.workspace <= SMALL_WORKSPACE {
                if needs_parts || plan.workspace < NO_WORKSPACE {
                    return Ok(vec![plan]);
                }
                chosen = chosen.or(Some(plan.clone()));
            }
            if chosen.is_some() && looked_at >= NEAR {
                break;
            }
            plans.push((plan, on_tensor_cores));
            if looked_at == LOOKED_AT {
                break;
            }
        }
        if let Some(chosen) = chosen {
            return Ok(vec![chosen]);
        }
    }
    Ok(plans.into_iter().map(|(plan, _)| plan).collect())
}

/// Lists of engines in the order in which they are asked for. Of those for f32 the second one has the better engines in front, as measured
/// for all convolutions of a U-Net's and a generator's step; on tensor cores they differ by about 3 % at most.
fn heuristics(exactness: Exactness) -> [Heuristic; 3] {
    use Heuristic::{CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK};
    match exactness {
        Exactness::Direct => [CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK],
        Exactness::Fast | Exactness::Bf16 => [CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK],
    }
}

/// Whether results are so many that a device is busy with them, each summed up in one place.
fn fills_device(wanted: &Wanted) -> bool {
    /// Pixels, and channels, that a block of threads works on.
    const SIDE: usize = 128;
    /// Blocks, some for each multiprocessor.
    const MANY: usize = 256;
    let [_, _, [n, c, h, w]] = wanted.direction.shapes(&wanted.geometry);
    (n * h * w).div_ceil(SIDE) * c.div_ceil(SIDE) >= MANY
}

/// Engines with their settings, the most promising first.
fn engines(graph: &Arc<Descriptor>, heuristic: Heuristic) -> Fallible<Vec<Arc<Descriptor>>> {
    let mut list = Descriptor::new(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?;
    list.take(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[graph])?;
    list.set(CUDNN_ATTR_ENGINEHEUR_MODE, &[heuristic])?;
    // There may be no such list for a graph.
    let Ok(list) = list.finish() else { return Ok(Vec::new()) };
    list.others(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
}

fn notes(engine: &Arc<Descriptor>) -> Fallible<Vec<u32>> {
    let of = engine.others(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
    of.first().map_or(Ok(Vec::new()), |engine| engine.notes(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE))
}

/// Whether an engine with these notes computes what is asked for.
fn may_run(notes: &[u32], exactness: Exactness, algorithms: Algorithms) -> bool {
    let has = |note: Note| notes.contains(&(note as u32));
    let rounds = has(Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)
        || has(Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)
        || has(Note::CUDNN_NUMERICAL_NOTE_FFT)
        || has(Note::CUDNN_NUMERICAL_NOTE_WINOGRAD)
        || has(Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4)
        || has(Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6)
        || has(Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13);
    let rounds_to_tf32 = exactness == Exactness::Direct && has(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
    // Sums in the order in which threads finish.
    let differs = algorithms == Algorithms::Deterministic && has(Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
    !(rounds || rounds_to_tf32 || differs)
}

/// Whether an engine must round more than sums of f32 products do, although cuDNN has no note of that: in workspaces of over a hundred MiB there
/// are some for gradients of 3x3 kernels that take less than half the time in which an H200 could multiply. 5x5 is the other size that cuDNN
/// has Winograd's transforms for.
fn hides_rounding(wanted: &Wanted, plan: &Plan) -> bool {
    let g = &wanted.geometry;
    let may_have_tiles = matches!(g.kernel, (3, 3) | (5, 5)) && g.stride == (1, 1);
    g.exactness == Exactness::Direct
        && wanted.direction == Direction::WeightGradient
        && may_have_tiles
        && plan.workspace > SMALL_WORKSPACE
}

/// The convolution, and the bias after it.
fn graph(handle: cudnnHandle_t, wanted: &Wanted) -> Fallible<Arc<Descriptor>> {
    let Wanted { direction, geometry: g, order, narrow, biased } = *wanted;
    let dtype = if narrow { Type::CUDNN_DATA_BFLOAT16 } else { Type::CUDNN_DATA_FLOAT };
    let [image, kernel, result] = Direction::Forward.shapes(&g);
    let image = tensor(IMAGE, dtype, image, order)?;
    let kernel = tensor(KERNEL, dtype, kernel, order)?;
    let result = if biased { between(BEFORE_BIAS, result, order)? } else { tensor(RESULT, dtype, result, order)? };
    let mut operations = vec![convolution(direction, &g, [&image, &kernel, &result])?];
    if biased {
        let [_, _, [n, c, h, w]] = Direction::Forward.shapes(&g);
        let bias = tensor(BIAS, Type::CUDNN_DATA_FLOAT, [1, c, 1, 1], order)?;
        let sum = tensor(RESULT, dtype, [n, c, h, w], order)?;
        operations.push(addition(&result, &bias, &sum)?);
    }
    let mut graph = Descriptor::new(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
    graph.take(CUDNN_ATTR_OPERATIONGRAPH_OPS, &operations.iter().collect::<Vec<_>>())?;
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, &[handle])?;
    graph.finish()
}

fn convolution(
    direction: Direction,
    g: &Geometry,
    [image, kernel, result]: [&Arc<Descriptor>; 3],
) -> Fallible<Arc<Descriptor>> {
    let pair = |(y, x): (usize, usize)| [y as i64, x as i64];
    let mut settings = Descriptor::new(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?;
    settings.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, &[Type::CUDNN_DATA_FLOAT])?;
    settings.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, &[CUDNN_CROSS_CORRELATION])?;
    settings.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2i64])?;
    settings.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &pair(g.padding))?;
    settings.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &pair(g.padding))?;
    settings.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &pair(g.stride))?;
    settings.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, &pair(g.dilation))?;
    let settings = settings.finish()?;
    let (kind, [of_image, of_kernel, of_result, of_settings, alpha, beta]) = match direction {
        Direction::Forward => (
            CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        Direction::InputGradient => (
            CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        Direction::WeightGradient => (
            CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    };
    let mut operation = Descriptor::new(kind)?;
    operation.take(of_image, &[image])?;
    operation.take(of_kernel, &[kernel])?;
    operation.take(of_result, &[result])?;
    operation.take(of_settings, &[&settings])?;
    operation.set(alpha, &[1f32])?;
    operation.set(beta, &[0f32])?;
    operation.finish()
}

fn addition(x: &Arc<Descriptor>, bias: &Arc<Descriptor>, sum: &Arc<Descriptor>) -> Fallible<Arc<Descriptor>> {
    let mut settings = Descriptor::new(CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?;
    settings.set(CUDNN_ATTR_POINTWISE_MODE, &[CUDNN_POINTWISE_ADD])?;
    settings.set(CUDNN_ATTR_POINTWISE_MATH_PREC, &[Type::CUDNN_DATA_FLOAT])?;
    let settings = settings.finish()?;
    let mut operation = Descriptor::new(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)?;
    operation.take(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &[&settings])?;
    operation.take(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &[x])?;
    operation.take(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &[bias])?;
    operation.take(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &[sum])?;
    operation.finish()
}

/// A tensor that is somewhere.
fn tensor(name: i64, dtype: Type, shape: [usize; 4], order: Order) -> Fallible<Arc<Descriptor>> {
    described(name, dtype, shape, order)?.finish()
}

/// An f32 tensor that goes from operation to operation and is nowhere.
fn between(name: i64, shape: [usize; 4], order: Order) -> Fallible<Arc<Descriptor>> {
    let mut tensor = described(name, Type::CUDNN_DATA_FLOAT, shape, order)?;
    tensor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, &[true])?;
    tensor.finish()
}

/// (n, c, h, w), or a kernel (out, in, h, w), in this order.
fn described(name: i64, dtype: Type, shape: [usize; 4], order: Order) -> Fallible<Descriptor> {
    /// Where each tensor starts.
    const ALIGNMENT: i64 = 16;
    let [n, c, h, w] = shape.map(|size| size as i64);
    let strides = match order {
        Order::Planes => [c * h * w, h * w, w, 1],
        Order::Pixels => [c * h * w, 1, w * c, c],
    };
    let mut tensor = Descriptor::new(CUDNN_BACKEND_TENSOR_DESCRIPTOR)?;
    tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, &[name])?;
    tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, &[dtype])?;
    tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, &[n, c, h, w])?;
    tensor.set(CUDNN_ATTR_TENSOR_STRIDES, &strides)?;
    tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[ALIGNMENT])?;
    Ok(tensor)
}
