//! The one table of directives: name, contexts, help, and the function that takes the arguments.

use super::directives::{Arguments, Context, Directive, Target, take};
use super::remarks::{Kind, Remark};
use super::{
    asgi, handler_script, interpreters, mapping, proxies, removed, scripts, telemetry, values,
};
use crate::httpd::apache::PoolStr;
use crate::httpd::daemon;
use crate::httpd::sys::{self, cmd_func, command_rec};

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

/// The same for what may also stand in `<WSGIInterpreterOptions>`.
macro_rules! scoped {
    ($field:ident, $parse:expr) => {
        Arguments::One(|target, word| {
            let value = target.accept($parse(word.bytes()))?;
            let globals = target.server()?.globals_mut();
            globals.interpreters.values_mut().$field = Some(value);
            Ok(())
        })
    };
    ($field:ident) => {
        Arguments::One(|target, word| {
            let globals = target.server()?.globals_mut();
            globals.interpreters.values_mut().$field = Some(word);
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
        c"URL-PATH FILE-OR-DIRECTORY [process-group=NAME] [application-group=NAME] [callable-object=NAME] [pass-authorization=On|Off] [interface=wsgi|asgi|auto]"
        => Arguments::Raw(mapping::script_alias);
    c"WSGIScriptAliasMatch" Server
        c"REGEX FILE-OR-DIRECTORY [process-group=NAME] [application-group=NAME] [callable-object=NAME] [pass-authorization=On|Off] [interface=wsgi|asgi|auto]"
        => Arguments::Raw(mapping::script_alias_match);
    c"ASGIScriptAlias" Server
        c"URL-PATH FILE-OR-DIRECTORY [process-group=NAME] [application-group=NAME] [callable-object=NAME] [pass-authorization=On|Off]"
        => Arguments::Raw(mapping::script_alias);
    c"ASGIScriptAliasMatch" Server
        c"REGEX FILE-OR-DIRECTORY [process-group=NAME] [application-group=NAME] [callable-object=NAME] [pass-authorization=On|Off]"
        => Arguments::Raw(mapping::script_alias_match);
    c"ASGILifespan" Directory
        c"Auto, On or Off: whether ASGI applications are told of their start and end"
        => setting!(asgi_lifespan, asgi::lifespan);
    c"ASGIWebSocket" Directory
        c"On or Off: whether WebSocket handshakes reach ASGI applications"
        => setting!(asgi_websocket, values::on_off);
    c"ASGIWebSocketCompression" Directory
        c"On or Off: whether WebSocket messages may be compressed"
        => setting!(asgi_websocket_compression, values::on_off);
    c"ASGIWebSocketMaxMessage" Directory
        c"BYTES: how large a WebSocket message of a client may be"
        => setting!(asgi_websocket_max_message, asgi::max_message);
    c"ASGIWebSocketQueue" Directory
        c"how many WebSocket messages may wait for the application"
        => setting!(asgi_websocket_queue, asgi::queue);
    c"ASGIWebSocketPing" Directory
        c"SECONDS: how often WebSocket clients are asked whether they are there, 0 for never"
        => setting!(asgi_websocket_ping, asgi::ping);
    c"ASGILoop" Global
        c"asyncio or uvloop: the event loop of ASGI applications in httpd's own processes"
        => Arguments::One(mapping::event_loop);
    c"WSGIHandlerScript" Directory
        c"HANDLER-NAME SCRIPT [process-group=NAME] [application-group=NAME] [pass-authorization=On|Off]"
        => Arguments::Raw(handler_script::handler_script);
    c"WSGIDispatchScript" Directory
        c"SCRIPT [application-group=NAME]: the script that says which groups serve a request"
        => Arguments::Raw(scripts::dispatch_script);
    c"WSGIPassApacheRequest" Directory
        c"On or Off: whether applications in httpd's own processes get httpd's request structure"
        => setting!(pass_apache_request, values::on_off);
    c"WSGIProcessGroup" Directory
        c"the process group that runs the scripts, %{GLOBAL} for httpd's own processes"
        => Arguments::One(mapping::process_group);
    c"WSGIRestrictProcess" Directory
        c"the process groups that may be used, %{GLOBAL} for httpd's own processes"
        => Arguments::Raw(mapping::restrict_process);
    c"WSGIIgnoreActivity" FileInfo
        c"On or Off: whether requests do not count as activity for inactivity-timeout"
        => setting!(ignore_activity, values::on_off);
    c"WSGIApplicationGroup" Directory
        c"the application group (Python interpreter) that runs the scripts"
        => Arguments::One(mapping::application_group);
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
    c"WSGILocalRedirect" FileInfo
        c"On or Off: whether status 200 with a Location that is a path is answered with that path"
        => setting!(local_redirect, values::on_off);
    c"WSGITrustedProxyHeaders" FileInfo
        c"the headers by which trusted proxies describe the client's request"
        => Arguments::Raw(proxies::trusted_proxy_headers);
    c"WSGITrustedProxies" FileInfo
        c"addresses and subnets of the proxies whose headers are trusted; without it, any peer's are"
        => Arguments::Raw(proxies::trusted_proxies);
    c"WSGIAccessScript" AuthConfig
        c"SCRIPT [application-group=NAME]: the script whose allow_access() may refuse requests"
        => Arguments::Raw(scripts::access_script);
    c"WSGIAuthUserScript" AuthConfig
        c"SCRIPT [application-group=NAME]: the script that knows the users of the provider 'wsgi'"
        => Arguments::Raw(scripts::auth_user_script);
    c"WSGIAuthGroupScript" AuthConfig
        c"SCRIPT [application-group=NAME]: the script that knows the groups of 'Require wsgi-group'"
        => Arguments::Raw(scripts::auth_group_script);
    c"WSGIGroupAuthoritative" AuthConfig
        c"On or Off; it has no effect"
        => Arguments::One(scripts::group_authoritative);
    c"WSGIHtaccessScripts" Global
        c"On or Off: whether .htaccess files may name access, user and group scripts"
        => Arguments::One(scripts::htaccess_scripts);
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
        => scoped!(python_path);
    c"WSGIPythonEggs" Global
        c"the directory in which packages keep files that they extract"
        => global!(python_eggs);
    c"WSGIVerboseDebugging" Global
        c"On or Off; it has no effect"
        => Arguments::One(verbose_debugging);
    c"WSGIPythonOptimize" Global
        c"the level of optimisation: 0, 1 or 2 (what is above counts as 2)"
        => global!(optimize, |value| values::number(value, i32::MAX as u32).map(|level| level.min(2)));
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
        => scoped!(restrict_stdin, values::on_off);
    c"WSGIRestrictStdout" Global
        c"On or Off: whether sys.stdout is out of bounds"
        => scoped!(restrict_stdout, values::on_off);
    c"WSGIRestrictSignal" Global
        c"On or Off: whether applications may not register signal handlers"
        => scoped!(restrict_signal, values::on_off);
    c"<WSGIInterpreterOptions" Global
        c"[process-group=NAME] [application-group=NAME]: what stands within is for the interpreters selected"
        => Arguments::Section(interpreters::open, interpreters::close);
    c"WSGIPerInterpreterGIL" Global
        c"On or Off: whether each sub-interpreter has a global lock of its own (Python 3.12)"
        => scoped!(per_interpreter_gil, values::on_off);
    c"WSGIFreeThreading" Global
        c"On or Off: whether a Python built for that runs without the global lock"
        => scoped!(free_threading, values::on_off);
    c"WSGISwitchInterval" Global
        c"SECONDS: after which time a thread is asked to give up the global lock"
        => scoped!(switch_interval, values::switch_interval);
    c"WSGIDestroyInterpreter" Global
        c"On or Off: whether exit handlers run when a process ends"
        => Arguments::One(|target, word| {
            let value = target.accept(values::on_off(word.bytes()))?;
            target.server()?.globals_mut().interpreters.destroy = Some(value);
            Ok(())
        });
    c"WSGICaseSensitivity" Global
        c"On or Off: whether the file system tells upper from lower case"
        => global!(case_sensitivity, values::on_off);
    c"WSGIRequestPermits" Global
        c"how many new requests may wait for Python's global lock at once, 0 for any number"
        => global!(request_permits, |value| values::number(value, 1_000_000));
    c"WSGIServerMetrics" Global
        c"On or Off: whether applications in httpd's own processes may see its scoreboard"
        => Arguments::One(telemetry::server_metrics);
    c"WSGITelemetryService" Global
        c"unix:/PATH [interval=SECONDS]: the socket that telemetry is sent to"
        => Arguments::Raw(telemetry::service);
    c"WSGITelemetryOptions" Global
        c"[+|-]FLAG ..., None or All; the flag is CaptureUserAgent"
        => Arguments::Raw(telemetry::options);
    c"WSGISlowRequests" Global
        c"seconds from which on telemetry tells of a single request"
        => Arguments::One(telemetry::slow_requests);
}

fn python_warnings(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    target.server()?.globals_mut().warnings.push(word);
    Ok(())
}

/// With those that mod_wsgi has removed.
const ALL: usize = COUNT + removed::COUNT;

/// `WSGIVerboseDebugging`: as in mod_wsgi 6, without effect.
fn verbose_debugging(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    target.accept(values::on_off(word.bytes()))?;
    let line = "WSGIVerboseDebugging has no effect; LogLevel rwsgi:debug has";
    target.remark(Remark {
        subject: "WSGIVerboseDebugging",
        kind: Kind::Info,
        text: target.command.pool().copy(line.as_bytes()),
    })
}

/// The table in httpd's form, ended by a row of nulls.
pub struct CommandTable([command_rec; ALL + 1]);

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
    let mut table = [end; ALL + 1];
    let mut index = 0;
    while index < ALL {
        let directive = if index < COUNT {
            &DIRECTIVES[index]
        } else {
            &removed::DIRECTIVES[index - COUNT]
        };
        let (func, args_how) = match directive.arguments {
            Arguments::One(_) => (cmd_func { take1: Some(take) }, sys::TAKE1),
            Arguments::Raw(_) | Arguments::Section(..) => (
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

#[cfg(test)]
mod tests {
    use super::super::interpreters::PERMITTED;
    use super::*;

    #[test]
    fn every_directive_is_documented() {
        let docs = include_str!("../../../docs/directives.md");
        for directive in &DIRECTIVES {
            // A section's name has its bracket.
            let name = directive.name.to_str().unwrap().trim_start_matches('<');
            let heading = format!("### {name}\n");
            let start = docs.find(&heading);
            let section = &docs[start.unwrap_or_else(|| panic!("{name} is not documented"))..];
            let section = &section[..section[4..].find("\n### ").map_or(section.len(), |e| e + 4)];
            for part in ["Syntax:", "Default:", "Context:", "```apache"] {
                assert!(section.contains(part), "{name} has no {part}");
            }
            let context = match directive.context {
                Context::Global if PERMITTED.contains(&name) => {
                    "Context: main server, `<WSGIInterpreterOptions>`\n"
                }
                Context::Global => "Context: main server\n",
                Context::Server => "Context: main server, virtual host\n",
                Context::Directory => "Context: main server, virtual host, directory\n",
                Context::FileInfo => "Context: main server, virtual host, directory, .htaccess",
                Context::AuthConfig => "Context: directory, .htaccess",
            };
            assert!(section.contains(context), "{name}: {context}");
        }
        let headings = ["\n### WSGI", "\n### ASGI"].map(|heading| docs.matches(heading).count());
        assert_eq!(headings.iter().sum::<usize>(), DIRECTIVES.len());
    }

    #[test]
    fn names_are_unique() {
        let all: Vec<&Directive> = DIRECTIVES.iter().chain(&removed::DIRECTIVES).collect();
        for (index, directive) in all.iter().enumerate() {
            let same = |other: &&Directive| {
                let name = other.name.to_bytes();
                name.eq_ignore_ascii_case(directive.name.to_bytes())
            };
            assert!(!all[..index].iter().any(same), "{:?}", directive.name);
        }
    }
}
