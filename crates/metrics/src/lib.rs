//! How well predicted classes match labelled ones.
