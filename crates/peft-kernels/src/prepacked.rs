//! A frozen matrix laid out once for products in both directions.

use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::cross_entropy::{Weight, of_product};
use crate::fused::{Array, is_fast_device};
use crate::linear::{LinearParts, linear, product};
use crate::matmul::{Panels, Source};
use crate::weight::{Element, PackedWeight};

/// A frozen matrix, laid out for products with it on the CPU; the gradient's products have
/// it laid out the other way round, from the first one on.
#[derive(Debug, Clone)]
pub struct PrepackedMatrix {
    sides: Arc<Sides>,
    /// Whether this is the matrix transposed.
    transposed: bool,
    device: Device,
}

/// The matrix and its transpose; one is there.
#[derive(Debug, Default)]
struct Sides {
    straight: OnceLock<Panels>,
    transposed: OnceLock<Panels>,
}

impl PrepackedMatrix {
    /// Whether there are products with such matrices on this device.
    pub fn is_supported(device: &Device) -> bool {
        is_fast_device(device)
    }

    /// The matrix `[rows, columns]` with these numbers, row after row.
    ///
    /// # Panics
    /// If there are not as many numbers, or it is [not supported](Self::is_supported) on this
    /// device.
    pub fn new(values: &[f32], shape: [usize; 2], element: Element, device: &Device) -> Self {
        Self::of(Source::new(values, shape), element, device)
    }

    /// The transpose of the matrix `[rows, columns]` with these numbers, row after row.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn transposed(
        values: &[f32],
        shape: [usize; 2],
        element: Element,
        device: &Device,
    ) -> Self {
        Self::of(Source::new(values, shape).transposed(), element, device)
    }

    fn of(source: Source<'_>, element: Element, device: &Device) -> Self {
        assert!(Self::is_supported(device), "no products with laid out matrices on {device:?}");
        let straight = Panels::on_all_cores(source, element);
        let sides = Sides { straight: straight.into(), ..Sides::default() };
        let device = device.clone().without_autodiff();
        Self { sides: Arc::new(sides), transposed: false, device }
    }

    /// The same matrix, transposed, over the same numbers.
    pub(crate) fn flipped(&self) -> Self {
        Self { transposed: !self.transposed, ..self.clone() }
    }

    /// `x W`.
    pub(crate) fn times(&self, x: &Array) -> Array {
        product(x, self)
    }

    /// For products `x W`.
    pub(crate) fn forward(&self) -> &Panels {
        self.side(self.transposed)
    }

    /// For products `y Wᵀ`.
    pub(crate) fn backward(&self) -> &Panels {
        self.side(!self.transposed)
    }

    fn side(&self, transposed: bool) -> &Panels {
        let Sides { straight, transposed: flipped } = &*self.sides;
        let (wanted, other) = if transposed { (flipped, straight) } else { (straight, flipped) };
        if let Some(panels) = wanted.get() {
            return panels;
        }
        // Not while others wait for it: a core that waits for the rest of this may meanwhile be
        // given a task that asks for the same.
        let other = other.get().expect("one of the sides is there");
        let values = other.dense();
        let values = Source::new(&values, [other.depth(), other.columns()]);
        let panels = Panels::on_all_cores(values.transposed(), other.element());
        wanted.get_or_init(|| panels)
    }

    /// The side that is there, and whether it is the other one.
    fn any(&self) -> (&Panels, bool) {
        let Sides { straight, transposed } = &*self.sides;
        match (straight.get(), transposed.get()) {
            (Some(panels), _) => (panels, self.transposed),
            (None, Some(panels)) => (panels, !self.transposed),
            (None, None) => unreachable!("one of the sides is there"),
        }
    }
}

impl PackedWeight for PrepackedMatrix {
    fn dims(&self) -> [usize; 2] {
        let (panels, flipped) = self.any();
        let shape = [panels.depth(), panels.columns()];
        if flipped { [shape[1], shape[0]] } else { shape }
    }

    fn num_bytes(&self) -> usize {
        self.dims().iter().product::<usize>() * self.any().0.element().num_bytes()
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn dense(&self) -> Tensor<2> {
        let (panels, flipped) = self.any();
        let data = TensorData::new(panels.dense(), [panels.depth(), panels.columns()]);
        let dense = Tensor::<2>::from_data(data, (&self.device, DType::F32));
        if flipped { dense.transpose() } else { dense }
    }

    fn transpose(&self) -> Arc<dyn PackedWeight> {
        Arc::new(self.flipped())
    }

    fn product(&self, input: Tensor<2>) -> Tensor<2> {
        linear(input, self, LinearParts::default())
    }

    fn linear(&self, input: Tensor<2>, parts: LinearParts) -> Tensor<2> {
        linear(input, self, parts)
    }

    fn cross_entropy(
        &self,
        input: Tensor<2>,
        bias: Option<Tensor<1>>,
        classes: Tensor<1, Int>,
    ) -> Tensor<1> {
        of_product(input, Weight::LaidOut(self.clone()), bias, classes)
    }

    fn rows(&self, indices: Tensor<1, Int>) -> Tensor<2> {
        let indices: Vec<i64> = indices.into_data().iter().collect();
        let [rows, columns] = self.dims();
        let (panels, flipped) = self.any();
        let mut values = Vec::with_capacity(indices.len() * columns);
        for row in &indices {
            let row = usize::try_from(*row).ok().filter(|row| *row < rows);
            let row = row.expect("a row of the matrix");
            let of = |column| if flipped { panels.at(column, row) } else { panels.at(row, column) };
            values.extend((0..columns).map(of));
        }
        let data = TensorData::new(values, [indices.len(), columns]);
        Tensor::from_data(data, (&self.device, DType::F32))
    }
}
