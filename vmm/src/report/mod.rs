//! What a campaign came to, for people: a page ([`page`]), a table and progress on a
//! terminal ([`terminal`]).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::explore::campaign::Campaign;

mod card;
mod groups;
pub mod page;
mod strip;
mod style;
pub mod terminal;

/// The page's file in a directory that can be written, which is made if need be: to be asked
/// before a campaign whose report would have nowhere to go.
pub fn place(directory: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(directory)
        .and_then(|()| tempfile::tempfile_in(directory))
        .with_context(|| format!("the report directory {}", directory.display()))?;
    Ok(directory.join("index.html"))
}

/// Writes the page into a directory, which is made if need be: `index.html`. Returns its path.
pub fn write(directory: &Path, campaign: &Campaign) -> Result<PathBuf> {
    // No trial as in `place`: where a file system has no nameless files it takes calls that who is confined may not make.
    std::fs::create_dir_all(directory)
        .with_context(|| format!("the report directory {}", directory.display()))?;
    let path = directory.join("index.html");
    std::fs::write(&path, page::page(campaign))
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
