use burn::tensor::{Device, Tensor};
use peft_conformance::{Expect, HostKind, conformance};
use peft_core::{
    Base, FrozenWeight, Hooks, InitContext, LinearLayer, Memo, MethodConfig, Mode, Pass,
    PatternMap, Role, Rows, Slots,
};
use peft_lora::LohaConfig;

use super::{all_linear, over_all, trains};

fn of_rank(rank: usize) -> LohaConfig {
    LohaConfig { rank, alpha: 3.0, targets: all_linear(), ..LohaConfig::default() }
}

/// A layer that is left as it is in one step may be so in the next, too.
const DROPOUT: Option<&[&str]> = Some(&["rank_dropout"]);

conformance!(
    loha,
    of_rank(2),
    Expect { dropout: DROPOUT, ..trains(over_all(|[d_in, d_out]| 2 * 2 * (d_in + d_out))) }
);
// Its square is no low rank of these layers.
conformance!(dense, of_rank(5), trains(over_all(|[d_in, d_out]| 2 * 5 * (d_in + d_out))));
conformance!(
    patterns,
    LohaConfig {
        rank_pattern: PatternMap::from([("query".into(), 1)]),
        alpha_pattern: PatternMap::from([("value".into(), 9.0)]),
        ..of_rank(2)
    },
    // Named as BERT has them.
    Expect { unfit: HostKind::OTHERS, dropout: DROPOUT, ..Expect::default() }
);
conformance!(
    random,
    LohaConfig { init: false, alpha: 0.5, ..of_rank(2) },
    Expect { identity_at_init: false, dropout: DROPOUT, ..Expect::default() }
);

/// What a new method makes of `[4, d_in]` ones in each of some steps.
fn in_steps(config: &LohaConfig, steps: u64) -> Vec<Vec<f32>> {
    let device = Device::default();
    let mut base = Base::new(&device);
    let weight = FrozenWeight::from(Tensor::<2>::ones([6, 4], &device));
    base.linear("query", Role::Query, Some(0), weight.clone(), None);
    let loha = config.init(&InitContext::new(&base, &device)).expect("it fits");
    let site = base.sites().next().expect("there is one");
    let (rows, slots) = (Rows::packed(&[4], &device), Slots::default());
    let output = |step| {
        let (mode, memo) = (Mode::Train { seed: 3, step }, Memo::new());
        let pass = Pass { rows: &rows, slots: &slots, mode, memo: &memo, probe: None };
        let edits = loha.linear(site, &pass);
        let x = Tensor::<2>::ones([4, 6], &device);
        let y = edits.apply(&LinearLayer::new(site, &weight, None), x, &pass);
        y.into_data().try_into_vec::<f32>().expect("floats")
    };
    (0..steps).map(output).collect()
}

#[test]
fn a_layer_is_left_as_it_is_or_changes_as_a_whole() {
    for rank in [1, 4] {
        let random = LohaConfig {
            init: false,
            ..LohaConfig { targets: Default::default(), ..of_rank(rank) }
        };
        let [changed] = &in_steps(&random, 1)[..] else { unreachable!("one step") };
        let steps = in_steps(&LohaConfig { module_dropout: 0.5, ..random.clone() }, 40);
        let left = steps.iter().filter(|y| **y == vec![6.0; 16]).count();
        let whole = steps.iter().filter(|y| *y == changed).count();
        assert_eq!(left + whole, 40);
        assert!((8..=32).contains(&left), "{left} of 40");

        // Outputs one by one, and the mean of those that change is kept.
        let steps = in_steps(&LohaConfig { rank_dropout: 0.5, ..random }, 10);
        for y in steps {
            let kept = (0..4).filter(|output| y[*output] != 6.0).count();
            for output in 0..4 {
                let expected = (changed[output] - 6.0) * 4.0 / kept.max(1) as f32;
                let found = y[output] - 6.0;
                assert!(found == 0.0 || (found - expected).abs() < 1e-4, "{found}, {expected}");
            }
        }
    }
}
