//! A packed matrix on a device, as the weight of a frozen layer.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::PackedTensor;
use crate::cross_entropy::{Weight, of_product};
use crate::{LinearParts, PackedWeight};

/// A packed matrix `[rows, columns]`, or that matrix transposed.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    tensor: Arc<PackedTensor>,
    transposed: bool,
    device: Device,
}

impl PackedMatrix {
    /// Whether there is a product with packed matrices on this device.
    pub fn is_supported(device: &Device) -> bool {
        #[cfg(feature = "flex")]
        return super::product::is_supported(device);
        #[cfg(not(feature = "flex"))]
        {
            let _ = device;
            false
        }
    }

    /// The matrix with the rows of `tensor`, whatever layout Hugging Face has.
    ///
    /// # Panics
    /// If it is not a matrix, or [not supported](Self::is_supported) on this device.
    pub fn new(tensor: PackedTensor, device: &Device) -> Self {
        assert_eq!(tensor.shape().len(), 2, "a matrix");
        assert!(Self::is_supported(device), "no product with packed matrices on {device:?}");
        Self { tensor: Arc::new(tensor), transposed: false, device: device.clone() }
    }

    /// The same matrix, transposed, over the same bytes.
    pub fn flipped(&self) -> Self {
        Self { transposed: !self.transposed, ..self.clone() }
    }

    /// How it is packed.
    pub fn tensor(&self) -> &PackedTensor {
        &self.tensor
    }

    /// Whether this is the packed matrix transposed.
    pub fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// `[rows, columns]` of the packed matrix.
    pub(crate) fn packed_shape(&self) -> [usize; 2] {
        [self.tensor.shape()[0], self.tensor.shape()[1]]
    }

    /// `[d_in, d_out]` of products with it.
    #[cfg(feature = "flex")]
    pub(crate) fn product_shape(&self) -> [usize; 2] {
        self.dims()
    }

    /// `x W`.
    #[cfg(feature = "flex")]
    pub(crate) fn times(&self, x: &crate::fused::Array) -> crate::fused::Array {
        super::layer::product(x, self)
    }

    /// About this many columns of products with it, whole blocks where columns are packed.
    #[cfg(feature = "flex")]
    pub(crate) fn column_step(&self, columns: usize) -> usize {
        if self.transposed {
            columns
        } else {
            columns.next_multiple_of(self.tensor.format().values())
        }
    }

    /// The numbers in some columns of the weight of products: `[d_in, columns]`, or `[columns,
    /// d_in]` where this is the packed matrix transposed.
    #[cfg(feature = "flex")]
    pub(crate) fn unpack_columns(&self, columns: std::ops::Range<usize>) -> Vec<f32> {
        let [rows, width] = self.packed_shape();
        let ranges = if self.transposed { (columns, 0..width) } else { (0..rows, columns) };
        let (rows, columns) = ranges;
        let mut numbers = vec![0.0; rows.len() * columns.len()];
        for (row, to) in rows.zip(numbers.chunks_mut(columns.len())) {
            self.tensor.unpack_part(row, columns.clone(), to);
        }
        numbers
    }

    /// The numbers in these rows of the packed matrix, `[rows, columns]`.
    pub(crate) fn unpack(&self, rows: std::ops::Range<usize>) -> TensorData {
        let shape = [rows.len(), self.packed_shape()[1]];
        TensorData::new(self.tensor.format().unpack(self.tensor.rows(rows)), shape)
    }
}

impl PackedWeight for PackedMatrix {
    fn dims(&self) -> [usize; 2] {
        let [rows, columns] = self.packed_shape();
        if self.transposed { [columns, rows] } else { [rows, columns] }
    }

    fn num_bytes(&self) -> usize {
        self.tensor.bytes().len()
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn dense(&self) -> Tensor<2> {
        let rows = self.unpack(0..self.packed_shape()[0]);
        let dense = Tensor::<2>::from_data(rows, (&self.device, DType::F32));
        if self.transposed { dense.transpose() } else { dense }
    }

    fn transpose(&self) -> Arc<dyn PackedWeight> {
        Arc::new(self.flipped())
    }

    fn product(&self, input: Tensor<2>) -> Tensor<2> {
        #[cfg(feature = "flex")]
        return super::product::product(input, self);
        #[cfg(not(feature = "flex"))]
        burn::tensor::module::linear(input, self.dense(), None)
    }

    fn linear(&self, input: Tensor<2>, parts: LinearParts) -> Tensor<2> {
        #[cfg(feature = "flex")]
        if super::layer::is_supported(&input, &parts) {
            return super::layer::layer(input, self, parts);
        }
        parts.over(self.product(input.clone()), input)
    }

    fn cross_entropy(
        &self,
        input: Tensor<2>,
        bias: Option<Tensor<1>>,
        classes: Tensor<1, Int>,
    ) -> Tensor<1> {
        of_product(input, Weight::Packed(self.clone()), bias, classes)
    }

    fn rows(&self, indices: Tensor<1, Int>) -> Tensor<2> {
        if self.transposed {
            return self.dense().select(0, indices);
        }
        let indices: Vec<i64> = indices.into_data().iter().collect();
        let shape = [indices.len(), self.dims()[1]];
        let mut values = Vec::with_capacity(shape[0] * shape[1]);
        for index in indices {
            let row = index as usize;
            values.extend(self.tensor.format().unpack(self.tensor.rows(row..row + 1)));
        }
        Tensor::from_data(TensorData::new(values, shape), (&self.device, DType::F32))
    }
}
