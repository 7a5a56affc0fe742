//! One description writes, reads and lists a method's tensors.

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Int, Tensor, TensorData};
use peft_core::{Exchange, KeyProblem, Layout, TensorMap};

use crate::support::{device, random, values};

fn data(values: &[f32], shape: &[usize]) -> TensorData {
    TensorData::new(values.to_vec(), shape)
}

#[test]
fn writes_as_is_and_transposed() {
    let tensor = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &device());
    let mut param = Param::from_tensor(tensor);
    let mut file = TensorMap::new();
    let mut exchange = Exchange::write(&mut file);
    exchange.param("plain", &mut param, Layout::AsIs);
    exchange.param("turned", &mut param, Layout::Transposed);
    assert_eq!(file["plain"], data(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]));
    assert_eq!(file["turned"], data(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0], &[3, 2]));
}

#[test]
fn transposing_swaps_the_last_two_axes() {
    let mut param = Param::from_tensor(random([2, 3, 5]));
    let mut file = TensorMap::new();
    Exchange::write(&mut file).param("cube", &mut param, Layout::Transposed);
    assert_eq!(file["cube"].shape().to_vec(), [2, 5, 3]);
    assert_eq!(file["cube"], param.val().swap_dims(1, 2).into_data());
}

#[test]
fn reads_what_it_wrote() {
    for layout in [Layout::AsIs, Layout::Transposed] {
        let mut from = Param::from_tensor(random([4, 7]));
        let mut to = Param::from_tensor(Tensor::<2>::zeros([4, 7], &device().autodiff()));
        let id = to.id;
        let mut file = TensorMap::new();
        Exchange::write(&mut file).param("key", &mut from, layout);
        let mut exchange = Exchange::read(&mut file);
        exchange.param("key", &mut to, layout);
        assert_eq!(exchange.into_problems(), []);
        assert!(file.is_empty(), "what was read is taken");
        assert_eq!(values(to.val()), values(from.val()));
        assert!(to.id == id && to.is_require_grad() && to.val().device().is_autodiff());
    }
}

#[test]
fn a_constant_stays_one() {
    let mut param = Param::from_tensor(random([3])).set_require_grad(false);
    let mut file = TensorMap::from([("key".to_string(), data(&[1.5, -2.0, 0.25], &[3]))]);
    Exchange::read(&mut file).param("key", &mut param, Layout::AsIs);
    assert_eq!(values(param.val()), [1.5, -2.0, 0.25]);
    assert!(!param.is_require_grad());
}

#[test]
fn other_float_types_are_converted() {
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let mut param = Param::from_tensor(random([2, 3]));
        let numbers = [0.5, -1.25, 2.0, 3.5, -4.0, 0.125];
        let stored = data(&numbers, &[3, 2]).convert_dtype(dtype);
        let mut file = TensorMap::from([("key".to_string(), stored)]);
        Exchange::read(&mut file).param("key", &mut param, Layout::Transposed);
        assert_eq!(values(param.val()), [0.5, 2.0, -4.0, -1.25, 3.5, 0.125]);
    }
}

#[test]
fn lists_what_the_file_should_hold() {
    // What is trained is so on a device with autodiff.
    let on_tape = |tensor: Tensor<2>| Tensor::<2>::from_inner(tensor);
    let mut a = Param::from_tensor(on_tape(random([4, 7])));
    let mut b = Param::from_tensor(on_tape(random([2, 3]))).set_require_grad(false);
    let mut exchange = Exchange::describe();
    exchange.param("a", &mut a, Layout::Transposed);
    exchange.param("b", &mut b, Layout::AsIs);
    let specs = exchange.into_specs();
    let listed: Vec<_> =
        specs.iter().map(|s| (s.key.as_str(), s.shape.as_slice(), s.trainable)).collect();
    assert_eq!(listed, [("a", &[7, 4][..], true), ("b", &[2, 3][..], false)]);
    assert_eq!(specs[0].num_values(), 28);
}

#[test]
fn missing_and_misshaped_keys_are_problems_and_change_nothing() {
    let mut param = Param::from_tensor(random([4, 7]));
    let before = values(param.val());
    // The right number of values in the wrong orientation is wrong too.
    let mut file = TensorMap::from([("turned".to_string(), data(&[0.0; 28], &[4, 7]))]);
    let mut exchange = Exchange::read(&mut file);
    exchange.param("turned", &mut param, Layout::Transposed);
    exchange.param("absent", &mut param, Layout::AsIs);
    let problems = exchange.into_problems();
    let shape = KeyProblem::Shape { key: "turned".into(), expected: vec![7, 4], found: vec![4, 7] };
    let missing = KeyProblem::Missing { key: "absent".into(), expected: vec![4, 7] };
    assert_eq!(problems, [shape, missing]);
    assert_eq!(problems[0].to_string(), "turned has shape [4, 7], should have [7, 4]");
    assert_eq!(problems[1].to_string(), "missing absent [4, 7]");
    assert_eq!(values(param.val()), before);
}

#[test]
fn places_are_whole_numbers_below_their_bounds() {
    let places = |values: [[i32; 2]; 2]| {
        let tensor = Tensor::<2, Int>::from_data(values, &device());
        Param::initialized(ParamId::new(), tensor)
    };
    let found = |param: &Param<Tensor<2, Int>>| -> Vec<i64> {
        param.val().into_data().iter::<i64>().collect()
    };
    let mut file = TensorMap::new();
    Exchange::write(&mut file).places("places", &mut places([[3, 0], [1, 2]]), &[4, 3]);
    assert_eq!(file["places"].dtype(), DType::I32);
    let read = |file: &TensorMap, bounds: [usize; 2]| {
        let (mut file, mut param) = (file.clone(), places([[0, 0], [0, 0]]));
        let mut exchange = Exchange::read(&mut file);
        exchange.places("places", &mut param, &bounds);
        (exchange.into_problems(), found(&param))
    };
    assert_eq!(read(&file, [4, 3]), (Vec::new(), vec![3, 0, 1, 2]));
    // As floats, in files that were written on Windows.
    let floats = TensorMap::from([("places".into(), data(&[3.0, 0.0, 1.0, 2.0], &[2, 2]))]);
    assert_eq!(read(&floats, [4, 3]), (Vec::new(), vec![3, 0, 1, 2]));
    let (problems, unchanged) = read(&file, [4, 2]);
    assert_eq!(problems[0].to_string(), "places has values that are not from 0 to 1");
    assert_eq!(unchanged, [0; 4]);
    let negative = TensorMap::from([("places".into(), data(&[3.0, -1.0, 1.0, 2.0], &[2, 2]))]);
    let below = 4;
    let expected = KeyProblem::OutOfBounds { key: "places".into(), below };
    assert_eq!(read(&negative, [4, 3]).0, [expected]);
}

#[test]
fn what_a_tensor_started_from_is_in_a_file_of_its_own_under_the_same_key() {
    let mut trained = Param::from_tensor(random([4, 7]));
    let mut start = Param::from_tensor(random([4, 7])).set_require_grad(false);
    type Two<'p> = [&'p mut Param<Tensor<2>>; 2];
    let name = |mut file: Exchange<'_>, [trained, start]: Two<'_>| {
        file.param("key", trained, Layout::Transposed);
        file.start("key", start, Layout::Transposed);
        assert_eq!(file.into_problems(), []);
    };
    let (mut values_file, mut start_file) = (TensorMap::new(), TensorMap::new());
    name(Exchange::write(&mut values_file), [&mut trained, &mut start]);
    name(Exchange::write(&mut start_file).of_start(), [&mut trained, &mut start]);
    assert_eq!(values_file["key"], trained.val().transpose().into_data());
    assert_eq!(start_file["key"], start.val().transpose().into_data());

    let zeros = || Param::from_tensor(Tensor::<2>::zeros([4, 7], &device()));
    let (mut new, mut new_start) = (zeros(), zeros().set_require_grad(false));
    name(Exchange::read(&mut values_file), [&mut new, &mut new_start]);
    assert_eq!(values(new.val()), values(trained.val()));
    assert_eq!(values(new_start.val()), [0.0; 28]);
    name(Exchange::read(&mut start_file).of_start(), [&mut new, &mut new_start]);
    assert_eq!(values(new_start.val()), values(start.val()));
    assert!(values_file.is_empty() && start_file.is_empty() && !new_start.is_require_grad());
}

#[test]
#[should_panic(expected = "two tensors have the key key")]
fn two_tensors_under_one_key_are_refused() {
    let mut param = Param::from_tensor(random([4, 7]));
    let mut file = TensorMap::new();
    let mut exchange = Exchange::write(&mut file);
    exchange.param("key", &mut param, Layout::AsIs);
    exchange.param("key", &mut param, Layout::AsIs);
}
