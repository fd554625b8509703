//! Numbers of a training as TensorBoard reads them.
//!
//! An event file is a row of TFRecords, each the bytes of an `Event` of TensorBoard's protocol
//! buffers (`event.proto`, `summary.proto`) between their length and two masked CRC-32C sums
//! (`record_writer.h`). The few fields that scalars need are written by hand. What says when an
//! event was is its step, not a clock, so that the same training gives the same bytes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use learn::{Point, Rewards, Throughput};

/// The name of the file; TensorBoard looks for `tfevents` in it.
pub(crate) const EVENTS_FILE: &str = "events.out.tfevents.0.pipeline";

/// Numbers by their tags, of one step.
pub(crate) type Scalars = (usize, Vec<(String, f64)>);

/// Writes numbers into a folder.
///
/// # Errors
/// Those of the file system.
pub(crate) fn write_events(folder: &Path, all: impl IntoIterator<Item = Scalars>) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(folder.join(EVENTS_FILE))?);
    let mut version = Vec::new();
    number(&mut version, 1, 0.0);
    text(&mut version, 3, b"brain.Event:2");
    record(&mut file, &version)?;
    for (step, scalars) in all {
        record(&mut file, &event(step, &scalars))?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Returns the numbers of a point of the curves.
pub(crate) fn curve_scalars(point: &Point) -> Scalars {
    let (step, group, loss, rewards) = match point {
        Point::Step(step) => (step.step, "train", step.loss, step.rewards),
        Point::Validation(look) => (look.step, "validation", look.validation_loss, look.validation_rewards),
    };
    let mut scalars = vec![(format!("{group}/loss"), loss)];
    if let Point::Step(step) = point {
        scalars.push((format!("{group}/learning_rate"), step.learning_rate));
        scalars.push((format!("{group}/gradient_norm"), step.gradient_norm));
        scalars.push((format!("{group}/epoch"), step.epoch));
    }
    if let Some(Rewards { chosen, rejected, margin, accuracy, divergence }) = rewards {
        let named = [
            ("chosen", chosen),
            ("rejected", rejected),
            ("margin", margin),
            ("accuracy", accuracy),
            ("divergence", divergence),
        ];
        let known = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
        scalars.extend(known.map(|(name, value)| (format!("{group}/rewards/{name}"), value)));
    }
    (step, scalars)
}

/// Returns the numbers of what a step took of the machine.
pub(crate) fn throughput_scalars(step: &Throughput) -> Scalars {
    let gibibytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / f64::from(1 << 30));
    let named = [
        ("throughput/tokens_per_second", Some(step.tokens_per_second)),
        ("throughput/seconds", Some(step.seconds)),
        ("memory/process_gib", gibibytes(step.memory_bytes)),
        ("memory/process_peak_gib", gibibytes(step.peak_memory_bytes)),
        ("memory/devices_gib", gibibytes(step.device_memory_bytes)),
    ];
    let known = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    (step.step, known.collect())
}

/// Returns the bytes of an event with these numbers.
fn event(step: usize, scalars: &[(String, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in scalars {
        let mut one = Vec::new();
        text(&mut one, 1, tag.as_bytes());
        // `simple_value`, a single float.
        one.push((2 << 3) | 5);
        one.extend((*value as f32).to_le_bytes());
        text(&mut summary, 1, &one);
    }
    let mut event = Vec::new();
    number(&mut event, 1, step as f64);
    event.push(2 << 3);
    varint(&mut event, step as u64);
    text(&mut event, 5, &summary);
    event
}

/// Adds a field with a double.
fn number(bytes: &mut Vec<u8>, field: u8, value: f64) {
    bytes.push((field << 3) | 1);
    bytes.extend(value.to_le_bytes());
}

/// Adds a field with bytes, a text or a message.
fn text(bytes: &mut Vec<u8>, field: u8, value: &[u8]) {
    bytes.push((field << 3) | 2);
    varint(bytes, value.len() as u64);
    bytes.extend(value);
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Writes one TFRecord.
fn record(file: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    file.write_all(&length)?;
    file.write_all(&masked(&length).to_le_bytes())?;
    file.write_all(data)?;
    file.write_all(&masked(data).to_le_bytes())
}

fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use learn::{StepPoint, ValidationPoint};

    #[test]
    fn sums_are_masked_as_tensorflow_masks_them() {
        // From TensorFlow's `crc32c_test.cc`: the sum of 32 zeros is 0x8a9136aa.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked(&[0; 32]), 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn points_become_scalars_by_step() {
        let folder = tempfile::tempdir().unwrap();
        let step = StepPoint {
            step: 300,
            epoch: 1.0,
            loss: 1.5,
            learning_rate: 1e-3,
            gradient_norm: 0.25,
            target_tokens: 7,
            rewards: None,
        };
        let rewards = Rewards {
            chosen: Some(1.0),
            rejected: None,
            margin: None,
            accuracy: None,
            divergence: Some(0.5),
        };
        let look = ValidationPoint {
            step: 300,
            epoch: 1.0,
            validation_loss: 2.0,
            best: true,
            validation_rewards: Some(rewards),
        };
        let throughput = Throughput {
            step: 300,
            seconds: 0.5,
            tokens: 100,
            tokens_per_second: 200.0,
            memory_bytes: Some(1 << 29),
            peak_memory_bytes: Some(1 << 30),
            device_memory_bytes: None,
        };
        let points = [Point::Step(step), Point::Validation(look)];
        let all = points.iter().map(curve_scalars).chain([throughput_scalars(&throughput)]);
        write_events(folder.path(), all).unwrap();
        let bytes = std::fs::read(folder.path().join(EVENTS_FILE)).unwrap();
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            let (sum, after) = after.split_at(4);
            assert_eq!(sum, masked(length).to_le_bytes());
            let (data, after) = after.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (sum, after) = after.split_at(4);
            assert_eq!(sum, masked(data).to_le_bytes());
            records.push(data.to_vec());
            rest = after;
        }
        assert_eq!(records.len(), 4);
        assert_eq!(&records[0][11..], b"brain.Event:2");
        // 300 is two bytes of seven bits.
        assert_eq!(&records[1][9..12], [2 << 3, 0xac, 0x02]);
        let holds = |record: &[u8], tag: &str, value: f32| {
            let mut wanted = tag.as_bytes().to_vec();
            wanted.push((2 << 3) | 5);
            wanted.extend(value.to_le_bytes());
            record.windows(wanted.len()).any(|part| part == wanted)
        };
        assert!(holds(&records[1], "train/loss", 1.5) && holds(&records[1], "train/gradient_norm", 0.25));
        assert!(holds(&records[2], "validation/loss", 2.0));
        assert!(holds(&records[2], "validation/rewards/divergence", 0.5));
        assert!(!holds(&records[2], "validation/rewards/rejected", 0.0));
        assert!(holds(&records[3], "throughput/tokens_per_second", 200.0));
        assert!(holds(&records[3], "memory/process_gib", 0.5));
        assert!(!records[3].windows(11).any(|part| part == b"devices_gib"));
    }
}
