//! Files that are either whole or not there.

use std::ffi::OsStr;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

use crate::{Error, Result};

/// How the name of a file begins that is not whole yet.
const UNFINISHED: &str = ".writing-";

/// Writes a file under a temporary name beside `path` and renames it: a reader, or a run cut off
/// at any moment, sees the old file or the new one, and the new one outlives a loss of power.
///
/// # Errors
/// If the directory cannot be written to.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Error::file(path, format!("cannot be written: {e}"));
    let directory = parent_of(path);
    create_directory(directory).map_err(|e| failed(&e))?;
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions_of_a_new_file()
        .tempfile_in(directory)
        .map_err(|e| failed(&e))?;
    let mut buffer = BufWriter::new(file.as_file_mut());
    write(&mut buffer).and_then(|()| buffer.flush()).map_err(|e| failed(&e))?;
    drop(buffer);
    file.as_file().sync_all().map_err(|e| failed(&e))?;
    file.persist(path).map_err(|e| failed(&e.error))?;
    sync_directory(directory).map_err(|e| failed(&e))
}

/// Makes a directory, and those above it, where they are missing; their names outlive a loss of power,
/// and with them what is in them.
///
/// # Errors
/// If one cannot be made, or the disk fails.
pub fn create_directory(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = parent_of(directory);
    create_directory(parent)?;
    match std::fs::create_dir(directory) {
        // Another process was faster.
        Err(_) if directory.is_dir() => {}
        result => result?,
    }
    sync_directory(parent)
}

/// The directory that a name is in.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Removes what [`write_atomically`] left in a directory, if it is there, where its process was
/// killed. Nobody else may be writing there.
///
/// # Errors
/// If the directory cannot be read, or a file not be removed.
pub fn remove_unfinished(directory: &Path) -> Result<()> {
    let failed = |path: &Path, e| Error::file(path, format!("cannot be tidied up: {e}"));
    let entries = match directory.read_dir() {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(directory, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| failed(directory, e))?;
        if is_unfinished(&entry.file_name()) {
            std::fs::remove_file(entry.path()).map_err(|e| failed(&entry.path(), e))?;
        }
    }
    Ok(())
}

/// Whether a file has a name that [`write_atomically`] gives to what is not whole yet.
pub fn is_unfinished(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
}

/// Makes sure that the names in a directory outlive a loss of power: a file that was synced may
/// still be without the name that it was given.
///
/// # Errors
/// If the directory cannot be read, or the disk fails.
#[cfg(unix)]
pub fn sync_directory(directory: &Path) -> std::io::Result<()> {
    match std::fs::File::open(directory)?.sync_all() {
        // Some file systems have nothing to do there, and say so.
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

/// Elsewhere than on Unix a directory cannot be opened, and names are synced with their files.
#[cfg(not(unix))]
pub fn sync_directory(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Temporary files are private to their owner; what we write is an ordinary file.
trait OrdinaryPermissions {
    fn permissions_of_a_new_file(&mut self) -> &mut Self;
}

impl OrdinaryPermissions for tempfile::Builder<'_, '_> {
    #[cfg(unix)]
    fn permissions_of_a_new_file(&mut self) -> &mut Self {
        use std::os::unix::fs::PermissionsExt;
        // The process's umask still applies.
        self.permissions(std::fs::Permissions::from_mode(0o666))
    }

    #[cfg(not(unix))]
    fn permissions_of_a_new_file(&mut self) -> &mut Self {
        self
    }
}
