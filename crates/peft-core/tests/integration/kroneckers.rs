//! Kronecker products beside a weight.

use burn::tensor::Tensor;
use peft_core::{Base, Change, Edits, Kronecker, Role};

use crate::edits::{IN, OUT, make, make_bias};
use crate::support::{assert_close, device, random, values};

/// 6 = 2 · 3 and 10 = 5 · 2.
pub(crate) fn kronecker() -> Kronecker {
    Kronecker::new(random([2, 5]), random([3, 2]), 1.3)
}

/// `s (A ⊗ B) diag(c)` entry by entry.
fn explicit(product: &Kronecker) -> Tensor<2> {
    let [a, b] = [&product.a, &product.b].map(|factor| values(factor.clone()));
    let ([m, k], [n, l]) = (product.a.dims(), product.b.dims());
    let mut whole = vec![0.0f32; m * n * k * l];
    for (row, line) in whole.chunks_exact_mut(k * l).enumerate() {
        for (column, value) in line.iter_mut().enumerate() {
            let of_a = a[row / n * k + column / l];
            *value = product.scale as f32 * of_a * b[row % n * l + column % l];
        }
    }
    let whole = Tensor::<1>::from_data(&whole[..], &device()).reshape([m * n, k * l]);
    match &product.outputs {
        Some(outputs) => whole * outputs.clone().unsqueeze(),
        None => whole,
    }
}

#[test]
fn a_kronecker_product_is_that_of_its_factors_entry_by_entry() {
    let product = kronecker();
    make(&product.clone().into(), |w| w + explicit(&product), None);
    make_bias(&product.into(), |b| b);
    let scaled = kronecker().with_outputs(Some(random([OUT])));
    make(&scaled.clone().into(), |w| w + explicit(&scaled), None);
    let twice = Edits::from(kronecker()).then(kronecker());
    let sum = twice.iter().fold(Tensor::zeros([IN, OUT], &device()), |sum, edit| match edit {
        peft_core::Edit::Kronecker(product) => sum + explicit(product),
        _ => unreachable!("there is nothing else"),
    });
    make(&twice, |w| w + sum.clone(), None);
}

/// For columns that are stacked, `(A ⊗ B) vec(X) = vec(B X Aᵀ)`.
#[test]
fn the_product_with_a_token_is_that_of_its_matrix() {
    let (a, b, x) = (random([2, 5]), random([3, 2]), random::<2>([1, IN]));
    // Ours acts from the right: (A ⊗ B)ᵀ = Aᵀ ⊗ Bᵀ.
    let found = Kronecker::new(a.clone(), b.clone(), 1.0).product(x.clone());
    let of_columns = x.reshape([2, 3]).transpose();
    let expected = b.transpose().matmul(of_columns).matmul(a);
    assert_close(found, expected.transpose().reshape([1, OUT]));
}

#[test]
fn its_rank_is_that_of_both_factors() {
    let mut base = Base::new(&device());
    let site = base.linear("layer", Role::Other, None, random([IN, OUT]), None);
    let of = |product: Kronecker| Edits::from(product).change(&site);
    let change = |rank| Change { weight: IN * OUT, bias: 0, rank };
    assert_eq!(of(kronecker()), change(4));
    assert_eq!(of(kronecker().of_rank(2)), change(2));
    assert_eq!(of(Kronecker::new(random([6, 10]), random([1, 1]), 2.0)), change(IN));
}
