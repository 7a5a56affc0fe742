//! A heat map of shares: gates by layer, attention by adapter.

use std::path::Path;

use anyhow::anyhow;
use peft::format::write_atomically;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const CELL: (i32, i32) = (84, 34);
const LEFT: i32 = 210;
const TOP: i32 = 84;

/// Values between 0 and 1 with the names of their rows and columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Heatmap {
    /// What it shows.
    pub title: String,
    /// The columns' names.
    pub columns: Vec<String>,
    /// Each row: its name, and a value for each column or none.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Heatmap {
    /// Writes an SVG in which each cell shows its value.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|e| anyhow!("{}: cannot be drawn: {e}", path.display()))?;
        Ok(write_atomically(path, |file| file.write_all(svg.as_bytes()))?)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let (width, height) = (
            LEFT + CELL.0 * self.columns.len() as i32 + 20,
            TOP + CELL.1 * self.rows.len() as i32 + 20,
        );
        let area = SVGBackend::with_string(svg, (width as u32, height as u32)).into_drawing_area();
        area.fill(&WHITE)?;
        let font = |size: i32| ("sans-serif", size).into_font().into_text_style(&area);
        let centred = |size| font(size).pos(Pos::new(HPos::Center, VPos::Center));
        area.draw(&Text::new(self.title.clone(), (16, 14), font(18)))?;
        for (column, name) in self.columns.iter().enumerate() {
            let x = LEFT + CELL.0 * column as i32 + CELL.0 / 2;
            area.draw(&Text::new(name.clone(), (x, TOP - 16), centred(14)))?;
        }
        for (row, (name, values)) in self.rows.iter().enumerate() {
            let y = TOP + CELL.1 * row as i32;
            let right = font(14).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(name.clone(), (LEFT - 12, y + CELL.1 / 2), right))?;
            for (column, value) in values.iter().enumerate() {
                let Some(value) = value else { continue };
                let x = LEFT + CELL.0 * column as i32;
                let corners = [(x, y), (x + CELL.0 - 2, y + CELL.1 - 2)];
                area.draw(&Rectangle::new(corners, shade(*value).filled()))?;
                let colour = if *value > 0.6 { WHITE } else { BLACK };
                let text = centred(14).color(&colour);
                let middle = (x + CELL.0 / 2, y + CELL.1 / 2);
                area.draw(&Text::new(format!("{value:.3}"), middle, text))?;
            }
        }
        area.present()?;
        Ok(())
    }
}

/// From white at 0 to dark blue at 1.
fn shade(value: f64) -> RGBColor {
    let value = value.clamp(0.0, 1.0);
    let mix = |from: f64, to: f64| (from + (to - from) * value).round() as u8;
    RGBColor(mix(247.0, 8.0), mix(251.0, 48.0), mix(255.0, 107.0))
}
