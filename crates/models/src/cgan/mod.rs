//! The conditional GAN of the lab report: a generator that paints a label map for a photo, and a discriminator that judges pairs of
//! photo and label map.

mod discriminator;
mod generator;

pub use discriminator::{Discriminator, DiscriminatorConfig};
pub use generator::{Generator, GeneratorConfig};

/// Photos and label maps are RGB.
const COLOURS: usize = 3;

/// The slope of both networks' LeakyReLU below 0 (Listings 2 and 3).
const SLOPE: f64 = 0.2;

#[cfg(test)]
mod tests;
