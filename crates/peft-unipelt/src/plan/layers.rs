//! Layers by number.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Layers by number, from 0: in a file a text such as `0-2, 5`, a number, or a list of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSet(Vec<[usize; 2]>);

/// No model has more layers.
const MOST: usize = 1 << 16;

impl LayerSet {
    /// Whether a layer is one of them.
    pub fn contains(&self, layer: usize) -> bool {
        self.0.iter().any(|[first, last]| (*first..=*last).contains(&layer))
    }

    /// The largest number.
    pub fn last(&self) -> usize {
        self.0.iter().map(|[_, last]| *last).max().unwrap_or(0)
    }
}

impl fmt::Display for LayerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, [first, last]) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for LayerSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} must be layers such as \"0-2, 5\"");
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|layer| *layer < MOST);
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = [number(first)?, number(last)?];
            (range[0] <= range[1]).then_some(range)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.map(Self).ok_or_else(wrong)
    }
}

impl Serialize for LayerSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LayerSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Text(String),
            Number(usize),
            Numbers(Vec<usize>),
        }
        let text = match Value::deserialize(deserializer)? {
            Value::Text(text) => text,
            Value::Number(layer) => layer.to_string(),
            Value::Numbers(layers) => {
                layers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
            }
        };
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_numbers_are_read_and_written_as_they_are() {
        for (text, written, within) in [
            ("0-2", "0-2", vec![0, 1, 2]),
            ("5", "5", vec![5]),
            (" 1 - 2,4 ", "1-2, 4", vec![1, 2, 4]),
        ] {
            let layers: LayerSet = text.parse().expect("layers");
            assert_eq!(layers.to_string(), written);
            let found: Vec<usize> = (0..9).filter(|layer| layers.contains(*layer)).collect();
            assert_eq!(found, within);
        }
        for value in [serde_json::json!([3, 1]), serde_json::json!("3,1")] {
            let layers: LayerSet = serde_json::from_value(value).expect("layers");
            assert!(layers.contains(1) && layers.contains(3) && !layers.contains(2));
        }
    }

    #[test]
    fn what_is_no_layer_is_refused() {
        for text in ["", "a", "2-1", "1-", "-1", "0,,1", "99999999999999999999"] {
            let error = text.parse::<LayerSet>().expect_err(text);
            assert!(error.contains("0-2, 5"), "{error}");
        }
    }
}
