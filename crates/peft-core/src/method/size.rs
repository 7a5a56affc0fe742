//! How large a configuration would make a method, before anything is made.

use burn::tensor::TensorData;

use crate::{Base, Error, Result, TensorMap};

/// A field of a configuration that says how large the method is.
#[derive(Debug, Clone, PartialEq)]
pub struct Size {
    /// The field, as the configuration file names it.
    pub field: String,
    /// Its value.
    pub value: String,
    /// How many values the method holds because of it, by order of magnitude. A float, as a file may
    /// say any number.
    pub values: f64,
    /// Whether they are in the method's file; not what is trained in the place of others.
    pub in_file: bool,
}

impl Size {
    /// So many values, which a file holds.
    pub fn new(field: impl Into<String>, value: impl ToString, values: f64) -> Self {
        Self { field: field.into(), value: value.to_string(), values, in_file: true }
    }

    /// The same where no file holds them.
    pub fn not_in_file(self) -> Self {
        Self { in_file: false, ..self }
    }

    /// The same in a part of a configuration.
    pub fn within(self, part: &str) -> Self {
        Self { field: format!("{part}.{}", self.field), ..self }
    }

    /// Refuses a method that is far larger than its file. One that is a little larger is for the
    /// comparison key by key, which says more.
    ///
    /// # Errors
    /// [`Error::Config`] naming the largest field.
    pub fn check_file(sizes: &[Self], file: &TensorMap) -> Result<()> {
        let values = |tensor: &TensorData| -> f64 {
            tensor.shape().to_vec().into_iter().map(|size| size as f64).product()
        };
        let all: f64 = file.values().map(values).sum();
        let in_file = sizes.iter().filter(|size| size.in_file);
        refuse(in_file, (16.0 * all).max(FREE), || format!("its file has {} in all", shown(all)))
    }
}

/// So many values are no burden, however small the model is: 64 MB.
const FREE: f64 = (1 << 24) as f64;

/// Refuses a method that is larger than a full change of every weight would be.
pub(crate) fn check(sizes: &[Size], base: &Base) -> Result<()> {
    let most = (2.0 * base.num_params() as f64).max(FREE);
    refuse(sizes.iter(), most, || format!("at most {} make sense over this model", shown(most)))
}

fn refuse<'s>(
    sizes: impl Iterator<Item = &'s Size> + Clone,
    most: f64,
    reason: impl FnOnce() -> String,
) -> Result<()> {
    let all: f64 = sizes.clone().map(|size| size.values).sum();
    match sizes.max_by(|a, b| a.values.total_cmp(&b.values)) {
        Some(Size { field, value, .. }) if all.is_nan() || all > most => {
            let expected = format!("the adapter would take {} values; {}", shown(all), reason());
            Err(Error::config(field, value, expected))
        }
        _ => Ok(()),
    }
}

/// A number as people write it.
fn shown(values: f64) -> String {
    if values < 1e12 { format!("{values:.0}") } else { format!("{values:.1e}") }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::Role;

    #[test]
    fn a_method_is_as_large_as_its_base_and_its_file_let_it_be() {
        let device = Device::default();
        let mut base = Base::new(&device);
        let weight = Tensor::<2>::zeros([1, 1], &device).expand([8192, 4096]);
        base.linear("layer", Role::Other, None, weight, None);
        let rank = |rank: usize| vec![Size::new("r", rank, rank as f64 * (8192.0 + 4096.0))];
        let small = TensorMap::from([("a".into(), TensorData::zeros::<f32, _>([8, 4096]))]);
        // A full change, and a little more than the file has.
        assert!(check(&rank(4096), &base).is_ok());
        assert!(Size::check_file(&rank(16), &small).is_ok());
        let error = check(&rank(8192), &base).expect_err("more than the weight").to_string();
        let expected = "r = 8192: the adapter would take 100663296 values; at most 67108864 make \
                        sense over this model";
        assert_eq!(error, expected);
        let error =
            Size::check_file(&rank(4096), &small).expect_err("more than the file").to_string();
        let expected =
            "r = 4096: the adapter would take 50331648 values; its file has 32768 in all";
        assert_eq!(error, expected);
        // What is trained in its place is no part of the file.
        let hidden = rank(4096).into_iter().map(Size::not_in_file).collect::<Vec<_>>();
        assert!(Size::check_file(&hidden, &small).is_ok());
        // Several fields together, of which the largest is named; and numbers beyond all bounds.
        let size = |field: &str, values| Size::new(field, "x", values);
        let together = [size("a", 3e7), size("b", 4e7)];
        assert!(check(&together, &base).expect_err("together").to_string().starts_with("b = x: "));
        for values in [f64::INFINITY, f64::NAN, 1e300] {
            assert!(check(&[size("a", values)], &base).is_err());
        }
    }
}
