//! How much memory stages will need, estimated before anything runs.
//!
//! Node by node, inputs first, each kind estimates the memory it needs and says what it knows of its
//! outputs. What it knows of an output is an [`OutputHint`], which the engine passes to the stages that
//! read the output and does not interpret. Files are read by a function that the caller passes in.

use std::collections::BTreeMap;
use std::path::Path;

use crate::kind::memory::{Amount, Estimate, EstimateContext, Machine, Memory, Need, OutputHint};
use crate::plan::graph::Plan;
use crate::plan::node::Node;

/// How much memory the stages of a plan need.
#[derive(Debug, Clone)]
pub struct MemoryForecast(Vec<Memory>);

/// Whether a stage has room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It has, or nobody knows.
    Fits,
    /// It has not if its inputs hold what is usual; the message says so.
    MayNotFit(String),
    /// It has not, whatever its inputs hold; the message says so.
    CannotFit(String),
}

impl MemoryForecast {
    /// Estimates the memory of every node of a plan. `read` returns the text of a file, if it can be read.
    pub fn new(plan: &Plan, machine: &Machine, read: &dyn Fn(&Path) -> Option<String>) -> Self {
        let mut hints: Vec<BTreeMap<String, OutputHint>> = Vec::with_capacity(plan.nodes().len());
        let mut memories = Vec::with_capacity(plan.nodes().len());
        for node in plan.nodes() {
            let inputs = node.inputs().iter();
            let inputs = inputs.map(|edge| (edge.port.as_str(), hints[edge.from].get(&edge.output)));
            let context = EstimateContext {
                inputs: inputs.collect(),
                device: &machine.device,
                cores: node.resources().cores.min(machine.cores),
                read,
            };
            let Estimate { memory, outputs } = node.kind().estimate(&node.params, &node.tuning, &context);
            hints.push(outputs);
            memories.push(declared(node).unwrap_or(memory));
        }
        Self(memories)
    }

    /// Takes only what the experiment declares.
    pub fn none(plan: &Plan) -> Self {
        Self(plan.nodes().iter().map(|node| declared(node).unwrap_or_default()).collect())
    }

    /// Returns what a node needs.
    pub fn of(&self, node: usize) -> &Memory {
        &self.0[node]
    }

    /// Returns the bytes that a node likely takes, of the machine and of the device.
    pub fn likely(&self, node: usize) -> (u64, u64) {
        match &self.0[node] {
            Memory::Known(need) => (need.machine.likely, need.device.likely),
            Memory::Little | Memory::Unknown(_) => (0, 0),
        }
    }

    /// Says whether a node has room on a machine.
    pub fn fit(&self, node: usize, machine: &Machine) -> Fit {
        let Memory::Known(need) = &self.0[node] else { return Fit::Fits };
        let places = [
            (need.machine, Some(machine.memory_bytes), "this machine".to_owned()),
            (need.device, machine.device_memory_bytes, format!("`{}`", machine.device.0)),
        ];
        let assuming = if need.assuming.is_empty() { String::new() } else { format!(" {}", need.assuming) };
        let mut fit = Fit::Fits;
        for (amount, there_is, place) in places {
            let Some(there_is) = there_is else { continue };
            if amount.least > there_is {
                let (least, there_is) = (bytes(amount.least), bytes(there_is));
                return Fit::CannotFit(format!("needs at least {least} of memory; {place} has {there_is}"));
            }
            if amount.likely > there_is {
                let (likely, there_is) = (bytes(amount.likely), bytes(there_is));
                fit = Fit::MayNotFit(format!(
                    "likely needs {likely} of memory{assuming}; {place} has {there_is}"
                ));
            }
        }
        fit
    }
}

/// Returns what the experiment says that a stage needs, which counts for more than what is estimated.
/// It is no reason to refuse the stage: who wrote it may know better.
fn declared(node: &Node) -> Option<Memory> {
    let likely = node.resources().memory_bytes;
    let machine = Amount { least: 0, likely };
    (likely > 0).then(|| Memory::Known(Need { machine, device: Amount::default(), assuming: String::new() }))
}

/// Writes a number of bytes for people.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = bytes as f64;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if scaled < 100.0 => format!("{scaled:.1} {}", UNITS[unit]),
        _ => format!("{scaled:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::device::Device;

    #[test]
    fn bytes_are_put_for_people() {
        let put = [0, 1023, 1024, 1_500_000, 107 << 30].map(bytes);
        assert_eq!(put, ["0 B", "1023 B", "1.0 KiB", "1.4 MiB", "107 GiB"]);
    }

    #[test]
    fn what_cannot_fit_is_told_from_what_may_not() {
        let need = |least: u64, likely: u64| Amount { least: least << 30, likely: likely << 30 };
        let known = |machine, device| {
            Memory::Known(Need { machine, device, assuming: "for texts of 512 words".to_owned() })
        };
        let little = Amount::default();
        let memory_forecast = MemoryForecast(vec![
            known(need(1, 2), little),
            known(need(1, 9), little),
            known(need(9, 20), little),
            known(need(1, 1), need(40, 50)),
            known(need(1, 1), need(90, 99)),
            Memory::Unknown("why".to_owned()),
        ]);
        let machine = |device_memory_bytes| Machine {
            cores: 2,
            memory_bytes: 8 << 30,
            device: Device("cuda:0".to_owned()),
            device_memory_bytes,
        };
        let fits = |node, device| memory_forecast.fit(node, &machine(device));
        assert_eq!(fits(0, None), Fit::Fits);
        assert_eq!(
            fits(1, None),
            Fit::MayNotFit(
                "likely needs 9.0 GiB of memory for texts of 512 words; this machine has 8.0 GiB".to_owned()
            )
        );
        let cannot = "needs at least 9.0 GiB of memory; this machine has 8.0 GiB";
        assert_eq!(fits(2, None), Fit::CannotFit(cannot.to_owned()));
        assert_eq!(fits(3, Some(80 << 30)), Fit::Fits);
        let cannot = "needs at least 90.0 GiB of memory; `cuda:0` has 80.0 GiB";
        assert_eq!(fits(4, Some(80 << 30)), Fit::CannotFit(cannot.to_owned()));
        assert_eq!((fits(4, None), fits(5, None)), (Fit::Fits, Fit::Fits));
    }
}
