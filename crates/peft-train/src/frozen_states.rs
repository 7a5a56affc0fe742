//! What frozen layers make of each text, kept from one epoch to the next.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use peft_core::{Hooks, Row};
use peft_data::{Batch, Goal, TokenizedSet};
use peft_models::{LayerInput, Model, TextStates};

use crate::evaluate::EVALUATION;
use crate::{Error, Result, TrainSettings};

/// The states of the texts of a data set that enter the lowest layer in which something is trained.
///
/// A text's are computed when it is first asked for, without dropout, and kept where there is room;
/// otherwise they are computed each time.
pub(crate) struct FrozenStates<'d> {
    model: &'d Model,
    data: &'d TokenizedSet,
    layer: usize,
    kept: RefCell<Vec<Option<Place>>>,
    room: Rc<RefCell<Room>>,
}

/// Where the states of a text are.
enum Place {
    Memory(TextStates),
    File { row: Row, at: u64, values: usize },
}

impl<'d> FrozenStates<'d> {
    /// The layer that they enter under a method, on a device with autodiff.
    ///
    /// # Errors
    /// [`Error::Setting`] if nothing is the same in every step.
    pub(crate) fn layer(
        model: &Model,
        data: &TokenizedSet,
        goal: Goal,
        hooks: &dyn Hooks,
        room: usize,
    ) -> Result<usize> {
        let refused = |reason: String| Error::setting("cache_frozen", room, reason);
        if goal == Goal::MaskedLm {
            let reason = "the texts of masked language modelling differ from epoch to epoch";
            return Err(refused(reason.into()));
        }
        let text = data.batch(&[0], EVALUATION, model.base().device())?;
        match model.frozen_layers(&text.input, hooks) {
            Ok(0) => {
                let reason = "the first layer, or what is below it, is trained: there is nothing \
                              to keep";
                Err(refused(reason.into()))
            }
            Ok(layers) => Ok(layers),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    pub(crate) fn new(
        model: &'d Model,
        data: &'d TokenizedSet,
        layer: usize,
        room: Rc<RefCell<Room>>,
    ) -> Self {
        let kept = RefCell::new((0..data.len()).map(|_| None).collect());
        Self { model, data, layer, kept, room }
    }

    /// What enters the layer, of a batch of the data set.
    ///
    /// # Errors
    /// If a text does not fit the model, or a file cannot be read or written.
    pub(crate) fn of(&self, batch: &Batch, hooks: &dyn Hooks) -> Result<LayerInput> {
        let device = self.model.base().device();
        let mut kept = self.kept.borrow_mut();
        let is_new = |index: &usize| kept[*index].is_none();
        let new: Vec<usize> = batch.indices.iter().copied().filter(is_new).collect();
        let mut fresh = Vec::new();
        if !new.is_empty() {
            let texts = self.data.batch(&new, EVALUATION, device)?;
            fresh = self.model.layer_input(self.layer, &texts.input, hooks)?.into_texts();
        }
        let (mut fresh, mut room) = (fresh.into_iter(), self.room.borrow_mut());
        let mut texts = Vec::with_capacity(batch.indices.len());
        for &index in &batch.indices {
            texts.push(match &kept[index] {
                Some(place) => room.read(place)?,
                None => {
                    let states = fresh.next().expect("the states of each new text");
                    kept[index] = room.keep(&states)?;
                    states
                }
            });
        }
        Ok(LayerInput::new(self.layer, &texts, device))
    }
}

/// Room for states, in memory and then in a file.
pub(crate) struct Room {
    /// Bytes that are left.
    memory: usize,
    disk: usize,
    directory: PathBuf,
    /// Without a name, so that it is gone with the process, however that ends.
    file: Option<File>,
    end: u64,
}

impl Room {
    /// As much as the settings say; the file is in `directory`.
    pub(crate) fn new(settings: &TrainSettings, directory: &Path) -> Self {
        let bytes = |mebibytes: Option<usize>| mebibytes.unwrap_or(0).saturating_mul(1 << 20);
        let [memory, disk] = [settings.cache_frozen, settings.cache_frozen_disk].map(bytes);
        Self { memory, disk, directory: directory.into(), file: None, end: 0 }
    }

    /// Keeps the states of a text, if there is room.
    fn keep(&mut self, text: &TextStates) -> Result<Option<Place>> {
        let row = size_of_val(&text.row.positions[..]) + size_of_val(&text.row.text[..]);
        let values = size_of_val(&text.values[..]);
        if let Some(left) = self.memory.checked_sub(row + values) {
            self.memory = left;
            return Ok(Some(Place::Memory(text.clone())));
        }
        let Some(left) = self.disk.checked_sub(values) else { return Ok(None) };
        self.disk = left;
        let bytes: Vec<u8> = text.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let at = self.end;
        self.in_file(|file| {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&bytes)
        })?;
        self.end += bytes.len() as u64;
        Ok(Some(Place::File { row: text.row.clone(), at, values: text.values.len() }))
    }

    /// The states at a place.
    fn read(&mut self, place: &Place) -> Result<TextStates> {
        let (row, at, values) = match place {
            Place::Memory(text) => return Ok(text.clone()),
            Place::File { row, at, values } => (row.clone(), *at, *values),
        };
        let mut bytes = vec![0; values * size_of::<f32>()];
        self.in_file(|file| {
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut bytes)
        })?;
        let (values, _) = bytes.as_chunks();
        Ok(TextStates {
            row,
            values: values.iter().map(|value| f32::from_le_bytes(*value)).collect(),
        })
    }

    fn in_file(&mut self, act: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
        let failed = |e| Error::file(&self.directory, format!("cached states: {e}"));
        let file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(&self.directory).map_err(failed)?,
        };
        act(self.file.insert(file)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(number: usize) -> TextStates {
        let values = (0..6).map(|place| (10 * number + place) as f32).collect();
        TextStates { row: Row::new(3), values }
    }

    #[test]
    fn memory_is_filled_first_then_disk_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().to_path_buf();
        // Two texts with their places, then three without: those stay in memory.
        let (memory, disk) = (2 * (24 + 48) + 71, 3 * 24 + 23);
        let mut room = Room { memory, disk, directory, file: None, end: 0 };
        let places: Vec<_> = (0..6).map(|n| room.keep(&text(n)).expect("kept")).collect();
        let kinds = places.iter().map(|place| match place {
            Some(Place::Memory(_)) => 'm',
            Some(Place::File { .. }) => 'f',
            None => '-',
        });
        assert_eq!(kinds.collect::<String>(), "mmfff-");
        assert_eq!((room.memory, room.disk, room.end), (71, 23, 72));
        for (number, place) in places.iter().enumerate().rev() {
            if let Some(place) = place {
                assert_eq!(room.read(place).expect("read"), text(number));
            }
        }
    }
}
