//! The one table of directives: name, arguments, contexts, help, and the function that takes them.

use core::ffi::{CStr, c_char, c_int, c_void};

use super::server::Import;
use super::{Alias, Globals, ServerConfig, Settings, alias::Pattern, expand, values};
use crate::httpd::apache::command::{Command, Words};
use crate::httpd::apache::{Array, PoolStr, Server, text};
use crate::httpd::daemon::{self, Groups};
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{self, cmd_func, cmd_parms, command_rec};

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
}

impl Context {
    const fn overrides(self) -> c_int {
        match self {
            Context::Global | Context::Server => sys::RSRC_CONF,
            Context::Directory => sys::RSRC_CONF | sys::ACCESS_CONF,
            Context::FileInfo => sys::OR_FILEINFO,
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
    command: Command<'c>,
    directive: &'static Directive,
    directory: Option<&'c mut Settings>,
}

impl<'c> Target<'c> {
    /// The name of the directive.
    pub fn name(&self) -> &'static str {
        self.directive.name.to_str().unwrap_or("the directive")
    }

    fn server(&self) -> Result<&'c mut ServerConfig, String> {
        ServerConfig::of_mut(self.command.server())
            .ok_or_else(|| format!("{} cannot be used here", self.name()))
    }

    /// The directory's settings within a directory section, else the server's.
    fn settings(&mut self) -> Result<&mut Settings, String> {
        if self.command.is_in_directory() && self.directory.is_some() {
            let directory = self.directory.as_deref_mut();
            return directory.ok_or_else(String::new);
        }
        Ok(&mut self.server()?.settings)
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
    fn main_globals(&self) -> Result<&'c mut Globals, String> {
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

    /// A path, relative to `ServerRoot`.
    pub fn absolute(&self, path: PoolStr) -> PoolStr {
        self.command.absolute(path)
    }

    /// Completes "<directive> ...".
    fn accept<T>(&self, value: Result<T, values::Refusal>) -> Result<T, String> {
        value.map_err(|refusal| format!("{} {refusal}", self.name()))
    }
}

/// A directive with one word that sets a field of the server's or directory's settings.
macro_rules! setting {
    ($field:ident, $parse:path) => {
        Arguments::One(|target, word| {
            let value = target.accept($parse(word.bytes()))?;
            target.settings()?.$field = Some(value);
            Ok(())
        })
    };
    ($field:ident) => {
        Arguments::One(|target, word| {
            target.settings()?.$field = Some(word);
            Ok(())
        })
    };
}

/// A directive with one word that sets a field of the global values.
macro_rules! global {
    ($field:ident, $parse:expr) => {
        Arguments::One(|target, word| {
            let value = target.accept($parse(word.bytes()))?;
            target.server()?.globals_mut().$field = Some(value);
            Ok(())
        })
    };
    ($field:ident) => {
        Arguments::One(|target, word| {
            target.server()?.globals_mut().$field = Some(word);
            Ok(())
        })
    };
}

macro_rules! directives {
    ($($name:literal $context:ident $help:literal => $arguments:expr;)*) => {
        /// Every directive of the module.
        pub static DIRECTIVES: [Directive; COUNT] = [$(
            Directive {
                name: $name,
                context: Context::$context,
                help: $help,
                arguments: $arguments,
            },
        )*];

        const COUNT: usize = [$($name),*].len();
    };
}

directives! {
    c"WSGIScriptAlias" Server
        c"URL-PATH FILE-OR-DIRECTORY [process-group=NAME] [application-group=NAME] [callable-object=NAME] [pass-authorization=On|Off]"
        => Arguments::Raw(script_alias);
    c"WSGIScriptAliasMatch" Server
        c"REGEX FILE-OR-DIRECTORY [process-group=NAME] [application-group=NAME] [callable-object=NAME] [pass-authorization=On|Off]"
        => Arguments::Raw(script_alias_match);
    c"WSGIProcessGroup" Directory
        c"the process group that runs the scripts, %{GLOBAL} for httpd's own processes"
        => Arguments::One(process_group);
    c"WSGIRestrictProcess" Directory
        c"the process groups that may be used, %{GLOBAL} for httpd's own processes"
        => Arguments::Raw(restrict_process);
    c"WSGIIgnoreActivity" FileInfo
        c"On or Off: whether requests do not count as activity for inactivity-timeout"
        => setting!(ignore_activity, values::on_off);
    c"WSGIApplicationGroup" Directory
        c"the application group (Python interpreter) that runs the scripts"
        => Arguments::One(application_group);
    c"WSGICallableObject" FileInfo
        c"the name of the WSGI application within the script"
        => setting!(callable_object);
    c"WSGIPassAuthorization" FileInfo
        c"On or Off: whether the application sees the Authorization header"
        => setting!(pass_authorization, values::on_off);
    c"WSGIScriptReloading" FileInfo
        c"On or Off: whether a changed script file is loaded anew"
        => setting!(script_reloading, values::on_off);
    c"WSGIReloadFailure" FileInfo
        c"Keep or Fail: what happens when a changed script file cannot be loaded"
        => setting!(keep_on_failure, values::reload_failure);
    c"WSGIChunkedRequest" FileInfo
        c"On or Off: whether request bodies of unknown length are accepted"
        => setting!(chunked_request, values::on_off);
    c"WSGIMapHEADToGET" FileInfo
        c"Off, On or Auto: whether the application sees GET for a HEAD request"
        => setting!(map_head_to_get, values::map_head);
    c"WSGIErrorOverride" FileInfo
        c"On or Off: whether httpd's own error pages replace those of the application"
        => setting!(error_override, values::on_off);
    c"WSGIEnableSendfile" FileInfo
        c"On or Off: whether the kernel sends files of wsgi.file_wrapper"
        => setting!(enable_sendfile, values::on_off);
    c"WSGIDaemonProcess" Server
        c"NAME [option=value ...]: declares a process group"
        => Arguments::Raw(daemon::directives::daemon_process);
    c"WSGIImportScript" Server
        c"SCRIPT process-group=NAME application-group=NAME: loads a script when a process starts"
        => Arguments::Raw(daemon::directives::import_script);
    c"WSGISocketPrefix" Global
        c"what the paths of the sockets of process groups begin with"
        => Arguments::One(daemon::directives::socket_prefix);
    c"WSGISocketRotation" Global
        c"On or Off: whether sockets get new names at a restart"
        => Arguments::One(daemon::directives::socket_rotation);
    c"WSGIAcceptMutex" Global
        c"a locking mechanism; it has no effect"
        => Arguments::One(daemon::directives::accept_mutex);
    c"WSGIRestrictEmbedded" Global
        c"On or Off: whether applications are kept out of httpd's own processes"
        => global!(restrict_embedded, values::on_off);
    c"WSGIPythonHome" Global
        c"the virtual environment or the prefix of the Python to use"
        => global!(python_home);
    c"WSGIPythonPath" Global
        c"directories to search for modules, separated by colons"
        => global!(python_path);
    c"WSGIPythonOptimize" Global
        c"the level of optimisation, 0 to 2"
        => global!(optimize, |value| values::number(value, 2));
    c"WSGIPythonWarnings" Global
        c"a warning filter, as for python -W"
        => Arguments::One(python_warnings);
    c"WSGIPythonHashSeed" Global
        c"random, or a number from 0 to 4294967295"
        => global!(hash_seed, values::hash_seed);
    c"WSGIDontWriteBytecode" Global
        c"On or Off: whether Python writes no .pyc files"
        => global!(dont_write_bytecode, values::on_off);
    c"WSGIRestrictStdin" Global
        c"On or Off: whether sys.stdin is out of bounds"
        => global!(restrict_stdin, values::on_off);
    c"WSGIRestrictStdout" Global
        c"On or Off: whether sys.stdout is out of bounds"
        => global!(restrict_stdout, values::on_off);
    c"WSGIRestrictSignal" Global
        c"On or Off: whether applications may not register signal handlers"
        => global!(restrict_signal, values::on_off);
    c"WSGICaseSensitivity" Global
        c"On or Off: whether the file system tells upper from lower case"
        => global!(case_sensitivity, values::on_off);
    c"WSGIRequestPermits" Global
        c"how many new requests may wait for Python's global lock at once, 0 for any number"
        => global!(request_permits, |value| values::number(value, 1_000_000));
}

fn application_group(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    target.note_application_group(&word)?;
    let name = target.group(word);
    target.settings()?.application_group = Some(name);
    Ok(())
}

fn process_group(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    let name = target.group(word);
    target.settings()?.process_group = Some(name);
    Ok(())
}

fn restrict_process(target: &mut Target<'_>, mut words: Words<'_>) -> Result<(), String> {
    let mut allowed = Array::new(target.command.pool());
    while let Some(word) = words.next_word() {
        allowed.push(target.group(word));
    }
    if allowed.items().is_empty() {
        return Err(format!(
            "{} needs at least one name; %{{GLOBAL}} stands for httpd's own processes",
            target.name()
        ));
    }
    target.settings()?.restrict_process = Some(allowed);
    Ok(())
}

fn python_warnings(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    target.server()?.globals_mut().warnings.push(word);
    Ok(())
}

fn script_alias(target: &mut Target<'_>, words: Words<'_>) -> Result<(), String> {
    add_alias(target, words, |target, location| {
        if location.bytes().first() != Some(&b'/') {
            return Err(format!(
                "{}: the URL path must begin with '/'; it is '{}'",
                target.name(),
                location.text()
            ));
        }
        Ok(Pattern::Prefix(location))
    })
}

fn script_alias_match(target: &mut Target<'_>, words: Words<'_>) -> Result<(), String> {
    add_alias(target, words, |target, pattern| {
        match target.command.regex(&pattern) {
            Some(regex) => Ok(Pattern::Regex(regex)),
            None => Err(format!(
                "{}: the regular expression '{}' could not be compiled",
                target.name(),
                pattern.text()
            )),
        }
    })
}

fn add_alias(
    target: &mut Target<'_>,
    mut words: Words<'_>,
    pattern: impl FnOnce(&Target<'_>, PoolStr) -> Result<Pattern, String>,
) -> Result<(), String> {
    let (Some(location), Some(file)) = (words.next_word(), words.next_word()) else {
        return Err(format!(
            "{} requires at least two arguments: {}",
            target.name(),
            target.directive.help.to_string_lossy()
        ));
    };
    if location.bytes().is_empty() || file.bytes().is_empty() {
        return Err(format!("{}: an argument is empty", target.name()));
    }
    let pattern = pattern(target, location)?;
    let mut alias = Alias {
        // What a regular expression fills in decides itself whether it is absolute.
        target: match pattern {
            Pattern::Prefix(_) => target.command.absolute(file),
            Pattern::Regex(_) => file,
        },
        pattern,
        process_group: None,
        application_group: None,
        callable_object: None,
        pass_authorization: None,
    };
    while let Some(option) = words.next_option() {
        set_option(target, &mut alias, option)?;
    }
    daemon::directives::import_alias(target, &alias)?;
    if let Some(group) = &alias.application_group {
        target.note_application_group(group)?;
    }
    target.server()?.aliases.push(alias);
    Ok(())
}

fn set_option(
    target: &Target<'_>,
    alias: &mut Alias,
    option: Result<(String, PoolStr), String>,
) -> Result<(), String> {
    const ACCEPTED: &str =
        "process-group=, application-group=, callable-object=, pass-authorization=";
    let directive = target.name();
    let (name, value) = option.map_err(|word| {
        format!(
            "Invalid option to {directive} definition: '{word}' is not of the form name=value; \
             accepted are {ACCEPTED}"
        )
    })?;
    let field = match name.as_str() {
        "process-group" => &mut alias.process_group,
        "application-group" => &mut alias.application_group,
        "callable-object" => &mut alias.callable_object,
        "pass-authorization" => {
            let value = values::on_off(value.bytes()).map_err(|refusal| {
                format!("Invalid value for {directive} option: pass-authorization {refusal}")
            })?;
            alias.pass_authorization = Some(value);
            return Ok(());
        }
        _ => {
            return Err(format!(
                "Invalid name of {directive} option: '{name}'; accepted are {ACCEPTED}"
            ));
        }
    };
    if value.bytes().is_empty() {
        return Err(format!(
            "Invalid value for {directive} option: {name} must not be empty (for the main \
             interpreter or httpd's own processes write %{{GLOBAL}})"
        ));
    }
    *field = Some(if name == "callable-object" {
        value
    } else {
        target.group(value)
    });
    Ok(())
}

/// The table in httpd's form, ended by a row of nulls.
pub struct CommandTable([command_rec; COUNT + 1]);

// SAFETY: constants; httpd only reads them.
unsafe impl Sync for CommandTable {}

impl CommandTable {
    /// What the module record points to.
    pub const fn as_ptr(&self) -> *const command_rec {
        self.0.as_ptr()
    }
}

/// See [`CommandTable`].
pub static COMMANDS: CommandTable = CommandTable({
    let end = command_rec {
        name: core::ptr::null(),
        func: cmd_func { no_args: None },
        cmd_data: core::ptr::null_mut(),
        req_override: 0,
        args_how: sys::RAW_ARGS,
        errmsg: core::ptr::null(),
    };
    let mut table = [end; COUNT + 1];
    let mut index = 0;
    while index < COUNT {
        let directive = &DIRECTIVES[index];
        let (func, args_how) = match directive.arguments {
            Arguments::One(_) => (cmd_func { take1: Some(take) }, sys::TAKE1),
            Arguments::Raw(_) => (
                cmd_func {
                    raw_args: Some(take),
                },
                sys::RAW_ARGS,
            ),
        };
        table[index] = command_rec {
            name: directive.name.as_ptr(),
            func,
            cmd_data: core::ptr::from_ref(directive).cast_mut().cast(),
            req_override: directive.context.overrides(),
            args_how,
            errmsg: directive.help.as_ptr(),
        };
        index += 1;
    }
    table
});

/// What httpd calls for every directive. Gives null, or a message that ends start-up.
unsafe extern "C" fn take(
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
            let (command, directive, directory, argument) = unsafe {
                (
                    Command::new(&*parms),
                    &*(*parms).info.cast::<Directive>(),
                    directory.cast::<Settings>().as_mut(),
                    CStr::from_ptr(argument),
                )
            };
            let pool = command.pool();
            match apply(command, directive, directory, argument) {
                Ok(()) => core::ptr::null(),
                Err(message) => pool.copy(message.as_bytes()).as_ptr().cast_const(),
            }
        },
    )
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
    match directive.arguments {
        Arguments::One(take) => {
            // SAFETY: httpd has put the word into the pool of the configuration.
            let word = unsafe {
                let bytes = text::bytes(argument.as_ptr());
                PoolStr::from_raw(argument.as_ptr().cast_mut(), bytes.len())
            };
            let mut target = Target {
                command,
                directive,
                directory,
            };
            take(&mut target, word)
        }
        Arguments::Raw(take) => {
            // httpd gives no promise how long the rest of the line lives.
            let line = pool.copy(argument.to_bytes());
            let words = command.words(line.as_cstr());
            let mut target = Target {
                command,
                directive,
                directory,
            };
            take(&mut target, words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_is_documented() {
        let docs = include_str!("../../../docs/directives.md");
        for directive in &DIRECTIVES {
            let name = directive.name.to_str().unwrap();
            let heading = format!("### {name}\n");
            let start = docs.find(&heading);
            let section = &docs[start.unwrap_or_else(|| panic!("{name} is not documented"))..];
            let section = &section[..section[4..].find("\n### ").map_or(section.len(), |e| e + 4)];
            for part in ["Syntax:", "Default:", "Context:", "```apache"] {
                assert!(section.contains(part), "{name} has no {part}");
            }
            let context = match directive.context {
                Context::Global => "Context: main server\n",
                Context::Server => "Context: main server, virtual host\n",
                Context::Directory => "Context: main server, virtual host, directory\n",
                Context::FileInfo => "Context: main server, virtual host, directory, .htaccess",
            };
            assert!(section.contains(context), "{name}: {context}");
        }
        assert_eq!(docs.matches("\n### WSGI").count(), DIRECTIVES.len());
    }

    #[test]
    fn names_are_unique() {
        for (index, directive) in DIRECTIVES.iter().enumerate() {
            let same = |other: &Directive| {
                let name = other.name.to_bytes();
                name.eq_ignore_ascii_case(directive.name.to_bytes())
            };
            assert!(
                !DIRECTIVES[..index].iter().any(same),
                "{:?}",
                directive.name
            );
        }
    }
}
