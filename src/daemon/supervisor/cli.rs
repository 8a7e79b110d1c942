//! The command line of `rwsgi-daemon`.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Seek as _};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::log::Log;
use super::reactor::Reactor;
use super::{check, environment, sys};
use crate::daemon::group::GroupConfig;
use crate::exchange::Level;
use crate::messages;

const HELP: &str = "\
rwsgi-daemon: starts, watches and replaces the worker processes of one process group.

usage: rwsgi-daemon FILE              run the group that FILE describes
       rwsgi-daemon --check FILE      say what is wrong with FILE, and end
       rwsgi-daemon --config-fd N     as FILE, from descriptor N (httpd starts it like this)
       rwsgi-daemon --keys            list the keys of such a file
       rwsgi-daemon --help
       rwsgi-daemon --version

FILE has lines KEY=VALUE; these are needed: name, python (the interpreter's path),
gateway-directory (build/rwsgi in the source tree), and one socket=PATH for each of processes=.

signals: TERM, INT  answer running requests, end; a second time: at once
         USR1       replace all workers, one after the other
exit codes: 0 ended by a signal, 64 wrong usage, 66 FILE cannot be read,
            71 the system refused something, 78 the configuration is wrong
";

const EX_USAGE: i32 = 64;
const EX_NOINPUT: i32 = 66;
const EX_OSERR: i32 = 71;
const EX_CONFIG: i32 = 78;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Version,
    Keys,
    Check(PathBuf),
    Run(Source),
}

/// Where the configuration is.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Descriptor(RawFd),
}

fn parse(arguments: &[OsString]) -> Result<Command, String> {
    let words: Vec<&[u8]> = arguments.iter().map(|word| word.as_bytes()).collect();
    let file = |word: &[u8]| PathBuf::from(OsStr::from_bytes(word));
    match words[..] {
        [b"--help" | b"-h"] => Ok(Command::Help),
        [b"--version"] => Ok(Command::Version),
        [b"--keys"] => Ok(Command::Keys),
        [b"--check", name] => Ok(Command::Check(file(name))),
        [b"--config-fd", number] => std::str::from_utf8(number)
            .ok()
            .and_then(|number| number.parse().ok())
            .filter(|number: &RawFd| *number > 2)
            .map(|number| Command::Run(Source::Descriptor(number)))
            .ok_or_else(|| "--config-fd needs the number of an open descriptor".to_owned()),
        [] => Err("a configuration file must be named".to_owned()),
        [b"--check" | b"--config-fd"] => Err("something is missing after the option".to_owned()),
        [word, ..] if word.starts_with(b"-") => {
            let word = String::from_utf8_lossy(word);
            Err(format!(
                "'{word}' is no option, or there is too much after it"
            ))
        }
        [name] => Ok(Command::Run(Source::File(file(name)))),
        _ => Err("only one file can be named".to_owned()),
    }
}

/// Runs the program with these arguments (without its name) and returns its exit code.
pub fn main(arguments: &[OsString]) -> i32 {
    match parse(arguments) {
        Ok(Command::Help) => print(HELP),
        Ok(Command::Version) => {
            let [major, minor, patch] = crate::VERSION;
            print(&format!("rwsgi-daemon {major}.{minor}.{patch}\n"))
        }
        Ok(Command::Keys) => print(&(GroupConfig::KEYS.join("\n") + "\n")),
        Ok(Command::Check(file)) => match read(&Source::File(file.clone())) {
            Ok(config) => {
                // A worker starts without such a line, so it is no reason to refuse the file.
                let environment = environment::of_worker(std::iter::empty(), &config);
                for text in environment.map(|found| found.1).unwrap_or_default() {
                    eprintln!("{}: warning: env-file: {text}", file.display());
                }
                print(&format!("{}: nothing is wrong\n", file.display()))
            }
            Err(refusal) => {
                for text in &refusal.texts {
                    eprintln!("{text}");
                }
                refusal.exit_code
            }
        },
        Ok(Command::Run(source)) => run(&source),
        Err(error) => {
            eprintln!("rwsgi-daemon: {error}; see rwsgi-daemon --help");
            EX_USAGE
        }
    }
}

/// Prints; a reader that does not want all of it is no error.
fn print(text: &str) -> i32 {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}

struct Refusal {
    texts: Vec<String>,
    exit_code: i32,
}

fn read(source: &Source) -> Result<GroupConfig, Refusal> {
    let (name, text) = match source {
        Source::File(file) => (file.display().to_string(), std::fs::read(file)),
        Source::Descriptor(number) => {
            let text = sys::inherit(*number).and_then(|fd| {
                let mut text = Vec::new();
                let mut file = std::fs::File::from(fd);
                // Whoever wrote it, or an earlier supervisor that read it, has left the offset at
                // the end. A pipe has none.
                let _ = file.rewind();
                file.read_to_end(&mut text)?;
                Ok(text)
            });
            (format!("descriptor {number}"), text)
        }
    };
    let text = text.map_err(|error| Refusal {
        texts: vec![format!("{name} cannot be read: {error}")],
        exit_code: EX_NOINPUT,
    })?;
    let refuse = |texts: Vec<String>| Refusal {
        texts: texts
            .into_iter()
            .map(|text| format!("{name}: {text}"))
            .collect(),
        exit_code: EX_CONFIG,
    };
    let config = GroupConfig::decode(&text).map_err(|error| refuse(vec![error]))?;
    let complaints = check::complaints(&config);
    if complaints.is_empty() {
        Ok(config)
    } else {
        Err(refuse(complaints))
    }
}

fn run(source: &Source) -> i32 {
    let pid = sys::getpid();
    let config = match read(source) {
        Ok(config) => config,
        Err(refusal) => {
            let log = Log::new(Level::Alert as u32, b"");
            for text in &refusal.texts {
                log.text(Level::Alert, pid, Some(messages::BAD_GROUP), text);
            }
            return refusal.exit_code;
        }
    };
    let log = Log::new(config.log_level, &config.name);
    match Reactor::new(config).and_then(Reactor::run) {
        Ok(()) => 0,
        Err(error) => {
            let code = Some(messages::SUPERVISOR_FAILED);
            log.text(Level::Alert, pid, code, &error);
            EX_OSERR
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Result<Command, String> {
        parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn command_lines() {
        assert_eq!(words(&["--help"]), Ok(Command::Help));
        assert_eq!(words(&["--check", "x"]), Ok(Command::Check("x".into())));
        assert_eq!(words(&["x"]), Ok(Command::Run(Source::File("x".into()))));
        assert_eq!(
            words(&["--config-fd", "3"]),
            Ok(Command::Run(Source::Descriptor(3)))
        );
        for bad in [
            &[][..],
            &["--check"],
            &["--config-fd", "x"],
            &["--config-fd", "2"],
            &["--what"],
            &["a", "b"],
            &["--help", "b"],
        ] {
            assert!(words(bad).is_err(), "{bad:?}");
        }
    }
}
