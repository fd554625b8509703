//! Everything that makes and runs models, on whatever device there is.
//!
//! The only crate that names burn. It refuses to know what a stage, a key or a cache is.
//!
//! ```
//! let cpu: learn::DeviceName = "cpu".parse()?;
//! assert!(learn::available().contains(&cpu));
//! # Ok::<(), learn::DeviceError>(())
//! ```

mod device;

pub use device::{DeviceError, DeviceName, available, check};
