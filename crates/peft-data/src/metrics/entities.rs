//! Precision and recall of named entities.

use std::collections::{BTreeMap, HashSet};

use crate::TagScheme;

/// The outside of entities.
const OUTSIDE: &str = "O";

/// How well entities are found, as `seqeval` counts by default (and `conlleval` before it): an
/// entity is right if its type and both its ends are.
///
/// `B-X` or `S-X` begins an entity, and so does any other tag that follows no tag of its type;
/// `E-X` and `S-X` end one. A tag of one letter has the type `_`. What stands before the first `-`
/// is judged by its first letter, so that types without a prefix are not counted as one would
/// expect: [`to_bio`](crate::to_bio) gives them one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EntityScores {
    /// All entities.
    pub all: EntityCounts,
    /// The entities of each type that occurs on either side.
    pub by_type: BTreeMap<String, EntityCounts>,
    /// The share of right tags.
    pub accuracy: f64,
}

/// How many entities there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntityCounts {
    /// Those that there should be.
    pub wanted: usize,
    /// Those that were found.
    pub found: usize,
    /// Those on both sides.
    pub right: usize,
}

impl EntityCounts {
    /// The share of the found ones that are right; 0 if none was found.
    pub fn precision(&self) -> f64 {
        ratio(self.right, self.found)
    }

    /// The share of the wanted ones that were found; 0 if there are none.
    pub fn recall(&self) -> f64 {
        ratio(self.right, self.wanted)
    }

    /// The harmonic mean of precision and recall; 0 if both are.
    pub fn f1(&self) -> f64 {
        ratio(2 * self.right, self.found + self.wanted)
    }

    fn add(&mut self, other: Self) {
        self.wanted += other.wanted;
        self.found += other.found;
        self.right += other.right;
    }
}

impl EntityScores {
    /// The scores of the tags found for sentences.
    ///
    /// # Panics
    /// If the sentences differ in number or length.
    pub fn new<S: AsRef<str>>(found: &[Vec<S>], wanted: &[Vec<S>]) -> Self {
        let accuracy = accuracy(found, wanted);
        Self::of(&entities(found), &entities(wanted), accuracy)
    }

    /// The scores of the tags found for sentences, in a scheme that marks where entities end, as
    /// `seqeval` counts in its mode `strict`: only what is whole is an entity, `B-X`, any number of
    /// `I-X` and `L-X`, or `U-X` alone (in BILOU).
    ///
    /// # Panics
    /// If the sentences differ in number or length.
    pub fn strict<S: AsRef<str>>(found: &[Vec<S>], wanted: &[Vec<S>], scheme: TagScheme) -> Self {
        let accuracy = accuracy(found, wanted);
        Self::of(&whole_entities(found, scheme), &whole_entities(wanted, scheme), accuracy)
    }

    fn of(found: &HashSet<Entity<'_>>, wanted: &HashSet<Entity<'_>>, accuracy: f64) -> Self {
        let (mut all, mut by_type) = (EntityCounts::default(), BTreeMap::new());
        for entity in wanted.union(found) {
            let (wanted, found) = (wanted.contains(entity), found.contains(entity));
            let one = EntityCounts {
                wanted: wanted.into(),
                found: found.into(),
                right: (wanted && found).into(),
            };
            all.add(one);
            by_type.entry(entity.kind.to_string()).or_insert_with(EntityCounts::default).add(one);
        }
        Self { all, by_type, accuracy }
    }
}

/// An entity in the words of all sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Entity<'a> {
    kind: &'a str,
    start: usize,
    end: usize,
}

/// A tag, divided.
#[derive(Clone, Copy)]
struct Tag<'a> {
    prefix: char,
    kind: &'a str,
}

impl<'a> Tag<'a> {
    /// `B-X` is `B` and `X`; so is `Bold-X`, and `Bold` is `B` and `old`.
    fn new(tag: &'a str) -> Self {
        let mut letters = tag.chars();
        let prefix = letters.next().unwrap_or('O');
        let rest = letters.as_str();
        let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
        Self { prefix, kind: if kind.is_empty() { "_" } else { kind } }
    }

    /// Whether an entity ends between this tag and the next one.
    fn ends_before(self, next: Self) -> bool {
        match self.prefix {
            'E' | 'S' => true,
            'B' | 'I' if matches!(next.prefix, 'B' | 'S' | 'O') => true,
            'O' | '.' => false,
            _ => self.kind != next.kind,
        }
    }

    /// Whether an entity begins between the tag before and this one.
    fn begins_after(self, before: Self) -> bool {
        match self.prefix {
            'B' | 'S' => true,
            'E' | 'I' if matches!(before.prefix, 'E' | 'S' | 'O') => true,
            'O' | '.' => false,
            _ => self.kind != before.kind,
        }
    }
}

/// The entities of sentences, which none of them crosses.
fn entities<S: AsRef<str>>(sentences: &[Vec<S>]) -> HashSet<Entity<'_>> {
    let tags = sentences.iter().flat_map(|tags| tags.iter().map(AsRef::as_ref).chain([OUTSIDE]));
    let mut entities = HashSet::new();
    let mut before = Tag { prefix: 'O', kind: "" };
    let mut start = 0;
    for (place, tag) in tags.map(Tag::new).enumerate() {
        if before.ends_before(tag) {
            entities.insert(Entity { kind: before.kind, start, end: place });
        }
        if tag.begins_after(before) {
            start = place;
        }
        before = tag;
    }
    entities
}

/// The entities of sentences that are whole.
fn whole_entities<S: AsRef<str>>(sentences: &[Vec<S>], scheme: TagScheme) -> HashSet<Entity<'_>> {
    let mut entities = HashSet::new();
    let mut place = 0;
    for tags in sentences {
        let mut open: Option<Entity<'_>> = None;
        for tag in tags {
            let tag = crate::tags::Tag::new(tag.as_ref(), scheme);
            let (mark, kind) = tag.map_or((None, ""), |tag| (tag.mark, tag.kind));
            let kind = if kind.is_empty() { "_" } else { kind };
            let begun = open.take().filter(|entity| entity.kind == kind);
            let end = place + 1;
            match (mark, begun) {
                (Some('S'), _) => {
                    entities.insert(Entity { kind, start: place, end });
                }
                (Some('B'), _) => open = Some(Entity { kind, start: place, end }),
                (Some('I'), begun) => open = begun,
                (Some('E'), Some(entity)) => {
                    entities.insert(Entity { end, ..entity });
                }
                _ => {}
            }
            place = end;
        }
    }
    entities
}

/// The share of right tags.
fn accuracy<S: AsRef<str>>(found: &[Vec<S>], wanted: &[Vec<S>]) -> f64 {
    let lengths = |sentences: &[Vec<S>]| sentences.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(found), lengths(wanted), "each word has a tag on both sides");
    let tags = found.iter().flatten().zip(wanted.iter().flatten());
    let right = tags.clone().filter(|(found, wanted)| found.as_ref() == wanted.as_ref());
    ratio(right.count(), tags.count())
}

fn ratio(part: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences(tags: &str) -> Vec<Vec<&str>> {
        tags.split(" | ").map(|sentence| sentence.split(' ').collect()).collect()
    }

    /// Compares counts with precision, recall, F1 and support, and tags with their accuracy; the
    /// first row is of all entities. The numbers are seqeval 1.2.2's.
    #[track_caller]
    fn check(wanted: &str, found: &str, accuracy: f64, rows: &[(&str, [f64; 3], usize)]) {
        let scores = EntityScores::new(&sentences(found), &sentences(wanted));
        assert_eq!(scores.accuracy, accuracy);
        let all = [("", &scores.all)].into_iter();
        let counts: Vec<_> =
            all.chain(scores.by_type.iter().map(|(kind, c)| (kind.as_str(), c))).collect();
        assert_eq!(counts.len(), rows.len(), "{counts:?}");
        for ((kind, counts), (name, numbers, support)) in counts.into_iter().zip(rows) {
            assert_eq!((kind, counts.wanted), (*name, *support));
            let values = [counts.precision(), counts.recall(), counts.f1()];
            for (value, number) in values.into_iter().zip(numbers) {
                assert!((value - number).abs() < 1e-12, "{kind}: {values:?}, not {numbers:?}");
            }
        }
    }

    #[test]
    fn an_entity_needs_its_type_and_both_ends() {
        let third = 1.0 / 3.0;
        check(
            "B-PER I-PER O B-LOC | O B-ORG I-ORG O",
            "B-PER I-PER O B-ORG | O B-ORG O O",
            0.75,
            &[
                ("", [third; 3], 3),
                ("LOC", [0.0; 3], 1),
                ("ORG", [0.0; 3], 1),
                ("PER", [1.0; 3], 1),
            ],
        );
    }

    #[test]
    fn i_after_another_type_begins_an_entity() {
        check(
            "I-PER I-LOC O I-LOC B-LOC I-PER",
            "B-PER B-LOC O B-LOC B-LOC I-LOC",
            1.0 / 3.0,
            &[
                ("", [0.75, 0.6, 0.6666666666666665], 5),
                ("LOC", [2.0 / 3.0; 3], 3),
                ("PER", [1.0, 0.5, 0.6666666666666666], 2),
            ],
        );
    }

    #[test]
    fn e_and_s_end_entities_and_so_does_the_sentence() {
        let numbers = [0.8333333333333334, 0.7142857142857143, 0.7692307692307692];
        check(
            "B-X E-X I-X S-X S-X E-X | B-X | I-X",
            "B-X I-X B-X S-X B-X E-X | B-X | B-X",
            0.5,
            &[("", numbers, 7), ("X", numbers, 7)],
        );
    }

    #[test]
    fn tags_without_prefix_or_type() {
        check(
            "O-X X-X O . .-X I-X | B- I- I O PER | ORG LOC LOC B-A-B I-B",
            "O X-X O . O B-X | B I O O PER | O LOC LOC B-A-B I-A-B",
            0.5,
            &[
                ("", [0.3333333333333333, 0.2857142857142857, 0.30769230769230765], 7),
                ("A-B", [0.0; 3], 1),
                ("B", [0.0; 3], 1),
                ("ER", [1.0; 3], 1),
                ("OC", [1.0; 3], 1),
                ("X", [0.0; 3], 2),
                ("_", [0.0; 3], 1),
            ],
        );
    }

    /// seqeval 1.2.2 with `mode="strict", scheme=BILOU`.
    #[test]
    fn where_the_end_is_marked_an_entity_is_whole_or_none() {
        let wanted = "U-X O U-X B-X L-X O | O O U-X U-X | U-X B-X I-X I-X L-X U-X | \
                      B-X I-X I-X L-X B-Y I-Y I-Y L-Y | U-Y B-Y I-Y I-Y L-Y";
        let found = "U-X U-Y U-X B-X L-X O | O O U-X L-X | U-X B-X I-X I-X L-X I-X | \
                     B-X I-X U-Y L-X B-Y L-Y I-Y L-Y | U-Y B-X I-Y I-Y L-Y";
        let bmewo = |tags: &str| {
            let letters = [("I-", "M-"), ("L-", "E-"), ("U-", "W-")];
            letters.iter().fold(tags.to_string(), |tags, (old, new)| tags.replace(old, new))
        };
        for (found, wanted, scheme) in [
            (found.to_string(), wanted.to_string(), TagScheme::Bilou),
            (bmewo(found), bmewo(wanted), TagScheme::Bmewo),
        ] {
            let scores = EntityScores::strict(&sentences(&found), &sentences(&wanted), scheme);
            let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a}, not {b}: {scores:?}");
            near(scores.accuracy, 0.7931034482758621);
            near(scores.all.precision(), 0.7);
            near(scores.all.recall(), 0.5833333333333334);
            near(scores.all.f1(), 0.6363636363636365);
            near(scores.by_type["X"].f1(), 0.8);
            near(scores.by_type["Y"].f1(), 0.28571428571428575);
            assert_eq!((scores.by_type["X"].wanted, scores.by_type["Y"].wanted), (9, 3));
        }
        let bare =
            EntityScores::strict(&sentences("B L O U"), &sentences("B L U U"), TagScheme::Bilou);
        assert_eq!(bare.by_type["_"], EntityCounts { wanted: 3, found: 2, right: 2 });
    }

    #[test]
    fn no_entities_on_a_side() {
        check("O O | O", "O O | O", 1.0, &[("", [0.0; 3], 0)]);
        check("B-X O", "O O", 0.5, &[("", [0.0; 3], 1), ("X", [0.0; 3], 1)]);
        assert_eq!(EntityScores::new::<&str>(&[], &[]), EntityScores::default());
    }
}
