//! The first lines of Python in a worker: they find the gateway, which does the rest.

use super::machine::Role;
use crate::daemon::group::GroupConfig;

/// Run with `-c` and the directory of the gateways as only argument. Nothing of it is left in
/// `sys.path` and in `sys.argv` when the gateway's function is called.
const TEXT: &str = r#"import sys
directory = sys.argv.pop()
if sys.path[:1] == [""]:
    del sys.path[0]
sys.path.insert(0, directory)
try:
    import _rwsgi
except ImportError as error:
    sys.stderr.write(
        "RWSGI0402: Python %d.%d (%s) finds no gateway of its version in %s: %s. "
        "Run: make gateway PYTHON=%s\n"
        % (sys.version_info[:2] + (sys.executable, directory, error, sys.executable))
    )
    sys.exit(78)
sys.path.remove(directory)
del sys, directory
_rwsgi.FUNCTION()
"#;

/// The arguments of a worker's process, program first.
pub fn arguments(config: &GroupConfig, role: Role) -> Vec<Vec<u8>> {
    let mut arguments = vec![config.python.clone()];
    if config.dont_write_bytecode {
        arguments.push(b"-B".to_vec());
    }
    // Only a build without the global lock knows both values.
    if let Some(free) = config.free_threading {
        arguments.push(if free { b"-Xgil=0" } else { b"-Xgil=1" }.to_vec());
    }
    for _ in 0..config.python_optimize.clamp(0, 2) {
        arguments.push(b"-O".to_vec());
    }
    for warning in &config.python_warnings {
        arguments.push([b"-W", &warning[..]].concat());
    }
    arguments.push(b"-c".to_vec());
    let function = if role == Role::Template {
        "template"
    } else {
        "worker"
    };
    arguments.push(TEXT.replace("FUNCTION", function).into_bytes());
    arguments.push(config.gateway_directory.clone());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_text() {
        let config = GroupConfig {
            python: b"/usr/bin/python3".to_vec(),
            gateway_directory: b"/gateways".to_vec(),
            dont_write_bytecode: true,
            python_optimize: 2,
            free_threading: Some(false),
            python_warnings: vec![b"error".to_vec()],
            ..GroupConfig::default()
        };
        let arguments = arguments(&config, Role::Template);
        assert_eq!(arguments[0], b"/usr/bin/python3");
        let flags: Vec<&[u8]> = arguments[1..7].iter().map(Vec::as_slice).collect();
        assert_eq!(
            flags,
            [&b"-B"[..], b"-Xgil=1", b"-O", b"-O", b"-Werror", b"-c"]
        );
        assert!(arguments[7].ends_with(b"\n_rwsgi.template()\n"));
        assert_eq!(arguments[8], b"/gateways");
    }
}
