//! What a kind can say of a stage before it runs: how much memory it needs, and what its outputs are like.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::process::device::Device;

/// What is known of an artifact before it is made.
pub type OutputHint = serde_json::Value;

/// What a kind says of one stage, before it runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Estimate {
    /// What it needs of memory.
    pub memory: Memory,
    /// What is known of its outputs, by their names.
    pub outputs: BTreeMap<String, OutputHint>,
}

/// What a stage needs of memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Memory {
    /// So little that it does not matter.
    #[default]
    Little,
    /// Nobody knows, and why.
    Unknown(String),
    /// So much.
    Known(Need),
}

/// How much memory a stage needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Of the machine.
    pub machine: Amount,
    /// Of the device, where that has memory of its own.
    pub device: Amount,
    /// What `likely` takes for granted of the inputs, as in "for texts of 512 words"; may be empty.
    pub assuming: String,
}

/// A number of bytes that is not known exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// What is needed whatever the inputs hold.
    pub least: u64,
    /// What is needed if they hold what is usual.
    pub likely: u64,
}

/// What a kind can look at when it estimates a stage.
pub struct EstimateContext<'a> {
    pub(crate) inputs: Vec<(&'a str, Option<&'a OutputHint>)>,
    pub(crate) device: &'a Device,
    pub(crate) cores: u32,
    pub(crate) read: &'a dyn Fn(&Path) -> Option<String>,
}

impl EstimateContext<'_> {
    /// Returns what is known of the first input of a port.
    pub fn input(&self, port: &str) -> Option<&OutputHint> {
        self.inputs.iter().find(|(name, _)| *name == port)?.1
    }

    /// Returns whether a port has an input.
    pub fn has_input(&self, port: &str) -> bool {
        self.inputs.iter().any(|(name, _)| *name == port)
    }

    /// Returns the name of the device that it is to compute on.
    pub fn device(&self) -> &str {
        &self.device.0
    }

    /// Returns how many threads it may keep busy.
    pub fn cores(&self) -> u32 {
        self.cores
    }

    /// Returns the text of a file that a parameter names, or of one in a folder that it names; none
    /// if it cannot be read.
    pub fn read(&self, path: &Path) -> Option<String> {
        (self.read)(path)
    }
}

/// Where a plan is to run.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The cores that all stages together may keep busy.
    pub cores: u32,
    /// The memory that all stages together may take, in bytes.
    pub memory_bytes: u64,
    /// Where to compute.
    pub device: Device,
    /// The memory of that device, if it has any of its own and it is known.
    pub device_memory_bytes: Option<u64>,
}
