//! What a configuration is known to do.

use crate::HostKind;

/// What a configuration is known to do.
///
/// ```
/// use peft_conformance::{Expect, HostKind};
/// // Its targets are named as BERT has them.
/// let unfit = HostKind::OTHERS;
/// let expect = Expect { trainable: Some(2 * 3 * (24 + 24)), unfit, ..Expect::default() };
/// assert!(expect.identity_at_init);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// Whether a fresh method leaves the model as it is; true unless said otherwise.
    pub identity_at_init: bool,
    /// The number of values that the method trains on the BERT host, the head's apart, by the
    /// method's own formula; not compared where it is `None`.
    pub trainable: Option<usize>,
    /// Whether random parameters change as many entries, at as high a rank, as the method's edits
    /// say; false where that is no more than a bound. True unless said otherwise.
    pub reaches_change: bool,
    /// Whether how much changes at each site follows from the configuration; not where entries are
    /// chosen over all sites together by what was trained. True unless said otherwise.
    pub fixed_change: bool,
    /// The hosts that the configuration does not fit, where initialising it is an error; none unless
    /// said otherwise.
    pub unfit: &'static [HostKind],
    /// Whether a text can be gone on with, so that its beginning and then token by token is the same
    /// as all at once: not where a method puts something behind the text. True unless said otherwise.
    pub goes_on: bool,
    /// The fields of the configuration that are probabilities of dropout, with a dot before a field
    /// of a field. `None`: all that are called so, and `dropout`, where there is such a field. With
    /// none in the list, nothing drops anything.
    pub dropout: Option<&'static [&'static str]>,
    /// The names of fields whose values a step of training changes though they are not trained: running
    /// means, and what is decided from them. None unless said otherwise.
    pub running: &'static [&'static str],
    /// Whether gradients are those of what is computed; not of a straight-through estimator. True
    /// unless said otherwise.
    pub exact_gradient: bool,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            identity_at_init: true,
            trainable: None,
            reaches_change: true,
            fixed_change: true,
            unfit: &[],
            goes_on: true,
            dropout: None,
            running: &[],
            exact_gradient: true,
        }
    }
}
