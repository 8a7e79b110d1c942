//! What is configured for single interpreters: rules, which of them hold for an application group,
//! and the text form of a rule in a process group's configuration.
//!
//! The rules of a process are in order: those that select less come before those that select more,
//! and among equals the order is that of the configuration. So the last one that says something of a
//! setting decides, and directories of `WSGIPythonPath` are added in this order.

#![forbid(unsafe_code)]

/// What `<WSGIInterpreterOptions>` says for the interpreters of a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// The application group that it is for; `None`: every one.
    pub application_group: Option<Vec<u8>>,
    /// `WSGIPerInterpreterGIL`.
    pub per_interpreter_gil: Option<bool>,
    /// `WSGISwitchInterval`, seconds.
    pub switch_interval: Option<f64>,
    /// `WSGIRestrictStdin`.
    pub restrict_stdin: Option<bool>,
    /// `WSGIRestrictStdout`.
    pub restrict_stdout: Option<bool>,
    /// `WSGIRestrictSignal`.
    pub restrict_signal: Option<bool>,
    /// `WSGIPythonPath`.
    pub python_path: Vec<Vec<u8>>,
}

/// What holds for one interpreter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// A global lock of its own.
    pub per_interpreter_gil: bool,
    /// `sys.setswitchinterval`, seconds.
    pub switch_interval: Option<f64>,
    /// The switch interval is meant for this application group alone.
    pub switch_interval_is_scoped: bool,
    /// `sys.stdin` raises.
    pub restrict_stdin: bool,
    /// `sys.stdout` raises.
    pub restrict_stdout: bool,
    /// `signal.signal` is ignored and logged.
    pub restrict_signal: bool,
    /// Directories for `site.addsitedir`, layer by layer: each layer goes to the front of what the
    /// ones before it gave.
    pub python_path: Vec<Vec<Vec<u8>>>,
}

impl Settings {
    /// `self`, which holds where no rule says otherwise, with the rules for an application group;
    /// `None` is a group that is not known yet.
    pub fn with(mut self, rules: &[Rule], group: Option<&[u8]>) -> Settings {
        for rule in rules {
            if rule.application_group.is_some() && rule.application_group.as_deref() != group {
                continue;
            }
            let set = |field: &mut bool, value: Option<bool>| *field = value.unwrap_or(*field);
            set(&mut self.per_interpreter_gil, rule.per_interpreter_gil);
            set(&mut self.restrict_stdin, rule.restrict_stdin);
            set(&mut self.restrict_stdout, rule.restrict_stdout);
            set(&mut self.restrict_signal, rule.restrict_signal);
            if rule.switch_interval.is_some() {
                self.switch_interval = rule.switch_interval;
                self.switch_interval_is_scoped = rule.application_group.is_some();
            }
            if !rule.python_path.is_empty() {
                self.python_path.push(rule.python_path.clone());
            }
        }
        // The main interpreter has the process's lock.
        self.per_interpreter_gil &= group.is_some_and(|group| !group.is_empty());
        self
    }
}

impl Rule {
    /// The text form: `name=value` fields with a space between; a backslash stands before a space
    /// or a backslash of a value. `python-path` is repeated.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut field = |name: &str, value: &[u8]| {
            if !out.is_empty() {
                out.push(b' ');
            }
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            for &byte in value {
                if matches!(byte, b' ' | b'\\') {
                    out.push(b'\\');
                }
                out.push(byte);
            }
        };
        if let Some(group) = &self.application_group {
            field("application-group", group);
        }
        for (name, value) in [
            ("per-interpreter-gil", self.per_interpreter_gil),
            ("restrict-stdin", self.restrict_stdin),
            ("restrict-stdout", self.restrict_stdout),
            ("restrict-signal", self.restrict_signal),
        ] {
            if let Some(value) = value {
                field(name, if value { b"on" } else { b"off" });
            }
        }
        if let Some(seconds) = self.switch_interval {
            field("switch-interval", seconds.to_string().as_bytes());
        }
        for directory in &self.python_path {
            field("python-path", directory);
        }
        out
    }

    /// From the text form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(text: &[u8]) -> Result<Rule, String> {
        let mut rule = Rule::default();
        for field in fields(text) {
            let shown = || String::from_utf8_lossy(&field).into_owned();
            let Some(at) = field.iter().position(|&byte| byte == b'=') else {
                return Err(format!("'{}' is not of the form name=value", shown()));
            };
            let value = &field[at + 1..];
            let switch = || match value {
                b"on" => Ok(Some(true)),
                b"off" => Ok(Some(false)),
                _ => Err(format!("'{}': the value must be on or off", shown())),
            };
            match &field[..at] {
                b"application-group" => rule.application_group = Some(value.to_vec()),
                b"per-interpreter-gil" => rule.per_interpreter_gil = switch()?,
                b"restrict-stdin" => rule.restrict_stdin = switch()?,
                b"restrict-stdout" => rule.restrict_stdout = switch()?,
                b"restrict-signal" => rule.restrict_signal = switch()?,
                b"switch-interval" => {
                    let seconds = String::from_utf8_lossy(value).parse::<f64>().ok();
                    let valid = seconds.filter(|value| *value > 0.0 && value.is_finite());
                    if valid.is_none() {
                        return Err(format!("'{}': the value must be more than 0", shown()));
                    }
                    rule.switch_interval = valid;
                }
                b"python-path" => rule.python_path.push(value.to_vec()),
                _ => return Err(format!("'{}': there is no such name", shown())),
            }
        }
        Ok(rule)
    }
}

/// The fields of a text, without the backslashes.
fn fields(text: &[u8]) -> Vec<Vec<u8>> {
    let mut fields: Vec<Vec<u8>> = vec![Vec::new()];
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        let byte = match byte {
            b' ' => {
                fields.push(Vec::new());
                continue;
            }
            b'\\' => bytes.next().copied().unwrap_or(b'\\'),
            other => other,
        };
        if let Some(field) = fields.last_mut() {
            field.push(byte);
        }
    }
    fields.retain(|field| !field.is_empty());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(group: Option<&str>) -> Rule {
        Rule {
            application_group: group.map(|group| group.as_bytes().to_vec()),
            ..Rule::default()
        }
    }

    #[test]
    fn the_last_rule_for_the_group_decides_setting_by_setting() {
        let rules = [
            Rule {
                per_interpreter_gil: Some(true),
                restrict_stdin: Some(true),
                ..rule(None)
            },
            Rule {
                per_interpreter_gil: Some(false),
                switch_interval: Some(0.5),
                ..rule(Some("a"))
            },
            Rule {
                restrict_stdin: Some(false),
                ..rule(Some("b"))
            },
        ];
        let of = |group: &str| Settings::default().with(&rules, Some(group.as_bytes()));
        let (a, b, other) = (of("a"), of("b"), of("c"));
        assert!(!a.per_interpreter_gil && b.per_interpreter_gil && other.per_interpreter_gil);
        assert!(a.restrict_stdin && !b.restrict_stdin && other.restrict_stdin);
        assert_eq!(a.switch_interval, Some(0.5));
        assert!(a.switch_interval_is_scoped);
        assert_eq!(b.switch_interval, None);
    }

    #[test]
    fn the_main_interpreter_and_one_without_a_group_share_the_lock_of_the_process() {
        let rules = [Rule {
            per_interpreter_gil: Some(true),
            ..rule(None)
        }];
        for group in [None, Some(&b""[..])] {
            assert!(!Settings::default().with(&rules, group).per_interpreter_gil);
        }
    }

    #[test]
    fn directories_are_layers() {
        let path = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let base = Settings {
            python_path: vec![path(&["/base"])],
            ..Settings::default()
        };
        let rules = [
            Rule {
                python_path: path(&["/all"]),
                ..rule(None)
            },
            Rule {
                python_path: path(&["/x"]),
                ..rule(Some("x"))
            },
            Rule {
                python_path: path(&["/a1", "/a2"]),
                ..rule(Some("a"))
            },
        ];
        let settings = base.with(&rules, Some(b"a"));
        let expected: Vec<Vec<Vec<u8>>> =
            vec![path(&["/base"]), path(&["/all"]), path(&["/a1", "/a2"])];
        assert_eq!(settings.python_path, expected);
    }

    #[test]
    fn text_forms_survive() {
        for rule in [
            Rule::default(),
            Rule {
                application_group: Some(b"two words\\|/x".to_vec()),
                per_interpreter_gil: Some(true),
                switch_interval: Some(0.002),
                restrict_stdin: Some(false),
                restrict_stdout: Some(true),
                restrict_signal: Some(false),
                python_path: vec![b"/a b".to_vec(), b"/c".to_vec()],
            },
            rule(Some("")),
        ] {
            assert_eq!(Rule::decode(&rule.encode()), Ok(rule));
        }
    }

    #[test]
    fn malformed_texts_are_refused() {
        for text in [
            "x",
            "restrict-stdin=maybe",
            "gil=on",
            "switch-interval=0",
            "switch-interval=x",
            "switch-interval=inf",
        ] {
            assert!(Rule::decode(text.as_bytes()).is_err(), "{text}");
        }
        // Hostile bytes do not make it panic.
        for text in [&b"\\"[..], b" ", b"=\\", b"\xff=\xff"] {
            let _ = Rule::decode(text);
        }
    }
}
