//! How the tags of words mark entities.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What the tags of words say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagScheme {
    /// `B-X` begins an entity of type `X` and `I-X` goes on with it; `E-X` ends one and `S-X` is
    /// one of a single word, where there are such: BIO (IOB2), IOB1, BIOES (IOBES).
    Bio,
    /// BILOU: `B-X`, any number of `I-X` and `L-X`, or `U-X` for a single word.
    Bilou,
    /// BMEWO and BMES: `B-X`, any number of `M-X` and `E-X`, or `W-X` (`S-X`) for a single word.
    Bmewo,
    /// `I-X` is in an entity: neighbours of one type are one entity.
    Io,
    /// `X` is in an entity, as in [`Io`](Self::Io), and `O` is outside.
    Types,
    /// No entities: a tag is of its word alone, as a part of speech is.
    Words,
}

impl TagScheme {
    /// The scheme of a data set's tags: entities, if there is an `O` or all tags have a prefix.
    pub fn of<'a>(tags: impl IntoIterator<Item = &'a str>) -> Self {
        let tags: BTreeSet<&str> = tags.into_iter().collect();
        let marks = |scheme| tags.iter().filter_map(move |tag| Tag::new(tag, scheme));
        for scheme in [Self::Bilou, Self::Bmewo] {
            let own = |tag: &&str| scheme.own().iter().any(|mark| tag.starts_with(*mark));
            let is_whole = marks(scheme).all(|tag| tag.mark.is_some());
            let is_typed = marks(scheme).all(|tag| !tag.kind.is_empty());
            if is_whole && tags.iter().any(own) && (is_typed || tags.contains("B")) {
                return scheme;
            }
        }
        let (mut bare, mut inside, mut other) = (false, false, false);
        for tag in marks(Self::Bio) {
            match tag.mark {
                None => bare = true,
                Some('I') => inside = true,
                Some(_) => other = true,
            }
        }
        match (tags.contains(OUTSIDE), bare) {
            (false, true) => Self::Words,
            _ if other => Self::Bio,
            _ if inside => Self::Io,
            (_, true) => Self::Types,
            _ => Self::Words,
        }
    }

    /// The marks that this scheme alone has.
    fn own(self) -> &'static [char] {
        match self {
            Self::Bilou => &['L', 'U'],
            Self::Bmewo => &['M', 'W'],
            Self::Bio | Self::Io | Self::Types | Self::Words => &[],
        }
    }

    /// What a mark means, in the letters of BIOES, if it is one.
    fn mark(self, mark: char) -> Option<char> {
        match (self, mark) {
            (_, 'B') | (Self::Bmewo, 'E' | 'S') | (Self::Bilou, 'I') => Some(mark),
            (Self::Bilou, 'L') => Some('E'),
            (Self::Bmewo, 'M') => Some('I'),
            (Self::Bilou, 'U') | (Self::Bmewo, 'W') => Some('S'),
            (Self::Bilou | Self::Bmewo, _) => None,
            (_, 'I' | 'E' | 'S') => Some(mark),
            _ => None,
        }
    }
}

/// Tags in another scheme, with what was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The tags of each sentence.
    pub tags: Vec<Vec<String>>,
    /// How often a tag became another one.
    pub changes: BTreeMap<(String, String), usize>,
}

impl fmt::Display for Converted {
    /// `3 tags changed: I-PER to B-PER (2), PER to I-PER (1)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes =
            self.changes.iter().map(|((old, new), count)| format!("{old} to {new} ({count})"));
        let list = changes.collect::<Vec<_>>().join(", ");
        match self.changes.values().sum() {
            0 => write!(f, "no tags changed"),
            1 => write!(f, "1 tag changed: {list}"),
            count => write!(f, "{count} tags changed: {list}"),
        }
    }
}

/// Tags of any scheme as `B-X`, `I-X` and `O`, with the same entities. Where no prefix says so, an
/// entity begins with each tag that follows no tag of its type.
pub fn to_bio<S: AsRef<str>>(sentences: &[Vec<S>]) -> Converted {
    convert(sentences, |begins| if begins { 'B' } else { 'I' })
}

/// Tags of any scheme as `I-X` and `O`. Neighbouring entities of one type become one.
pub fn to_io<S: AsRef<str>>(sentences: &[Vec<S>]) -> Converted {
    convert(sentences, |_| 'I')
}

/// Gives each tag in an entity the mark for whether the entity begins with it.
fn convert<S: AsRef<str>>(sentences: &[Vec<S>], mark: impl Fn(bool) -> char) -> Converted {
    let scheme = TagScheme::of(sentences.iter().flatten().map(AsRef::as_ref));
    let mut changes = BTreeMap::new();
    let mut tags = Vec::with_capacity(sentences.len());
    for sentence in sentences {
        let mut open = None;
        let mut converted = Vec::with_capacity(sentence.len());
        for old in sentence.iter().map(AsRef::as_ref) {
            let tag = Tag::new(old, scheme);
            let new = match tag {
                None => OUTSIDE.to_string(),
                Some(tag) => {
                    let begins = matches!(tag.mark, Some('B' | 'S')) || open != Some(tag.kind);
                    Tag { mark: Some(mark(begins)), ..tag }.to_string()
                }
            };
            open = tag.filter(|tag| !matches!(tag.mark, Some('E' | 'S'))).map(|tag| tag.kind);
            if new != old {
                *changes.entry((old.to_string(), new.clone())).or_default() += 1;
            }
            converted.push(new);
        }
        tags.push(converted);
    }
    Converted { tags, changes }
}

/// The tag of words in no entity.
const OUTSIDE: &str = "O";

/// A tag in an entity.
#[derive(Clone, Copy)]
pub(crate) struct Tag<'a> {
    /// `B`, `I`, `E` or `S`, whatever letters the scheme has for them, if there is a prefix.
    pub(crate) mark: Option<char>,
    /// The type; empty where the tag is a mark alone.
    pub(crate) kind: &'a str,
}

impl<'a> Tag<'a> {
    /// Divides a tag of a scheme; `None` is outside.
    pub(crate) fn new(tag: &'a str, scheme: TagScheme) -> Option<Self> {
        if tag == OUTSIDE {
            return None;
        }
        let (prefix, kind) = tag.split_once('-').unwrap_or((tag, ""));
        let mut letters = prefix.chars();
        let mark = letters.next().filter(|_| letters.as_str().is_empty());
        Some(match mark.and_then(|mark| scheme.mark(mark)) {
            Some(mark) => Self { mark: Some(mark), kind },
            None => Self { mark: None, kind: tag },
        })
    }
}

impl Tag<'_> {
    /// Whether a text is a tag of entities for all its form says: `O`, `B-X`, `I-X`.
    pub(crate) fn is_of_entities(text: &str) -> bool {
        let is_marked = |tag: Tag<'_>| tag.mark.is_some() && !tag.kind.is_empty();
        Tag::new(text, TagScheme::Bio).is_none_or(is_marked)
    }
}

impl fmt::Display for Tag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.mark, self.kind) {
            (Some(mark), "") => write!(f, "{mark}"),
            (Some(mark), kind) => write!(f, "{mark}-{kind}"),
            (None, kind) => write!(f, "{kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::EntityScores;

    fn sentences(text: &str) -> Vec<Vec<String>> {
        text.lines().map(|line| line.split(' ').map(String::from).collect()).collect()
    }

    #[track_caller]
    fn check(converted: &Converted, tags: &str, changes: &str) {
        assert_eq!(converted.tags, sentences(tags));
        assert_eq!(converted.to_string(), changes);
    }

    #[test]
    fn to_bio_marks_where_an_entity_begins() {
        let types = sentences("PER PER O ORG\nORG LOC LOC");
        check(
            &to_bio(&types),
            "B-PER I-PER O B-ORG\nB-ORG B-LOC I-LOC",
            "6 tags changed: LOC to B-LOC (1), LOC to I-LOC (1), ORG to B-ORG (2), \
             PER to B-PER (1), PER to I-PER (1)",
        );
        check(
            &to_bio(&sentences("I-PER I-PER B-PER I-LOC\nI-LOC")),
            "B-PER I-PER B-PER B-LOC\nB-LOC",
            "3 tags changed: I-LOC to B-LOC (2), I-PER to B-PER (1)",
        );
        check(
            &to_bio(&sentences("S-X B-X I-X E-X I-X E-Y\nI I O B B-")),
            "B-X B-X I-X I-X B-X B-Y\nB I O B B",
            "6 tags changed: B- to B (1), E-X to I-X (1), E-Y to B-Y (1), I to B (1), \
             I-X to B-X (1), S-X to B-X (1)",
        );
        let bio = "B-A-B I-A-B B-A-B O";
        check(&to_bio(&sentences(bio)), bio, "no tags changed");
    }

    #[test]
    fn to_bio_and_to_io_of_schemes_that_mark_the_end() {
        let bio = "B-X I-X I-X O B-X B-X I-X B-Y";
        for (whole, letters) in [
            ("B-X I-X L-X O U-X B-X L-X U-Y", "BILOU"),
            ("B-X M-X E-X O W-X B-X E-X W-Y", "BMEWO"),
            ("B-X M-X E-X O S-X B-X E-X S-Y", "BMES"),
            ("B-X I-X E-X O S-X B-X E-X S-Y", "BIOES"),
        ] {
            assert_eq!(to_bio(&sentences(whole)).tags, sentences(bio), "{letters}");
            let io = sentences("I-X I-X I-X O I-X I-X I-X I-Y");
            assert_eq!(to_io(&sentences(whole)).tags, io, "{letters}");
        }
    }

    #[test]
    fn to_io_joins_neighbours_of_one_type() {
        check(
            &to_io(&sentences("B-PER I-PER B-PER O B-LOC ORG")),
            "I-PER I-PER I-PER O I-LOC I-ORG",
            "4 tags changed: B-LOC to I-LOC (1), B-PER to I-PER (2), ORG to I-ORG (1)",
        );
        check(&to_io(&sentences("O B-X")), "O I-X", "1 tag changed: B-X to I-X (1)");
    }

    #[test]
    fn conversion_to_bio_keeps_the_entities() {
        let marked = ["O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y", "E-Y", "S-Y", "I"];
        let mut all = Vec::new();
        for code in 0..marked.len().pow(4) as u32 {
            let digit = |place| marked[(code / 10u32.pow(place)) as usize % 10].to_string();
            all.push((0..4).map(digit).collect::<Vec<_>>());
        }
        let scores = EntityScores::new(&to_bio(&all).tags, &all);
        assert_eq!(scores.all.wanted, scores.all.right);
        assert_eq!(scores.all.found, scores.all.right);
        assert!(scores.all.right > all.len());
    }

    #[test]
    fn the_scheme_of_tags() {
        let scheme = |tags: &str| TagScheme::of(tags.split(' '));
        assert_eq!(scheme("O B-PER I-PER"), TagScheme::Bio);
        assert_eq!(scheme("B-PER I-PER"), TagScheme::Bio);
        assert_eq!(scheme("O I-PER S-LOC PER"), TagScheme::Bio);
        assert_eq!(scheme("O I-PER I-LOC"), TagScheme::Io);
        assert_eq!(scheme("O PER LOC"), TagScheme::Types);
        assert_eq!(scheme("NOUN SYM X"), TagScheme::Words);
        assert_eq!(scheme("I S NOUN"), TagScheme::Words);
        assert_eq!(scheme("O"), TagScheme::Words);
        assert_eq!(scheme("O B-PER I-PER E-PER S-PER"), TagScheme::Bio);
        assert_eq!(scheme("O B-PER I-PER L-PER U-PER"), TagScheme::Bilou);
        assert_eq!(scheme("O U-PER"), TagScheme::Bilou);
        assert_eq!(scheme("B I L U O"), TagScheme::Bilou);
        assert_eq!(scheme("O B-PER M-PER E-PER W-PER"), TagScheme::Bmewo);
        assert_eq!(scheme("O B-PER M-PER E-PER S-PER"), TagScheme::Bmewo);
        assert_eq!(scheme("B M E S"), TagScheme::Bmewo);
        // Types and classes that begin like marks.
        assert_eq!(scheme("O B-PER I-PER LOC"), TagScheme::Bio);
        assert_eq!(scheme("O B-PER E-PER L-PER"), TagScheme::Bio);
        assert_eq!(scheme("O MISC LOC"), TagScheme::Types);
        assert_eq!(scheme("M W"), TagScheme::Words);
        assert_eq!(scheme("NOUN M-X U"), TagScheme::Words);
    }
}
