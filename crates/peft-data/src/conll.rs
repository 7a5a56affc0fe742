//! Files with a word in each line.

use std::collections::HashSet;
use std::path::Path;

use crate::tags::Tag;
use crate::{Error, Result, lines};

/// The words of a sentence, and their tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The line of its first word, from 1.
    pub line: u64,
    /// The words.
    pub words: Vec<String>,
    /// A tag for each word; none where none were asked for.
    pub tags: Vec<String>,
}

/// How a file with a word in each line is laid out. Empty lines are between sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordFormat {
    /// The word in the first of some columns between tabs or else spaces, as in the data of CoNLL
    /// 2002 and 2003. Lines that begin with `-DOCSTART-` are between sentences too. Lines before a
    /// sentence that begin with `#`, and have other columns than words have, are comments.
    Columns,
    /// CoNLL-U: ten columns between tabs, the word in the second; comments; ranges of words (`1-2`)
    /// and empty nodes (`1.1`), which are skipped.
    ConllU,
}

/// The column with the tags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TagColumn {
    /// The last one; of CoNLL-U, `upos`.
    #[default]
    Usual,
    /// The one of this number, from 1.
    Number(usize),
    /// The one of this name, in CoNLL-U: `lemma`, `upos`, `xpos`, `feats`, `head`, `deprel`, `deps`
    /// or `misc`.
    Name(String),
    /// None: words alone are read.
    None,
}

impl std::str::FromStr for TagColumn {
    type Err = std::convert::Infallible;

    /// A number or a name.
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let text = text.trim();
        Ok(match text.parse() {
            Ok(number) => Self::Number(number),
            Err(_) => Self::Name(text.to_ascii_lowercase()),
        })
    }
}

/// The columns of CoNLL-U.
const CONLLU: [&str; 10] =
    ["id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc"];

/// Reads a file with a word in each line; in the format that its extension or else its first row
/// suggests, unless one is given.
///
/// # Errors
/// If the file is missing, empty or not UTF-8, has no such column of tags, or a line has another
/// number of columns than the first one; the line is named.
pub fn read_sentences(
    path: &Path,
    format: Option<WordFormat>,
    tags: &TagColumn,
) -> Result<Vec<Sentence>> {
    let bytes = lines::read(path)?;
    let lines = lines::lines(path, &bytes)?;
    let format = format.unwrap_or_else(|| WordFormat::of(path, &lines));
    let Some(layout) = Layout::of(path, &lines, format, tags)? else {
        return Err(Error::file(path, EMPTY));
    };
    let known = layout.known_tags(&lines);
    let mut sentences = Vec::new();
    let mut open = None;
    for (text, line) in lines.into_iter().zip(1..) {
        if format.ends_sentence(text) {
            sentences.extend(open.take());
            continue;
        }
        if layout.is_comment(text, open.is_none(), &known) {
            continue;
        }
        if let Some((word, tag)) = layout.word(path, line, text)? {
            let sentence =
                open.get_or_insert(Sentence { line, words: Vec::new(), tags: Vec::new() });
            sentence.words.push(word.to_string());
            sentence.tags.extend(tag.map(str::to_string));
        }
    }
    sentences.extend(open);
    if sentences.is_empty() {
        return Err(Error::file(path, EMPTY));
    }
    Ok(sentences)
}

const EMPTY: &str = "no words: the file is empty";

/// What comments begin with.
const COMMENT: char = '#';

impl WordFormat {
    /// The format of a file, by its extension or its first row.
    fn of(path: &Path, lines: &[&str]) -> Self {
        let by_name = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("conllu"));
        let row = lines.iter().find(|text| !text.trim().is_empty() && !text.starts_with(COMMENT));
        let by_row = row.is_some_and(|text| {
            let cells: Vec<&str> = text.split('\t').collect();
            cells.len() == CONLLU.len() && id(cells[0]).is_some()
        });
        if by_name || by_row { Self::ConllU } else { Self::Columns }
    }

    fn ends_sentence(self, text: &str) -> bool {
        match text.split([' ', '\t']).find(|cell| !cell.is_empty()) {
            Some(first) => self == Self::Columns && first == "-DOCSTART-",
            None => true,
        }
    }

    /// The index of the column with the words.
    fn word(self) -> usize {
        match self {
            Self::Columns => 0,
            Self::ConllU => 1,
        }
    }
}

/// What the rows of a file are like; the first one that is no comment says.
struct Layout {
    format: WordFormat,
    /// Between tabs, or else between spaces.
    tabs: bool,
    columns: usize,
    /// The index of the column with the tags.
    tag: Option<usize>,
}

impl Layout {
    /// The layout of a file; `None` if there is no row.
    fn of(
        path: &Path,
        lines: &[&str],
        format: WordFormat,
        tags: &TagColumn,
    ) -> Result<Option<Self>> {
        let mut rows = lines.iter().zip(1..).filter(|(text, _)| !format.ends_sentence(text));
        let first = rows.clone().find(|(text, _)| !text.starts_with(COMMENT));
        // Words of a file may all begin with the sign.
        let first = first.or_else(|| rows.next().filter(|_| format == WordFormat::Columns));
        first.map(|(text, line)| Self::new(path, line, text, format, tags)).transpose()
    }

    /// The tags of rows that are no comments for sure.
    fn known_tags<'a>(&self, lines: &[&'a str]) -> HashSet<&'a str> {
        let rows = lines.iter().filter(|text| !text.starts_with(COMMENT));
        rows.filter_map(|text| self.tag_of(&cells(text, self.tabs))).collect()
    }

    /// What stands in a row where tags do.
    fn tag_of<'a>(&self, cells: &[&'a str]) -> Option<&'a str> {
        cells.get(self.tag.unwrap_or(self.columns.saturating_sub(1))).copied()
    }

    /// Whether a row is a comment: in CoNLL-U, if it begins with `#`. Elsewhere that may be a word,
    /// and a comment, which stands before the words of a sentence, has another number of columns
    /// than they have, or `#` alone in the first and no tag in the last.
    fn is_comment(&self, text: &str, begins: bool, known: &HashSet<&str>) -> bool {
        if !text.starts_with(COMMENT) || self.format == WordFormat::ConllU {
            return text.starts_with(COMMENT);
        }
        let cells = cells(text, self.tabs);
        let is_sign = self.columns > 1 && cells[0].chars().eq([COMMENT]);
        let is_tag = |tag: &str| known.contains(tag) || Tag::is_of_entities(tag);
        let has_tag = self.tag_of(&cells).is_some_and(is_tag);
        begins && (cells.len() != self.columns || is_sign && !has_tag)
    }

    fn new(
        path: &Path,
        line: u64,
        first: &str,
        format: WordFormat,
        tags: &TagColumn,
    ) -> Result<Self> {
        let tabs = format == WordFormat::ConllU || first.contains('\t');
        let columns = match format {
            WordFormat::Columns => cells(first, tabs).len(),
            WordFormat::ConllU => CONLLU.len(),
        };
        let tag = tags.index(format, columns).map_err(|reason| Error::row(path, line, reason))?;
        Ok(Self { format, tabs, columns, tag })
    }

    /// The word of a row, and its tag; `None` if the row is of no word.
    fn word<'a>(
        &self,
        path: &Path,
        line: u64,
        text: &'a str,
    ) -> Result<Option<(&'a str, Option<&'a str>)>> {
        let cells = cells(text, self.tabs);
        if cells.len() != self.columns {
            let reason =
                format!("columns: {}, where there should be {}", cells.len(), self.columns);
            return Err(Error::row(path, line, reason));
        }
        if self.format == WordFormat::ConllU {
            match id(cells[0]) {
                Some(Id::Word) => {}
                Some(Id::Other) => return Ok(None),
                None => {
                    let reason = format!("{:?} is not an ID of CoNLL-U", cells[0]);
                    return Err(Error::row(path, line, reason));
                }
            }
        }
        let cell = |index: usize| match cells[index] {
            "" => Err(Error::row(path, line, format!("column {} is empty", index + 1))),
            cell => Ok(cell),
        };
        Ok(Some((cell(self.format.word())?, self.tag.map(cell).transpose()?)))
    }
}

impl TagColumn {
    /// The column's index, or what is wrong.
    fn index(
        &self,
        format: WordFormat,
        columns: usize,
    ) -> std::result::Result<Option<usize>, String> {
        let number = match (self, format) {
            (Self::None, _) => return Ok(None),
            (Self::Usual, WordFormat::Columns) => columns.max(2),
            (Self::Usual, WordFormat::ConllU) => 4, // upos
            (Self::Number(number), _) => *number,
            (Self::Name(name), WordFormat::Columns) => {
                return Err(format!("no column {name:?}: columns have numbers here, from 1"));
            }
            (Self::Name(name), WordFormat::ConllU) => {
                let index = CONLLU.iter().position(|column| column == name);
                let missing = || format!("no column {name:?}; there are: {}", CONLLU.join(", "));
                index.ok_or_else(missing)? + 1
            }
        };
        if !(1..=columns).contains(&number) {
            return Err(format!("no column {number} with tags; columns: {columns}"));
        }
        if number - 1 == format.word() {
            return Err(format!("column {number} has the words, not the tags"));
        }
        Ok(Some(number - 1))
    }
}

fn cells(text: &str, tabs: bool) -> Vec<&str> {
    if tabs {
        text.split('\t').map(|cell| cell.trim_matches(' ')).collect()
    } else {
        text.split(' ').filter(|cell| !cell.is_empty()).collect()
    }
}

/// What the first column of CoNLL-U says of its row.
enum Id {
    /// A word, `1`.
    Word,
    /// A range of words, `1-2`, or an empty node, `1.1`.
    Other,
}

fn id(cell: &str) -> Option<Id> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match cell.split_once(['-', '.']) {
        None => number(cell).then_some(Id::Word),
        Some((start, end)) => (number(start) && number(end)).then_some(Id::Other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(
        name: &str,
        text: impl AsRef<[u8]>,
        format: Option<WordFormat>,
        tags: &TagColumn,
    ) -> std::result::Result<Vec<Sentence>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_sentences(&path, format, tags)
            .map_err(|e| e.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    /// Reads, and shows sentences as `line: word/tag word/tag`.
    fn show(name: &str, text: &str, format: Option<WordFormat>, tags: &str) -> Vec<String> {
        let tags = if tags.is_empty() { TagColumn::Usual } else { tags.parse().unwrap() };
        let sentences = read(name, text, format, &tags).unwrap();
        let show = |sentence: &Sentence| {
            assert_eq!(sentence.words.len(), sentence.tags.len());
            let words = sentence.words.iter().zip(&sentence.tags);
            let words: Vec<String> = words.map(|(word, tag)| format!("{word}/{tag}")).collect();
            format!("{}: {}", sentence.line, words.join(" "))
        };
        sentences.iter().map(show).collect()
    }

    const FOUR_COLUMNS: &str = "\
-DOCSTART- -X- -X- O

Ana NNP I-NP B-PER
sings VBZ I-VP O

-DOCSTART- -X- -X- O
Bor NNP I-NP B-PER
";

    #[test]
    fn columns_between_spaces() {
        let sentences = show("a.txt", FOUR_COLUMNS, None, "");
        assert_eq!(sentences, ["3: Ana/B-PER sings/O", "7: Bor/B-PER"]);
        let sentences = show("a.txt", FOUR_COLUMNS, None, "2");
        assert_eq!(sentences, ["3: Ana/NNP sings/VBZ", "7: Bor/NNP"]);
        let sentences = show("a", "\u{feff}a  X \r\n3\t000 Y\r\n \t \r\n\r\n# Y", None, "");
        assert_eq!(sentences, ["1: a/X 3\t000/Y", "5: #/Y"]);
    }

    #[test]
    fn columns_between_tabs() {
        let text = "New York\tPROPN\nis\t AUX \n\n\nfar\tADJ";
        assert_eq!(show("a.tsv", text, None, ""), ["1: New York/PROPN is/AUX", "5: far/ADJ"]);
    }

    #[test]
    fn comments_stand_before_sentences_and_have_other_columns_than_words() {
        let read = |text: &str| show("a.conll", text, None, "");
        for comment in ["# sent 1", "#id=1", "# a", "#begin document (a); part 000", "#"] {
            let text = format!("{comment}\n# more of it\nEU B-ORG\nis O\n\n{comment}\nno O\n");
            assert_eq!(read(&text), ["3: EU/B-ORG is/O", "7: no/O"], "{comment}");
        }
        assert_eq!(read("# id 7 domain=en\nEU _ _ B-ORG\n"), ["2: EU/B-ORG"]);
        assert_eq!(read("#\tn-tv.de 2005\n1\tEU\tB-ORG\n"), ["2: 1/B-ORG"]);
        // Words that begin with the sign.
        assert_eq!(read("#now B-NEW\n# O\na O\n\n# O\n"), ["1: #now/B-NEW #/O a/O", "5: #/O"]);
        assert_eq!(read("#one X\n#two Y\n"), ["1: #one/X #two/Y"]);
        let words = "# note\n#one\n#\ntwo\n";
        let sentences = super::tests::read("a.txt", words, None, &TagColumn::None).unwrap();
        assert_eq!(sentences[0].words, ["#one", "#", "two"]);
        // A comment within a sentence may be a word without its tag.
        let message = "a.txt, line 2: columns: 3, where there should be 2";
        refused("a.txt", "one X\n# a comment\n", "", message);
        refused("a.txt", "# a b c\n", "", "a.txt: no words: the file is empty");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[#a\t \n\r1.-]{0,60}|\\PC{0,40}", tag in 0..4usize) {
            for format in [None, Some(WordFormat::Columns), Some(WordFormat::ConllU)] {
                let _ = read("a.txt", &text, format, &TagColumn::Number(tag));
                let _ = read("a.txt", &text, format, &TagColumn::None);
            }
        }

        #[test]
        fn every_sentence_of_a_written_file_is_read_back(
            written in prop::collection::vec(
                prop::collection::vec(("[^\\s\u{feff}]{1,6}", "O|B-X|I-X"), 1..5),
                1..6,
            ),
            comments in any::<bool>(),
            end in "\r?\n",
        ) {
            // A comment can be told from words if there is a word that does not look like one.
            let plain = |words: &Vec<(String, String)>| words.iter().any(|(w, _)| !w.starts_with('#'));
            prop_assume!(!comments || written.iter().any(plain));
            let mut text = String::new();
            for (number, words) in written.iter().enumerate() {
                if comments {
                    text += &format!("# sentence {number}{end}");
                }
                let rows = words.iter().map(|(word, tag)| format!("{word}\t{tag}{end}"));
                text.extend(rows);
                text += &end;
            }
            let sentences = read("a.conll", &text, None, &TagColumn::Usual).unwrap();
            let pairs = |sentence: Sentence| {
                sentence.words.into_iter().zip(sentence.tags).collect::<Vec<_>>()
            };
            let found: Vec<_> = sentences.into_iter().map(pairs).collect();
            prop_assert_eq!(found, written);
        }
    }

    #[test]
    fn words_without_tags() {
        let sentences = read("a.txt", "one\ntwo\n\nthree\n", None, &TagColumn::None).unwrap();
        assert_eq!(sentences[0].words, ["one", "two"]);
        assert_eq!(sentences[1].words, ["three"]);
        assert!(sentences.iter().all(|sentence| sentence.tags.is_empty()));
    }

    const CONLLU_TEXT: &str = "\
# text = Grem vanj.
1\tGrem\titi\tVERB\tVm\tMood=Ind\t0\troot\t_\t_
2-3\tvanj\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
2\tv\tv\tADP\tSa\tCase=Acc\t3\tcase\t_\t_
3\tnjega\ton\tPRON\tPp\t_\t1\tobl\t_\t_
3.1\tx\tx\tVERB\t_\t_\t_\t_\t1:conj\t_

# second
1\tNe\tne\tPART\tQ\tPolarity=Neg\t0\troot\t_\t_
";

    #[test]
    fn conllu_by_its_extension_or_its_first_row() {
        for name in ["a.conllu", "a.txt"] {
            let sentences = show(name, CONLLU_TEXT, None, "");
            assert_eq!(sentences, ["2: Grem/VERB v/ADP njega/PRON", "9: Ne/PART"]);
        }
        let deprel = show("a", CONLLU_TEXT, None, "DepRel");
        assert_eq!(deprel, ["2: Grem/root v/case njega/obl", "9: Ne/root"]);
        let feats = show("a", CONLLU_TEXT, Some(WordFormat::ConllU), "feats");
        assert_eq!(feats, ["2: Grem/Mood=Ind v/Case=Acc njega/_", "9: Ne/Polarity=Neg"]);
        assert_eq!(show("a", CONLLU_TEXT, None, "5")[1], "9: Ne/Q");
        let rows = &CONLLU_TEXT[CONLLU_TEXT.find('1').unwrap()..];
        let forced =
            show("a.conllu", rows.split("\n\n").next().unwrap(), Some(WordFormat::Columns), "4");
        assert_eq!(forced, ["1: 1/VERB 2-3/_ 2/ADP 3/PRON 3.1/VERB"]);
    }

    #[track_caller]
    fn refused(name: &str, text: impl AsRef<[u8]>, tags: &str, message: &str) {
        let tags = if tags.is_empty() { TagColumn::Usual } else { tags.parse().unwrap() };
        assert_eq!(read(name, text, None, &tags).unwrap_err(), message);
    }

    #[test]
    fn what_is_wrong_and_where() {
        refused("a.txt", "", "", "a.txt: no words: the file is empty");
        refused("a.txt", "\n\n-DOCSTART-\n", "", "a.txt: no words: the file is empty");
        refused("a.txt", "\none\n", "", "a.txt, line 2: no column 2 with tags; columns: 1");
        refused("a.txt", "one X\n", "3", "a.txt, line 1: no column 3 with tags; columns: 2");
        refused("a.txt", "one X\n", "0", "a.txt, line 1: no column 0 with tags; columns: 2");
        refused("a.txt", "one X\n", "1", "a.txt, line 1: column 1 has the words, not the tags");
        let message = "a.txt, line 1: no column \"upos\": columns have numbers here, from 1";
        refused("a.txt", "one X\n", "upos", message);
        let message = "a.txt, line 2: columns: 1, where there should be 2";
        refused("a.txt", "one X\ntwo\n", "", message);
        refused("a.txt", "one\tX\n\tX\n", "", "a.txt, line 2: column 1 is empty");
        refused("a.txt", "one\tX\ntwo\t\n", "", "a.txt, line 2: column 2 is empty");
        refused("a.txt", b"one X\nz\xff X\n", "", "a.txt, line 2: not UTF-8 from byte 1");

        let message = "a.conllu, line 1: no column \"pos\"; there are: id, form, lemma, upos, \
                       xpos, feats, head, deprel, deps, misc";
        refused("a.conllu", "1\tone\n", "pos", message);
        let message = "a.conllu, line 1: columns: 2, where there should be 10";
        refused("a.conllu", "1\tone\n", "", message);
        let message = "a.conllu, line 2: \"x\" is not an ID of CoNLL-U";
        refused("a.conllu", "#\nx\t1\t2\t3\t4\t5\t6\t7\t8\t9\n", "", message);

        let error = read_sentences(Path::new("/nowhere/a.txt"), None, &TagColumn::Usual);
        assert!(error.unwrap_err().to_string().starts_with("/nowhere/a.txt: "));
    }
}
