//! What is to be said of a configuration that is accepted: warnings and hints, once for each
//! subject, when all of it has been read.
//!
//! httpd reads its configuration twice at start-up, and a directive may stand in a hundred virtual
//! hosts; lines written at each occurrence would be noise.

use core::sync::atomic::{AtomicU32, Ordering};

use super::Globals;
use super::notes::FIRST_GROUP;
use crate::exchange::Level;
use crate::httpd::apache::{Array, PoolStr, Server};

/// A line about the configuration.
#[derive(Clone, Copy)]
pub struct Remark {
    /// What it is about; there is one remark of each kind for it.
    pub subject: &'static str,
    /// When and how it is said.
    pub kind: Kind,
    /// The line.
    pub text: PoolStr,
}

/// When and how a remark is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A warning, whenever the configuration is read.
    Warning,
    /// Level info, whenever the configuration is read.
    Info,
    /// A note, whatever `LogLevel` is. Only made by `apachectl configtest`, for who runs that.
    Note,
}

/// Adds a remark, unless there is one of its kind about its subject. httpd's only thread.
pub fn add(remarks: &mut Array<Remark>, remark: Remark) {
    let same = |other: &Remark| other.kind == remark.kind && other.subject == remark.subject;
    if !remarks.items().iter().any(same) {
        remarks.push(remark);
    }
}

/// Says what there is to say of a configuration that has been read.
pub fn say(globals: &Globals, main: Server<'_>) {
    for remark in globals.remarks.items() {
        let line = remark.text.bytes();
        match remark.kind {
            Kind::Warning => main.log(Level::Warning, line),
            Kind::Info => main.log(Level::Info, line),
            // Where the main interpreter is kept for those who name it, groups are as in mod_wsgi.
            Kind::Note if globals.reserve_main && remark.subject == FIRST_GROUP => (),
            Kind::Note => Server::log_anyway(Level::Notice, line),
        }
    }
}

/// Subjects about which something has been said in this process outside of the configuration's
/// reading: `.htaccess` is read again for every request.
#[derive(Default)]
pub struct Said(AtomicU32);

impl Said {
    /// Nothing.
    pub const fn new() -> Self {
        Said(AtomicU32::new(0))
    }

    /// Whether the subject with this number, below 32, is new. Any thread.
    pub fn first(&self, subject: usize) -> bool {
        let bit = 1_u32 << (subject % 32);
        self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Said;

    #[test]
    fn a_subject_is_new_once() {
        let said = Said::new();
        assert!(said.first(0));
        assert!(said.first(8));
        assert!(!said.first(0));
        assert!(!said.first(8));
        assert!(said.first(31));
    }
}
