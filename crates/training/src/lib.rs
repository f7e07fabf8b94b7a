//! One run: configuration, learners, loop, evaluation, checkpoints.
