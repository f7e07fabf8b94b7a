//! Differentiable ops for candle tensors.
