//! One run: a recipe becomes networks, learns from pairs of photos and label maps, and is scored.
//!
//! Everything that a run is stands in its recipe ([`RunConfig`]); everything that it leaves stands in its directory ([`RunDir`]).
//!
//! ```
//! use img2seg_training::schedule::{Decay, Schedule, ScheduleConfig};
//! // A fifth of the steps to warm up, then half a cosine to 0.
//! let config = ScheduleConfig { warmup_epochs: 1.0, decay: Decay::Cosine {} };
//! let schedule = Schedule::new(&config, 5, 10);
//! assert!((schedule.factor(0) - 0.1).abs() < 1e-12 && (schedule.factor(9) - 1.0).abs() < 1e-12);
//! assert!(schedule.factor(49) < 0.01);
//! ```

pub mod checkpoint;
pub mod config;
pub mod divergence;
pub mod error;
pub mod evaluate;
pub mod evaluation_files;
pub mod find_lr;
pub mod learner;
pub mod loss;
pub mod manifest;
pub mod optimizer;
pub mod predict;
pub mod run_dir;
pub mod samples;
pub mod schedule;
pub mod scores;
pub mod trace;
pub mod train;
pub mod weights;

pub use config::RunConfig;
pub use error::TrainingError;
pub use learner::{Learner, Prediction};
pub use loss::Loss;
pub use run_dir::RunDir;
pub use scores::Scores;
pub use train::{Event, Outcome, Place, Requests, train};
