//! `<WSGIInterpreterOptions>` and the directives that may stand in it.

use super::directives::Target;
use super::values;
use crate::exchange::interpreters::Rule;
use crate::httpd::apache::command::Words;
use crate::httpd::apache::{Array, Pool, PoolStr};

/// What may be said for single interpreters; `None` is not said.
#[derive(Clone, Copy)]
pub struct Values {
    /// `WSGIPerInterpreterGIL`.
    pub per_interpreter_gil: Option<bool>,
    /// `WSGIFreeThreading`.
    pub free_threading: Option<bool>,
    /// `WSGISwitchInterval`, seconds.
    pub switch_interval: Option<f64>,
    /// `WSGIPythonPath`, colons and all.
    pub python_path: Option<PoolStr>,
    /// `WSGIRestrictStdin`.
    pub restrict_stdin: Option<bool>,
    /// `WSGIRestrictStdout`.
    pub restrict_stdout: Option<bool>,
    /// `WSGIRestrictSignal`.
    pub restrict_signal: Option<bool>,
}

impl Values {
    const NONE: Values = Values {
        per_interpreter_gil: None,
        free_threading: None,
        switch_interval: None,
        python_path: None,
        restrict_stdin: None,
        restrict_stdout: None,
        restrict_signal: None,
    };
}

/// One `<WSGIInterpreterOptions>`.
#[derive(Clone, Copy)]
struct Block {
    /// `process-group=`; the empty name is httpd's own processes.
    process_group: Option<PoolStr>,
    /// `application-group=`.
    application_group: Option<PoolStr>,
    values: Values,
}

impl Block {
    /// How much it selects.
    fn rank(&self) -> usize {
        usize::from(self.process_group.is_some()) + usize::from(self.application_group.is_some())
    }

    fn is_for(&self, process_group: &[u8]) -> bool {
        let own = self.process_group.as_ref().map(PoolStr::bytes);
        own.is_none_or(|own| own == process_group)
    }
}

/// All that is configured for interpreters.
#[derive(Clone, Copy)]
pub struct Interpreters {
    /// What stands outside of all blocks.
    pub base: Values,
    /// `WSGIDestroyInterpreter`.
    pub destroy: Option<bool>,
    blocks: Array<Block>,
    /// The block whose directives are being read.
    open: Option<Block>,
}

impl Interpreters {
    /// Nothing is configured.
    pub fn new(pool: Pool<'_>) -> Self {
        Interpreters {
            base: Values::NONE,
            destroy: None,
            blocks: Array::new(pool),
            open: None,
        }
    }

    /// Where a directive that is being read belongs.
    pub fn values_mut(&mut self) -> &mut Values {
        match &mut self.open {
            Some(block) => &mut block.values,
            None => &mut self.base,
        }
    }

    /// The blocks for a process group (`""`: httpd's own processes), in the order of their rank.
    fn blocks_for<'s>(&'s self, process_group: &[u8]) -> Vec<&'s Block> {
        let blocks = self.blocks.items().iter();
        let mut found: Vec<&Block> = blocks.filter(|block| block.is_for(process_group)).collect();
        // A stable sort: among equals the later one decides.
        found.sort_by_key(|block| block.rank());
        found
    }

    /// The rules for the interpreters of a process group. What stands outside of all blocks is not
    /// among them, but for the global lock; nor are the directives about the streams if a person
    /// debugs at the terminal (`single`).
    pub fn rules(&self, process_group: &[u8], single: bool) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.base.per_interpreter_gil.is_some() {
            rules.push(Rule {
                per_interpreter_gil: self.base.per_interpreter_gil,
                ..Rule::default()
            });
        }
        for block in self.blocks_for(process_group) {
            let values = &block.values;
            let path = values.python_path.as_ref().map_or(&b""[..], PoolStr::bytes);
            let rule = Rule {
                application_group: block.application_group.map(|group| group.bytes().to_vec()),
                per_interpreter_gil: values.per_interpreter_gil,
                switch_interval: values.switch_interval,
                restrict_stdin: values.restrict_stdin.filter(|_| !single),
                restrict_stdout: values.restrict_stdout.filter(|_| !single),
                restrict_signal: values.restrict_signal,
                python_path: values::directories(path).map(<[u8]>::to_vec).collect(),
            };
            rules.push(rule);
        }
        rules
    }

    /// Whether a process group is to run without the global lock.
    pub fn free_threading(&self, process_group: &[u8]) -> bool {
        let blocks = self.blocks_for(process_group);
        let said = blocks
            .iter()
            .filter(|block| block.application_group.is_none())
            .filter_map(|block| block.values.free_threading)
            .next_back();
        said.or(self.base.free_threading).unwrap_or(false)
    }

    /// Whether an interpreter of a process group is to have a global lock of its own.
    pub fn wants_own_gil(&self, process_group: &[u8]) -> bool {
        let rules = self.rules(process_group, false);
        rules
            .iter()
            .any(|rule| rule.per_interpreter_gil == Some(true))
    }

    /// Whether a block for an application group says something about the global lock as a whole.
    pub fn scopes_free_threading(&self) -> bool {
        self.blocks
            .items()
            .iter()
            .any(|block| block.application_group.is_some() && block.values.free_threading.is_some())
    }
}

/// What may stand in a block.
pub const PERMITTED: [&str; 7] = [
    "WSGIPerInterpreterGIL",
    "WSGIFreeThreading",
    "WSGISwitchInterval",
    "WSGIPythonPath",
    "WSGIRestrictStdin",
    "WSGIRestrictStdout",
    "WSGIRestrictSignal",
];

/// `<WSGIInterpreterOptions ...>`: what follows, up to its end, belongs to the block.
pub fn open(target: &mut Target<'_>, mut words: Words<'_>) -> Result<(), String> {
    let name = target.name();
    let mut block = Block {
        process_group: None,
        application_group: None,
        values: Values::NONE,
    };
    if !words.close_bracket() {
        return Err(format!("{name}> directive missing closing '>'"));
    }
    while let Some(option) = words.next_option() {
        let (key, value) = option.map_err(|word| {
            format!(
                "{name}>: '{word}' is not of the form name=value; accepted are process-group=, \
                 application-group="
            )
        })?;
        let selector = match key.to_ascii_lowercase().as_str() {
            "process-group" => &mut block.process_group,
            "application-group" => &mut block.application_group,
            _ => {
                return Err(format!(
                    "{name}>: unknown selector '{key}'; accepted are process-group=, \
                     application-group="
                ));
            }
        };
        if selector.is_some() {
            return Err(format!("{name}>: {key} is given more than once"));
        }
        *selector = Some(target.group(value));
    }
    for (directive, line) in target.command.children() {
        if !PERMITTED
            .iter()
            .any(|permitted| permitted.eq_ignore_ascii_case(&directive))
        {
            return Err(format!(
                "{name}>: {directive} (line {line}) cannot stand here; accepted are {}",
                PERMITTED.join(", ")
            ));
        }
    }
    // What is said for the main interpreter is not for whichever group comes first.
    if let Some(group) = block.application_group.filter(|g| g.bytes().is_empty()) {
        target.note_application_group(&group)?;
    }
    target.server()?.globals_mut().interpreters.open = Some(block);
    Ok(())
}

/// The end of the block.
pub fn close(target: &mut Target<'_>) -> Result<(), String> {
    let interpreters = &mut target.server()?.globals_mut().interpreters;
    if let Some(block) = interpreters.open.take() {
        interpreters.blocks.push(block);
    }
    Ok(())
}
