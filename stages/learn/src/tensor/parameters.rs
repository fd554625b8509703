//! The parameters of a model, by the names that transformers gives them.

use burn_tensor::{Device, FloatDType, Tensor};

use crate::tensor::device::is_cpu;

/// One named tensor of a model, and whether training changes it.
#[derive(Debug, Clone)]
pub(crate) struct Parameter<const D: usize> {
    /// Its numbers, in the shape that files have.
    pub value: Tensor<D>,
    /// Whether training changes it.
    pub requires_grad: bool,
}

impl<const D: usize> Parameter<D> {
    /// Makes a parameter that training changes.
    pub(crate) fn new(value: Tensor<D>) -> Self {
        Self { value, requires_grad: true }
    }

    /// Returns the numbers, for computing.
    pub(crate) fn get(&self) -> Tensor<D> {
        self.value.clone()
    }
}

/// A parameter of either rank.
pub(crate) enum ParameterRef<'a> {
    /// A norm's gain, a bias.
    Vector(&'a mut Parameter<1>),
    /// A projection, an embedding.
    Matrix(&'a mut Parameter<2>),
}

impl ParameterRef<'_> {
    /// Says whether training changes it.
    pub(crate) fn requires_grad(&self) -> bool {
        match self {
            Self::Vector(parameter) => parameter.requires_grad,
            Self::Matrix(parameter) => parameter.requires_grad,
        }
    }

    /// Says whether training is to change it.
    pub(crate) fn set_requires_grad(&mut self, requires_grad: bool) {
        match self {
            Self::Vector(parameter) => parameter.requires_grad = requires_grad,
            Self::Matrix(parameter) => parameter.requires_grad = requires_grad,
        }
    }

    /// Returns its shape.
    pub(crate) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Vector(parameter) => parameter.value.dims().to_vec(),
            Self::Matrix(parameter) => parameter.value.dims().to_vec(),
        }
    }

    /// Returns its numbers in a row, as f32.
    pub(crate) fn flat(&self) -> Tensor<1> {
        match self {
            Self::Vector(parameter) => parameter.get(),
            Self::Matrix(parameter) => parameter.get().cast(FloatDType::F32).flatten(0, 1),
        }
    }

    /// Keeps a matrix that training does not change in bf16, on devices that compute in it.
    pub(crate) fn cast_to_bf16(&mut self) {
        if let Self::Matrix(parameter) = self
            && !parameter.requires_grad
            && !is_cpu(&parameter.value.device())
        {
            parameter.value = parameter.get().cast(FloatDType::BF16);
        }
    }

    /// Takes numbers in a row, as many as it has.
    pub(crate) fn set_flat(&mut self, numbers: Tensor<1>) {
        let shape = self.shape();
        self.put_back(numbers, &shape);
    }

    /// Takes its numbers out, in a row, and leaves none: what holds them alone can change them in
    /// their place. Also returns the shape, for [`ParameterRef::put_back`].
    pub(crate) fn take_out(&mut self) -> (Tensor<1>, Vec<usize>) {
        let shape = self.shape();
        let numbers = match self {
            Self::Vector(parameter) => {
                let none = Tensor::zeros([0], &parameter.value.device());
                std::mem::replace(&mut parameter.value, none)
            }
            Self::Matrix(parameter) => {
                let none = Tensor::zeros([0, 0], &parameter.value.device());
                std::mem::replace(&mut parameter.value, none).flatten(0, 1)
            }
        };
        (numbers, shape)
    }

    /// Puts numbers where others were taken out.
    pub(crate) fn put_back(&mut self, numbers: Tensor<1>, shape: &[usize]) {
        match self {
            Self::Vector(parameter) => parameter.value = numbers,
            Self::Matrix(parameter) => parameter.value = numbers.reshape([shape[0], shape[1]]),
        }
    }

    /// Moves it to a device.
    pub(crate) fn move_to(&mut self, device: &Device) {
        match self {
            Self::Vector(parameter) => parameter.value = parameter.get().to_device(device),
            Self::Matrix(parameter) => parameter.value = parameter.get().to_device(device),
        }
    }

    /// Puts it on a tape: a leaf if training changes it, a constant if not.
    pub(crate) fn record(&mut self) {
        fn leaf<const D: usize>(parameter: &mut Parameter<D>) {
            let value = parameter.get().autodiff();
            parameter.value = if parameter.requires_grad { value.require_grad() } else { value };
        }
        match self {
            Self::Vector(parameter) => leaf(parameter),
            Self::Matrix(parameter) => leaf(parameter),
        }
    }

    /// Makes a constant of it, beside the tape that it was on.
    pub(crate) fn forget(&mut self) {
        match self {
            Self::Vector(parameter) => parameter.value = parameter.get().inner().autodiff(),
            Self::Matrix(parameter) => parameter.value = parameter.get().inner().autodiff(),
        }
    }

    /// Takes its gradient off a tape, in a row.
    pub(crate) fn take_gradient(&self, tape: &mut burn_tensor::Gradients) -> Option<Tensor<1>> {
        match self {
            Self::Vector(parameter) => parameter.value.grad_remove(tape),
            Self::Matrix(parameter) => parameter.value.grad_remove(tape).map(|found| found.flatten(0, 1)),
        }
    }
}

/// Something with named parameters.
pub(crate) trait Parameters {
    /// Shows every parameter in a fixed order, with its full name.
    fn visit(&mut self, see: &mut dyn FnMut(String, ParameterRef<'_>));

    /// Returns the names of the parameters, in that order.
    #[cfg(test)]
    fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        self.visit(&mut |name, _| names.push(name));
        names
    }
}
