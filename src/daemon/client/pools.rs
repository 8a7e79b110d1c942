//! The slots of a process group and their idle connections.

use super::Settings;

/// What one httpd child keeps for a process group: made in `child_init`, shared by all threads,
/// dropped when the child ends.
pub struct Pools {
    settings: Settings,
}

impl Pools {
    /// No connection is made yet.
    pub fn new(settings: Settings) -> Pools {
        Pools { settings }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
