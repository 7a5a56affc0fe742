//! Files with a word in each line.

use std::path::Path;

use crate::{Error, Result};

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
    /// 2002 and 2003. Lines that begin with `-DOCSTART-` are between sentences too.
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
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let lines = lines(path, &bytes)?;
    let format = format.unwrap_or_else(|| WordFormat::of(path, &lines));
    let mut layout: Option<Layout> = None;
    let mut sentences = Vec::new();
    let mut open = None;
    for (text, line) in lines.into_iter().zip(1..) {
        if format.ends_sentence(text) {
            sentences.extend(open.take());
            continue;
        }
        if format.is_comment(text) {
            continue;
        }
        let layout = match &mut layout {
            Some(layout) => layout,
            none => none.insert(Layout::new(path, line, text, format, tags)?),
        };
        if let Some((word, tag)) = layout.word(path, line, text)? {
            let sentence =
                open.get_or_insert(Sentence { line, words: Vec::new(), tags: Vec::new() });
            sentence.words.push(word.to_string());
            sentence.tags.extend(tag.map(str::to_string));
        }
    }
    sentences.extend(open);
    if sentences.is_empty() {
        return Err(Error::file(path, "no words: the file is empty"));
    }
    Ok(sentences)
}

/// The lines of a file, without what ends them.
fn lines<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<&'a str>> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let lines = bytes.split(|&byte| byte == b'\n').zip(1..).map(|(text, line)| {
        let text = std::str::from_utf8(text).map_err(|e| {
            Error::row(path, line, format!("not UTF-8 from byte {}", e.valid_up_to()))
        })?;
        Ok(text.trim_end_matches('\r'))
    });
    lines.collect()
}

impl WordFormat {
    /// The format of a file, by its extension or its first row.
    fn of(path: &Path, lines: &[&str]) -> Self {
        let by_name = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("conllu"));
        let row = lines.iter().find(|text| !text.trim().is_empty() && !text.starts_with('#'));
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

    fn is_comment(self, text: &str) -> bool {
        self == Self::ConllU && text.starts_with('#')
    }

    /// The index of the column with the words.
    fn word(self) -> usize {
        match self {
            Self::Columns => 0,
            Self::ConllU => 1,
        }
    }
}

/// What the rows of a file are like; the first one says.
struct Layout {
    format: WordFormat,
    /// Between tabs, or else between spaces.
    tabs: bool,
    columns: usize,
    /// The index of the column with the tags.
    tag: Option<usize>,
}

impl Layout {
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
        let sentences = show("a", "\u{feff}a  X \r\n3\t000 Y\r\n \t \r\n\r\n# Z", None, "");
        assert_eq!(sentences, ["1: a/X 3\t000/Y", "5: #/Z"]);
    }

    #[test]
    fn columns_between_tabs() {
        let text = "New York\tPROPN\nis\t AUX \n\n\nfar\tADJ";
        assert_eq!(show("a.tsv", text, None, ""), ["1: New York/PROPN is/AUX", "5: far/ADJ"]);
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
