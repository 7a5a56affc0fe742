//! Values that are added to single entries of weights.

use std::ops::Range;
use std::rc::Rc;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};
use peft_core::{Base, Edits, Entries, Exchange, Hooks, MemoKey, Method, Pass, Site, Sparse};

/// A change of single entries of weights: `y = x (W + S) + b` at each site, where all `S`, `[d_in, d_out]`,
/// together have `k` values. The places stay as they are; the values are trained.
///
/// Made by [`FishMaskConfig`](crate::FishMaskConfig) and
/// [`MagnitudeMaskConfig`](crate::MagnitudeMaskConfig), and what is left of methods that choose entries
/// while they are trained. A file has `sparse_values` and `sparse_indices` for each site, so that it is
/// as small as the change; how many a site has is known from the file.
#[derive(Module, Debug)]
pub struct SelectedEntries {
    /// `[k]`, site by site.
    values: Param<Tensor<1>>,
    /// `[k]`: the number of each entry in its weight `[d_out, d_in]`.
    places: Param<Tensor<1, Int>>,
    /// `[sites]`: how many entries each has.
    counts: Param<Tensor<1, Int>>,
    /// The number of a site here, by [`Site::index`].
    #[module(skip)]
    numbers: Vec<Option<usize>>,
}

impl SelectedEntries {
    /// Values of zero at places of each site's weight `[d_out, d_in]`.
    pub(crate) fn zeros(
        sites: &[&Site],
        places: &[Vec<i64>],
        base: &Base,
        device: &Device,
    ) -> Self {
        let mut numbers = vec![None; base.len()];
        sites.iter().enumerate().for_each(|(number, site)| numbers[site.index] = Some(number));
        let of =
            |places: &Vec<i64>| Entries { places: places.clone(), values: vec![0.0; places.len()] };
        Self::new(numbers, &places.iter().map(of).collect::<Vec<_>>(), device)
    }

    /// The entries of each site, by its number in `numbers`, which is by [`Site::index`].
    pub(crate) fn new(numbers: Vec<Option<usize>>, of_sites: &[Entries], device: &Device) -> Self {
        let ids = [ParamId::new(), ParamId::new(), ParamId::new()];
        Self::with_ids(ids, numbers, of_sites, device)
    }

    fn with_ids(
        [values_id, places_id, counts_id]: [ParamId; 3],
        numbers: Vec<Option<usize>>,
        of_sites: &[Entries],
        device: &Device,
    ) -> Self {
        let values: Vec<f32> = of_sites.iter().flat_map(|entries| entries.values.clone()).collect();
        let places = of_sites.iter().flat_map(|entries| entries.places.clone()).collect();
        let counts = of_sites.iter().map(|entries| entries.values.len() as i64).collect();
        let size = values.len();
        let values = Tensor::<1>::from_data(TensorData::new(values, [size]), device);
        let mut trained = Param::from_tensor(values);
        trained.id = values_id;
        let whole = |id, numbers: Vec<i64>| {
            let size = numbers.len();
            let numbers = Tensor::<1, Int>::from_data(TensorData::new(numbers, [size]), device);
            Param::initialized(id, numbers)
        };
        let (places, counts) = (whole(places_id, places), whole(counts_id, counts));
        Self { values: trained, places, counts, numbers }
    }

    /// Where the entries of each site are.
    fn ranges(&self) -> Vec<Range<usize>> {
        let mut start = 0;
        let range = |count: i64| {
            let range = start..start + usize::try_from(count).unwrap_or(0);
            start = range.end;
            range
        };
        whole_numbers(&self.counts).into_iter().map(range).collect()
    }

    /// The entries of each site.
    fn of_sites(&self) -> Vec<Entries> {
        let values = self.values.base().into_data().convert::<f32>();
        let values: Vec<f32> = values.try_into_vec().expect("converted before");
        let places = whole_numbers(&self.places);
        let of = |range: Range<usize>| Entries {
            places: places[range.clone()].to_vec(),
            values: values[range].to_vec(),
        };
        self.ranges().into_iter().map(of).collect()
    }
}

fn whole_numbers(param: &Param<Tensor<1, Int>>) -> Vec<i64> {
    param.val().into_data().convert::<i64>().try_into_vec().expect("converted before")
}

impl Hooks for SelectedEntries {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let Some(Some(number)) = self.numbers.get(site.index) else { return Edits::none() };
        // Read from the device once a pass.
        let key = MemoKey { of: self.values.id, name: "ranges", site: None };
        let ranges: Rc<Vec<Range<usize>>> = pass.memo.get(key, || Rc::new(self.ranges()));
        let range = ranges[*number].clone();
        if range.is_empty() {
            return Edits::none();
        }
        let places = self.places.val().slice([range.clone()]);
        let d_in = site.d_in() as i64;
        let (inputs, outputs) = (places.clone().remainder_scalar(d_in), places.div_scalar(d_in));
        Sparse { inputs, outputs, values: self.values.val().slice([range]) }.into()
    }
}

impl Method for SelectedEntries {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        let mut of_sites = self.of_sites();
        let mut read = false;
        for site in base.sites() {
            let Some(Some(number)) = self.numbers.get(site.index) else { continue };
            let keys = ["sparse_values", "sparse_indices"].map(|name| site.key(name));
            let (entries, trained) = (&mut of_sites[*number], self.values.is_require_grad());
            read |= file.entries(keys, entries, trained, site.d_in() * site.d_out());
        }
        if read {
            let device = self.values.base().device();
            let ids = [self.values.id, self.places.id, self.counts.id];
            let trained = self.values.is_require_grad();
            *self = Self::with_ids(ids, std::mem::take(&mut self.numbers), &of_sites, &device);
            if !trained {
                self.values = self.values.clone().set_require_grad(false);
            }
        }
    }
}
