//! ChemNet: Mayr et al., 2018, whose last hidden states Preuer et al., 2018, compare in the
//! Fréchet ChemNet Distance.
//!
//! A SMILES becomes one-hot tokens, of which there are 35, divided by 35, at the first of 350
//! places; then come two convolutions of width 4 and stride 2 with SELU and padding `same`, an LSTM
//! that reads from the last place to the first, and one that reads from the first to the last,
//! whose last hidden state is the activation. Weights are those of the package `fcd`, in the names
//! of its PyTorch model; the encoding is that of its version 1.1, which the published scripts used:
//! a letter before `r`, `i` or `l` takes it along, what is not in the list is `X`, and `.` ends a
//! molecule, so that of several parts only the first counts. Version 1.2 reads `.` as a token and
//! fills up to the longest SMILES of a set, which gives other distances.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn_tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};

use crate::network::EncoderEntry;
use crate::tensor::device::{self, DeviceName};
use crate::tensor::exponential::{exp, sigmoid, tanh};
use crate::tensor::precision::matmul_f32;

/// Says what it is in the list of models.
pub(crate) const ENTRY: EncoderEntry =
    EncoderEntry { model_type: None, architecture: "ChemNet", outline: None };

/// The tokens, in the order of the input's channels.
const TOKENS: [&str; 35] = [
    "C", "N", "O", "H", "F", "Cl", "P", "B", "Br", "S", "I", "Si", "#", "(", ")", "+", "-", "1", "2", "3",
    "4", "5", "6", "7", "8", "=", "[", "]", "@", "c", "n", "o", "s", "X", ".",
];
const UNKNOWN: usize = 33;
const END: usize = 34;

/// The places of the input.
const PLACES: usize = 350;

/// The width of both convolutions, which move by half of it.
const KERNEL: usize = 4;

/// How many molecules are computed at once, on one thread.
const PIECE: usize = 128;

/// A file that ChemNet's weights cannot be read from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChemNetError {
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds no tensors.
    #[error("{} is not a file of safetensors: {detail}", .path.display())]
    NotTensors {
        /// The file.
        path: PathBuf,
        /// What the library said.
        detail: String,
    },
    /// A tensor is not there.
    #[error("{}: there is no tensor `{tensor}`, so it is not ChemNet", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor does not fit the others.
    #[error("{}: tensor `{tensor}` has shape {found:?}, and not {expected}", .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: String,
    },
    /// A tensor is not in f32.
    #[error("{}: tensor `{tensor}` is of {found}, and not of F32", .path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// A tensor has no place in the network.
    #[error("{}: tensor `{tensor}` has no place in ChemNet", .path.display())]
    Extra {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor holds what no weight can be.
    #[error("{}: tensor `{tensor}` holds NaN or infinity", .path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
}

/// The network up to its last hidden states. It computes on the CPU.
pub struct ChemNet {
    /// `[place][token][channel]`, each place's part of the window, tokens divided by their number.
    first: Vec<f32>,
    /// `[place][channel in][channel out]`.
    second: Vec<f32>,
    channels: usize,
    backward: Lstm,
    forward: Lstm,
}

impl ChemNet {
    /// Opens a file with the tensors `1.weight`, `4.weight` (convolutions), `8.*` and `11.*`
    /// (LSTMs, as `torch.nn.LSTM` names them).
    ///
    /// # Errors
    /// [`ChemNetError`], naming the file and the tensor.
    pub fn open(path: &Path) -> Result<Self, ChemNetError> {
        let unreadable = |source| ChemNetError::Unreadable { path: path.to_owned(), source };
        // A pipe or a device may never end.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(unreadable(std::io::Error::other("it is no file")));
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| ChemNetError::NotTensors { path: path.to_owned(), detail: error.to_string() })?;
        let mut file = File { path, tensors, seen: Vec::new() };
        let device = device::open(&DeviceName::Cpu).expect("there is always a CPU");
        let tokens = TOKENS.len();
        let [channels, ..] = file.shape::<3>("1.weight")?;
        let first = file.numbers("1.weight", &[channels, tokens, KERNEL])?;
        let second = file.numbers("4.weight", &[channels, channels, KERNEL])?;
        let first: Vec<f32> =
            by_place(&first, channels, tokens).map(|weight| weight / tokens as f32).collect();
        let second = by_place(&second, channels, channels).collect();
        let backward = Lstm::read(&mut file, "8", channels, &device)?;
        let forward = Lstm::read(&mut file, "11", backward.hidden, &device)?;
        let names = file.tensors.names();
        let extra = names.iter().filter(|name| !file.seen.iter().any(|seen| seen == *name)).min();
        match extra {
            Some(extra) => Err(ChemNetError::Extra { path: path.to_owned(), tensor: (**extra).to_owned() }),
            None => Ok(Self { first, second, channels, backward, forward }),
        }
    }

    /// Returns how many numbers an activation has: 512 in the published weights.
    pub fn width(&self) -> usize {
        self.forward.hidden
    }

    /// Returns the activations of molecules, given by their SMILES, which should be canonical.
    ///
    /// They are computed in pieces that do not depend on how many threads there are. `on_progress` is called with
    /// how many are done, and says whether to go on; if not, there is no result.
    pub fn activations(
        &self,
        smiles: &[&str],
        threads: usize,
        on_progress: &(dyn Fn(usize) -> bool + Sync),
    ) -> Option<Vec<Vec<f32>>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
        let pool = pool.expect("threads can be started");
        let done = AtomicUsize::new(0);
        let pieces: Option<Vec<Vec<Vec<f32>>>> = pool.install(|| {
            smiles
                .par_chunks(PIECE)
                .map(|piece| {
                    let activations = self.piece(piece);
                    let before = done.fetch_add(piece.len(), Ordering::Relaxed);
                    on_progress(before + piece.len()).then_some(activations)
                })
                .collect()
        });
        Some(pieces?.into_iter().flatten().collect())
    }

    fn piece(&self, smiles: &[&str]) -> Vec<Vec<f32>> {
        let (rows, channels) = (smiles.len(), self.channels);
        let places = halved(halved(PLACES));
        let mut sequence = vec![0.0; places * rows * channels];
        for (row, smiles) in smiles.iter().enumerate() {
            let convolved = self.convolve(&encode(smiles));
            for (place, numbers) in convolved.chunks_exact(channels).enumerate() {
                sequence[(place * rows + row) * channels..][..channels].copy_from_slice(numbers);
            }
        }
        let width = rows * self.backward.hidden;
        let mut read = vec![0.0; places * width];
        self.backward.run(&sequence, rows, (0..places).rev(), |place, hidden| {
            read[place * width..][..width].copy_from_slice(hidden);
        });
        let last = self.forward.run(&read, rows, 0..places, |_, _| {});
        last.chunks_exact(self.forward.hidden).map(<[f32]>::to_vec).collect()
    }

    /// Convolves the tokens of a molecule twice: `[place][channel]`.
    fn convolve(&self, tokens: &[usize]) -> Vec<f32> {
        let channels = self.channels;
        let add = |sum: &mut [f32], weights: &[f32], by: f32| {
            sum.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight * by);
        };
        let mut once = vec![0.0; halved(PLACES) * channels];
        for (place, sum) in once.chunks_exact_mut(channels).enumerate() {
            for (at, from) in window(place) {
                if let Some(token) = from.and_then(|from| tokens.get(from)) {
                    add(sum, &self.first[(at * TOKENS.len() + token) * channels..][..channels], 1.0);
                }
            }
            sum.iter_mut().for_each(|sum| *sum = selu(*sum));
        }
        let mut twice = vec![0.0; halved(halved(PLACES)) * channels];
        for (place, sum) in twice.chunks_exact_mut(channels).enumerate() {
            for (at, from) in window(place) {
                let Some(inputs) = from.and_then(|from| once.chunks_exact(channels).nth(from)) else {
                    continue;
                };
                for (channel, input) in inputs.iter().enumerate() {
                    add(sum, &self.second[(at * channels + channel) * channels..][..channels], *input);
                }
            }
            sum.iter_mut().for_each(|sum| *sum = selu(*sum));
        }
        twice
    }
}

/// Returns how many places are left of some after a convolution: every second.
fn halved(places: usize) -> usize {
    places.div_ceil(2)
}

/// Returns the places that a place after a convolution sees. Padding `same` begins with one place,
/// be the number of places even or odd.
fn window(place: usize) -> impl Iterator<Item = (usize, Option<usize>)> {
    (0..KERNEL).map(move |at| (at, (2 * place + at).checked_sub(1)))
}

/// Turns `[out][in][place]` into `[place][in][out]`.
fn by_place(weights: &[f32], out: usize, inputs: usize) -> impl Iterator<Item = f32> {
    let at = move |place: usize, from: usize, to: usize| weights[(to * inputs + from) * KERNEL + place];
    (0..KERNEL)
        .flat_map(move |place| (0..inputs).flat_map(move |from| (0..out).map(move |to| at(place, from, to))))
}

/// Klambauer et al., 2017, with PyTorch's constants.
fn selu(x: f32) -> f32 {
    const ALPHA: f32 = 1.673_263_2;
    const SCALE: f32 = 1.050_701;
    SCALE * if x > 0.0 { x } else { ALPHA * (exp(x) - 1.0) }
}

/// Returns the tokens of a SMILES, as version 1.1 of `fcd` finds them.
fn encode(smiles: &str) -> Vec<usize> {
    let mut tokens = Vec::with_capacity(smiles.len() + 1);
    let mut rest = smiles;
    while tokens.len() < PLACES - 1 && !rest.is_empty() && (tokens.is_empty() || !rest.starts_with('.')) {
        let mut letters = rest.char_indices().skip(1);
        let end = match letters.next() {
            Some((_, 'r' | 'i' | 'l')) => letters.next().map_or(rest.len(), |(next, _)| next),
            Some((next, _)) => next,
            None => rest.len(),
        };
        let (token, behind) = rest.split_at(end);
        tokens.push(TOKENS.iter().position(|known| *known == token).unwrap_or(UNKNOWN));
        rest = behind;
    }
    tokens.push(END);
    tokens
}

/// Hochreiter and Schmidhuber, 1997, with a forget gate, as `torch.nn.LSTM` computes it.
struct Lstm {
    /// `[inputs + hidden, 4 hidden]`: what inputs and hidden states are multiplied by for the input
    /// gate, the forget gate, the cell and the output gate.
    weights: Tensor<2>,
    /// `[4 hidden]`.
    bias: Vec<f32>,
    inputs: usize,
    hidden: usize,
    device: Device,
}

impl Lstm {
    fn read(file: &mut File<'_>, layer: &str, inputs: usize, device: &Device) -> Result<Self, ChemNetError> {
        let name = |part: &str| format!("{layer}.{part}_l0");
        let [gates, hidden] = file.shape::<2>(&name("weight_hh"))?;
        let of_hidden = file.numbers(&name("weight_hh"), &[4 * hidden, hidden])?;
        let of_inputs = file.numbers(&name("weight_ih"), &[gates, inputs])?;
        let mut bias = file.numbers(&name("bias_ih"), &[gates])?;
        let other = file.numbers(&name("bias_hh"), &[gates])?;
        bias.iter_mut().zip(other).for_each(|(bias, other)| *bias += other);
        let mut weights = Vec::with_capacity((inputs + hidden) * gates);
        for (numbers, width) in [(&of_inputs, inputs), (&of_hidden, hidden)] {
            weights.extend((0..width).flat_map(|from| (0..gates).map(move |to| numbers[to * width + from])));
        }
        let weights = Tensor::from_data(TensorData::new(weights, [inputs + hidden, gates]), device);
        Ok(Self { weights, bias, inputs, hidden, device: device.clone() })
    }

    /// Reads places of `[place][row][input]` one after the other, gives the hidden states
    /// `[row][hidden]` after each, and returns the last.
    fn run(
        &self,
        sequence: &[f32],
        rows: usize,
        places: impl Iterator<Item = usize>,
        mut on_progress: impl FnMut(usize, &[f32]),
    ) -> Vec<f32> {
        let (inputs, hidden) = (self.inputs, self.hidden);
        let mut states = vec![0.0; rows * hidden];
        let mut cells = states.clone();
        for place in places {
            let mut both = Vec::with_capacity(rows * (inputs + hidden));
            let read = &sequence[place * rows * inputs..][..rows * inputs];
            for (read, state) in read.chunks_exact(inputs).zip(states.chunks_exact(hidden)) {
                both.extend_from_slice(read);
                both.extend_from_slice(state);
            }
            let both = Tensor::<2>::from_data(TensorData::new(both, [rows, inputs + hidden]), &self.device);
            let gates = matmul_f32(both, self.weights.clone()).into_data();
            let mut gates = gates.try_into_vec::<f32>().expect("products are f32");
            let rows = states.chunks_exact_mut(hidden).zip(cells.chunks_exact_mut(hidden));
            for ((states, cells), gates) in rows.zip(gates.chunks_exact_mut(4 * hidden)) {
                self.step(gates, states, cells);
            }
            on_progress(place, &states);
        }
        states
    }

    /// Moves the cells and states of one row by one step.
    fn step(&self, gates: &mut [f32], states: &mut [f32], cells: &mut [f32]) {
        gates.iter_mut().zip(&self.bias).for_each(|(sum, bias)| *sum += bias);
        let (input, rest) = gates.split_at(self.hidden);
        let (forget, rest) = rest.split_at(self.hidden);
        let (cell, output) = rest.split_at(self.hidden);
        let kept = cells.iter_mut().zip(input.iter().zip(forget).zip(cell));
        kept.for_each(|(kept, ((input, forget), cell))| {
            *kept = sigmoid(*forget) * *kept + sigmoid(*input) * tanh(*cell);
        });
        let states = states.iter_mut().zip(cells.iter().zip(output));
        states.for_each(|(state, (cell, output))| *state = sigmoid(*output) * tanh(*cell));
    }
}

/// The tensors of a file, each checked against what is asked for.
struct File<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    seen: Vec<String>,
}

impl File<'_> {
    fn view(&self, name: &str) -> Result<safetensors::tensor::TensorView<'_>, ChemNetError> {
        let missing = |_| ChemNetError::Missing { path: self.path.to_owned(), tensor: name.to_owned() };
        self.tensors.tensor(name).map_err(missing)
    }

    /// Returns the shape of a tensor that the sizes of others are told by.
    fn shape<const D: usize>(&self, name: &str) -> Result<[usize; D], ChemNetError> {
        let found = self.view(name)?.shape().to_vec();
        let wrong = |found| {
            let (path, tensor, expected) = (self.path.to_owned(), name.to_owned(), format!("{D} dimensions"));
            ChemNetError::Shape { path, tensor, found, expected }
        };
        let shape: [usize; D] = found.try_into().map_err(wrong)?;
        if shape.contains(&0) { Err(wrong(shape.to_vec())) } else { Ok(shape) }
    }

    fn numbers(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>, ChemNetError> {
        let view = self.view(name)?;
        let (path, tensor) = (self.path.to_owned(), name.to_owned());
        if view.shape() != expected {
            let (found, expected) = (view.shape().to_vec(), format!("{expected:?}"));
            return Err(ChemNetError::Shape { path, tensor, found, expected });
        }
        if view.dtype() != Dtype::F32 {
            return Err(ChemNetError::Dtype { path, tensor, found: format!("{:?}", view.dtype()) });
        }
        let (numbers, []) = view.data().as_chunks::<4>() else {
            unreachable!("the library checks that tensors are as long as their shapes say");
        };
        let numbers: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if !numbers.iter().all(|number| number.is_finite()) {
            return Err(ChemNetError::NotFinite { path, tensor });
        }
        self.seen.push(tensor);
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> PathBuf {
        crate::testing::golden("chemnet")
    }

    fn go_on(_: usize) -> bool {
        true
    }

    #[test]
    fn activations_are_pytorchs() {
        let net = ChemNet::open(&golden().join("chemnet.safetensors")).unwrap();
        let text = std::fs::read(golden().join("expected.json")).unwrap();
        let expected: Vec<(String, Vec<f32>)> = serde_json::from_slice(&text).unwrap();
        let smiles: Vec<&str> = expected.iter().map(|(smiles, _)| smiles.as_str()).collect();
        let actual = net.activations(&smiles, 1, &go_on).unwrap();
        for ((smiles, expected), actual) in expected.iter().zip(&actual) {
            assert_eq!(actual.len(), net.width());
            let off = actual.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-5, "{smiles}: {off}");
        }
        assert!(expected.len() > 5);
    }

    #[test]
    fn threads_and_neighbours_change_nothing() {
        let net = ChemNet::open(&golden().join("chemnet.safetensors")).unwrap();
        let smiles: Vec<String> = (0..2 * PIECE + 3).map(|length| "C".repeat(1 + length % 360)).collect();
        let smiles: Vec<&str> = smiles.iter().map(String::as_str).collect();
        let one = net.activations(&smiles, 1, &go_on).unwrap();
        assert_eq!(net.activations(&smiles, 3, &go_on).unwrap(), one);
        assert_eq!(net.activations(&smiles[PIECE..], 2, &go_on).unwrap(), one[PIECE..]);
        assert_eq!(net.activations(&smiles, 2, &|_| false), None);
        assert_eq!(net.activations(&[], 2, &go_on), Some(Vec::new()));
    }

    #[test]
    fn smiles_are_encoded_as_in_version_1_1() {
        let named = |smiles| encode(smiles).into_iter().map(|token| TOKENS[token]).collect::<Vec<_>>();
        assert_eq!(named("CCl"), ["C", "Cl", "."]);
        // What has two letters and is not in the list is one unknown; so is a letter before `l`.
        assert_eq!(named("[Al]Br"), ["[", "X", "]", "Br", "."]);
        assert_eq!(named("C[Si]/C"), ["C", "[", "Si", "]", "X", "C", "."]);
        assert_eq!(named("CC(=O)[O-].[Na+]"), ["C", "C", "(", "=", "O", ")", "[", "O", "-", "]", "."]);
        assert_eq!(named(""), ["."]);
        let long = named(&"N".repeat(1000));
        assert_eq!((long.len(), long[PLACES - 2], long[PLACES - 1]), (PLACES, "N", "."));
    }

    #[test]
    fn files_that_are_not_chemnet_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let open = |bytes: &[u8]| {
            let path = folder.path().join("chemnet.safetensors");
            std::fs::write(&path, bytes).unwrap();
            ChemNet::open(&path).err().expect("it is not ChemNet").to_string()
        };
        assert!(open(b"PK").contains("is not a file of safetensors"));
        let bytes = std::fs::read(golden().join("chemnet.safetensors")).unwrap();
        assert!(open(&bytes[..bytes.len() - 4]).contains("is not a file of safetensors"));
        type Tensors = std::collections::BTreeMap<String, (Vec<usize>, Vec<u8>)>;
        let edited = |change: &dyn Fn(&mut Tensors)| {
            let read = SafeTensors::deserialize(&bytes).unwrap();
            let mut tensors = read
                .iter()
                .map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), view.data().to_vec())))
                .collect();
            change(&mut tensors);
            let views = tensors.iter().map(|(name, (shape, data))| {
                let view = safetensors::tensor::TensorView::new(Dtype::F32, shape.clone(), data);
                (name.as_str(), view.unwrap())
            });
            open(&safetensors::serialize(views, None).unwrap())
        };
        let error = edited(&|tensors| drop(tensors.remove("8.bias_hh_l0")));
        assert!(error.ends_with("there is no tensor `8.bias_hh_l0`, so it is not ChemNet"), "{error}");
        let error = edited(&|tensors| tensors.get_mut("4.weight").unwrap().0.swap(0, 2));
        assert!(error.ends_with("tensor `4.weight` has shape [4, 3, 3], and not [3, 3, 4]"), "{error}");
        let error = edited(&|tensors| {
            let weight = tensors["4.weight"].clone();
            tensors.insert("14.weight".to_owned(), weight);
        });
        assert!(error.ends_with("tensor `14.weight` has no place in ChemNet"), "{error}");
        let error = edited(&|tensors| {
            tensors.get_mut("1.weight").unwrap().1[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        });
        assert!(error.ends_with("tensor `1.weight` holds NaN or infinity"), "{error}");
        let error = ChemNet::open(&folder.path().join("none")).err().unwrap().to_string();
        assert!(error.starts_with("cannot read "), "{error}");
    }
}
