//! How a directive reaches the function that takes its arguments. [`table`](super::table) lists them.

use core::ffi::{CStr, c_char, c_int, c_void};

use super::remarks::{Kind, Remark};
use super::server::Import;
use super::{Globals, ServerConfig, Settings, expand, notes, remarks, values};
use crate::httpd::apache::command::{Command, Words};
use crate::httpd::apache::{PoolStr, Server, mpm, text};
use crate::httpd::daemon::Groups;
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{self, cmd_parms};
use crate::messages::Code;

/// Where a directive may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// The main server only.
    Global,
    /// The main server and virtual hosts.
    Server,
    /// These, and directory sections.
    Directory,
    /// These, and `.htaccess` with `AllowOverride FileInfo`.
    FileInfo,
    /// Directory sections, and `.htaccess` with `AllowOverride AuthConfig`.
    AuthConfig,
}

impl Context {
    pub(super) const fn overrides(self) -> c_int {
        match self {
            Context::Global | Context::Server => sys::RSRC_CONF,
            Context::Directory => sys::RSRC_CONF | sys::ACCESS_CONF,
            Context::FileInfo => sys::OR_FILEINFO,
            Context::AuthConfig => sys::OR_AUTHCFG,
        }
    }
}

/// How a directive takes its arguments.
#[derive(Clone, Copy)]
pub enum Arguments {
    /// Exactly one word.
    One(fn(&mut Target<'_>, PoolStr) -> Result<(), String>),
    /// A list with options.
    Raw(fn(&mut Target<'_>, Words<'_>) -> Result<(), String>),
    /// The arguments of a section, whose directives are read next, and its end.
    Section(
        fn(&mut Target<'_>, Words<'_>) -> Result<(), String>,
        fn(&mut Target<'_>) -> Result<(), String>,
    ),
}

/// A row of the table.
pub struct Directive {
    /// Its name.
    pub name: &'static CStr,
    /// Where it may stand.
    pub context: Context,
    /// Shown after httpd's "takes one argument,", and by mod_info.
    pub help: &'static CStr,
    /// What takes its arguments.
    pub arguments: Arguments,
}

/// What a directive configures.
pub struct Target<'c> {
    /// The directive as httpd gives it.
    pub command: Command<'c>,
    directive: &'static Directive,
    directory: Option<&'c mut Settings>,
}

impl<'c> Target<'c> {
    /// What the table says of its arguments.
    pub fn help(&self) -> String {
        self.directive.help.to_string_lossy().into_owned()
    }

    /// The name of the directive.
    pub fn name(&self) -> &'static str {
        self.directive.name.to_str().unwrap_or("the directive")
    }

    /// The configuration of the server in whose context the directive stands.
    pub fn server(&self) -> Result<&'c mut ServerConfig, String> {
        ServerConfig::of_mut(self.command.server())
            .ok_or_else(|| format!("{} cannot be used here", self.name()))
    }

    /// The directory's settings within a directory section, else the server's.
    pub fn settings(&mut self) -> Result<&mut Settings, String> {
        if self.command.is_in_directory() && self.directory.is_some() {
            let directory = self.directory.as_deref_mut();
            return directory.ok_or_else(String::new);
        }
        Ok(&mut self.server()?.settings)
    }

    /// The settings of the section or `.htaccess` in which the directive stands.
    pub fn section(&mut self) -> Result<&mut Settings, String> {
        let name = self.name();
        let directory = self.directory.as_deref_mut();
        directory.ok_or_else(|| format!("{name} cannot be used here"))
    }

    /// The name of a group as it is kept: the commonest form needs no expansion then.
    pub fn group(&self, name: PoolStr) -> PoolStr {
        match expand::parse(name.bytes()) {
            expand::Form::Global => self.command.pool().copy(b""),
            _ => name,
        }
    }

    /// The server in whose context the directive stands.
    pub fn server_of_command(&self) -> Server<'c> {
        self.command.server()
    }

    /// The values of the main server, wherever the directive stands.
    pub fn main_globals(&self) -> Result<&'c mut Globals, String> {
        let main = Server::main().and_then(ServerConfig::of_mut);
        main.map(ServerConfig::globals_mut)
            .ok_or_else(|| format!("{} cannot be used here", self.name()))
    }

    /// The process groups of the configuration that is being read.
    pub fn groups(&self) -> Result<&'c mut Groups, String> {
        let pool = self.command.pool();
        self.main_globals()
            .map(|globals| globals.groups_or_new(pool))
    }

    /// Has httpd's own processes load a script when they start.
    pub fn import_embedded(&self, script: Import) -> Result<(), String> {
        let imports = &mut self.main_globals()?.imports;
        let same = |other: &Import| {
            other.path.bytes() == script.path.bytes()
                && other.application_group.bytes() == script.application_group.bytes()
        };
        if !imports.items().iter().any(same) {
            imports.push(script);
        }
        Ok(())
    }

    /// The main interpreter is kept for the application group `""` where `name` is that, or may
    /// turn out to be.
    pub fn note_application_group(&self, name: &PoolStr) -> Result<(), String> {
        if expand::may_be_global(name.bytes()) {
            self.server()?.names_main_group = true;
        }
        Ok(())
    }

    /// Adds a remark about the configuration, which is said when all of it has been read. Not for
    /// what stands in `.htaccess`.
    pub fn remark(&self, remark: Remark) -> Result<(), String> {
        remarks::add(&mut self.main_globals()?.remarks, remark);
        Ok(())
    }

    /// Adds a warning about `subject`, with the place of the directive.
    pub fn warn(&self, subject: &'static str, code: Code, text: &str) -> Result<(), String> {
        let line = format!("{code}{text} ({})", self.command.place());
        self.remark(Remark {
            subject,
            kind: Kind::Warning,
            text: self.command.pool().copy(line.as_bytes()),
        })
    }

    /// A path, relative to `ServerRoot`.
    pub fn absolute(&self, path: PoolStr) -> PoolStr {
        self.command.absolute(path)
    }

    /// Completes "<directive> ...".
    pub fn accept<T>(&self, value: Result<T, values::Refusal>) -> Result<T, String> {
        value.map_err(|refusal| format!("{} {refusal}", self.name()))
    }
}

/// What httpd calls for every directive. Gives null, or a message that ends start-up.
pub(super) unsafe extern "C" fn take(
    parms: *mut cmd_parms,
    directory: *mut c_void,
    argument: *const c_char,
) -> *const c_char {
    let failed = c"rwsgi: a bug was caught while reading the configuration (RWSGI0001)";
    guard(
        Place::Server(core::ptr::null_mut()),
        failed.as_ptr(),
        || {
            // SAFETY: httpd calls with what belongs to a row of `COMMANDS`: its `cmd_data`, the
            // settings of the current section (or null), and the arguments as a C string.
            let (pool, directive, result) = unsafe {
                let command = Command::new(&*parms);
                let directive = &*(*parms).info.cast::<Directive>();
                let directory = directory.cast::<Settings>().as_mut();
                let argument = CStr::from_ptr(argument);
                let pool = command.pool();
                (
                    pool,
                    directive,
                    apply(command, directive, directory, argument),
                )
            };
            // SAFETY: no reference to the structure is left.
            let result = result.and_then(|()| unsafe {
                match directive.arguments {
                    Arguments::Section(_, close) => read_section(parms, directive, close),
                    _ => Ok(()),
                }
            });
            match result {
                Ok(()) => core::ptr::null(),
                Err(message) => pool.copy(message.as_bytes()).as_ptr().cast_const(),
            }
        },
    )
}

/// Has httpd read the directives of a section whose arguments have been taken, then ends it.
///
/// # Safety
/// `parms` is what httpd has called [`take`] with, and nobody else has a reference to it.
unsafe fn read_section(
    parms: *mut cmd_parms,
    directive: &'static Directive,
    close: fn(&mut Target<'_>) -> Result<(), String>,
) -> Result<(), String> {
    // SAFETY: by contract; httpd's own tree of directives. Its message is a string in its pool.
    let message = unsafe {
        let first = (*(*parms).directive).first_child;
        let section = (*(*parms).server).lookup_defaults;
        text::optional(sys::ap_walk_config(first, parms, section))
            .map(|message| String::from_utf8_lossy(message).into_owned())
    };
    let mut target = Target {
        // SAFETY: httpd has come back, so that the structure can be borrowed again.
        command: unsafe { Command::new(&*parms) },
        directive,
        directory: None,
    };
    let closed = close(&mut target);
    match message {
        Some(message) => Err(message),
        None => closed,
    }
}

fn apply(
    command: Command<'_>,
    directive: &'static Directive,
    directory: Option<&mut Settings>,
    argument: &CStr,
) -> Result<(), String> {
    if directive.context == Context::Global {
        command.check_context(sys::GLOBAL_ONLY)?;
    }
    let pool = command.pool();
    let mut target = Target {
        command,
        directive,
        directory,
    };
    if mpm::is_config_test() {
        note(&target, argument)?;
    }
    match directive.arguments {
        Arguments::One(take) => {
            // SAFETY: httpd has put the word into the pool of the configuration.
            let word = unsafe {
                let bytes = text::bytes(argument.as_ptr());
                PoolStr::from_raw(argument.as_ptr().cast_mut(), bytes.len())
            };
            take(&mut target, word)
        }
        Arguments::Raw(take) | Arguments::Section(take, _) => {
            // httpd gives no promise how long the rest of the line lives.
            let line = pool.copy(argument.to_bytes());
            let words = target.command.words(line.as_cstr());
            take(&mut target, words)
        }
    }
}

/// Notes what the directive means that it does not mean in mod_wsgi.
fn note(target: &Target<'_>, argument: &CStr) -> Result<(), String> {
    for (subject, line) in notes::of(target.name(), &argument.to_string_lossy()) {
        let line = format!("{line} ({})", target.command.place());
        target.remark(Remark {
            subject,
            kind: Kind::Note,
            text: target.command.pool().copy(line.as_bytes()),
        })?;
    }
    Ok(())
}
