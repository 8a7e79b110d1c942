//! The directory of gateways beside `mod_rwsgi.so`.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use super::record::Record;

/// What is installed.
#[derive(Debug)]
pub struct Installed {
    /// The directory.
    pub directory: PathBuf,
    /// All gateways, by version.
    pub records: Vec<Record>,
    /// The stem of the default one, where the directory names one.
    pub default: Option<String>,
}

/// Reads the directory `rwsgi` beside `module`, which may be a link to where it lies. `Err` is a
/// message.
pub fn read(module: &Path) -> Result<Installed, String> {
    let beside = |file: &Path| file.parent().map(|directory| directory.join("rwsgi"));
    let near = beside(module);
    let real = fs::canonicalize(module).ok().as_deref().and_then(beside);
    let directory = near
        .iter()
        .chain(&real)
        .find(|directory| directory.is_dir())
        .ok_or_else(|| {
            format!(
                "there is no directory 'rwsgi' with gateways beside {}; install rwsgi with \
                 'make install'",
                module.display()
            )
        })?;
    read_directory(directory)
}

fn read_directory(directory: &Path) -> Result<Installed, String> {
    let unreadable = |error| format!("{} cannot be read: {error}", directory.display());
    let mut records = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_none_or(|suffix| suffix != "conf") {
            continue;
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let record = Record::parse(&stem, &text)
            .map_err(|what| format!("{} is no record of a gateway: {what}", path.display()))?;
        records.push(record);
    }
    records.sort_by(|a, b| (a.minor, &a.stem).cmp(&(b.minor, &b.stem)));
    let default = fs::read_to_string(directory.join("default"))
        .ok()
        .map(|text| text.trim().to_owned());
    Ok(Installed {
        directory: directory.to_owned(),
        records,
        default,
    })
}
