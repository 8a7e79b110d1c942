//! Prepares what the chosen feature needs: bindings and a C shim of httpd, or the version cfgs of
//! a Python interpreter. Whatever is missing is named together with the Debian package that has it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "httpd")]
    httpd::prepare();
    #[cfg(feature = "python")]
    python::prepare();
}

/// Flags of both shared objects: never unmapped (threads and atexit handlers outlive a `dlclose`),
/// and every symbol bound when loaded, so that a mismatch shows at `apachectl configtest`.
#[cfg(any(feature = "httpd", feature = "python"))]
fn link_flags() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete,-z,now");
}

#[cfg(feature = "httpd")]
mod httpd {
    use std::env;
    use std::panic;
    use std::path::PathBuf;
    use std::process::{Command, exit};

    /// The oldest httpd whose API is enough: the hook `child_stopping` came with 2.4.49.
    const MMN_MAJOR: u32 = 20_120_211;
    const MMN_MINOR: u32 = 110;

    /// The items that the module uses; everything they need comes with them.
    const FUNCTIONS: &[&str] = &[
        "ap_add_version_component",
        "ap_allow_options",
        "ap_bucket_(eoc|eor|error)_create",
        "ap_check_cmd_context",
        "ap_context_document_root",
        "ap_context_prefix",
        "ap_document_root",
        "ap_escape_html2",
        "ap_exists_scoreboard_image",
        "ap_exists_config_define",
        "ap_find_linked_module",
        "ap_find_path_info",
        "ap_get_brigade",
        "ap_get_conn_socket",
        "ap_get_limit_req_body",
        "ap_get_scoreboard_(global|process|worker_from_indexes)",
        "ap_get_server_banner",
        "ap_get_server_built",
        "ap_get_server_description",
        "ap_get_server_name_for_url",
        "ap_get_server_port",
        "ap_get_server_revision",
        "ap_get_status_line",
        "ap_get_useragent_host",
        "ap_getword_conf",
        "ap_hook_get_generate_log_id",
        "ap_hook_(access_checker|check_config|child_init|child_stopping|handler|monitor|post_config|suspend_connection|translate_name)",
        "ap_log_error_",
        "ap_log_rerror_",
        "ap_internal_redirect",
        "ap_map_http_request_error",
        "ap_mpm_query",
        "ap_pass_brigade",
        "ap_pregcomp",
        "ap_prep_lingering_close",
        "ap_pregsub",
        "ap_psignature",
        "ap_regexec",
        "ap_register_auth_provider",
        "ap_remove_(input|output)_filter_byhandle",
        "ap_run_(dirwalk_stat|generate_log_id|http_scheme)",
        "ap_runtime_dir_relative",
        "ap_satisfies",
        "ap_send_interim_response",
        "ap_server_root_relative",
        "ap_set_content_length",
        "ap_set_content_type",
        "ap_setup_client_block",
        "ap_show_mpm",
        "ap_some_auth_required",
        "ap_ssl_conn_is_ssl",
        "ap_ssl_var_lookup",
        "ap_state_query",
        "ap_walk_config",
        "apr_allocator_(alloc|free|max_free_set)",
        "apr_array_(make|push)",
        "apr_brigade_(cleanup|create|destroy|insert_file|write)",
        "apr_bucket_(eos|flush|heap|transient)_create",
        "apr_bucket_file_(enable_mmap|set_buf_size)",
        "apr_file_(dup|open)",
        "apr_hash_get",
        "apr_os_file_(get|put)",
        "apr_os_sock_get",
        "apr_os_thread_(current|put)",
        "apr_palloc",
        "apr_pool_(allocator_get|cleanup_(null|register)|create_ex|destroy)",
        "apr_proc_other_child_(register|unregister)",
        "apr_pstrmemdup",
        "apr_socket_(close|opt_set)",
        "apr_socket_timeout_(get|set)",
        "apr_table_(addn|elts|get|make|setn|unset)",
        "apr_uri_unparse",
        "rwsgi_.*",
    ];
    const TYPES: &[&str] = &[
        "ap_regmatch_t",
        "ap_bucket_error",
        "ap_version_t",
        "apr_proc_t",
        "apr_table_entry_t",
        "authn_provider",
        "authz_provider",
        "cmd_parms",
        "command_rec",
        "core_dir_config",
        "core_server_config",
        "module",
        "request_rec",
        "server_rec",
    ];
    const CONSTANTS: &[&str] = &[
        "ACCESS_CONF",
        "APLOG_.*",
        "APR_(BLOCK_READ|NONBLOCK_READ|DIR|NOFILE|REG|SUCCESS)",
        "APR_FINFO_(MIN|MTIME)",
        "APR_FOPEN_(BINARY|READ|SENDFILE_ENABLED)",
        "APR_HOOK_(MIDDLE|REALLY_LAST)",
        "APR_INCOMPLETE_READ",
        "APR_OC_REASON_(DEATH|LOST|RESTART|UNREGISTER)",
        "AP_AUTH_INTERNAL_PER_CONF",
        "AP_(CGI_PASS_AUTH|CORE_CONFIG)_ON",
        "AP_CONN_CLOSE",
        "AP_FILTER_ERROR",
        "AP_FTYPE_PROTOCOL",
        "AP_MODE_READBYTES",
        "AP_MPMQ_(GENERATION|(HARD_LIMIT|MAX)_(DAEMONS|THREADS)|IS_ASYNC|MPM_STATE)",
        "AP_MPMQ_(NOT_SUPPORTED|STOPPING)",
        "AP_REG_EXTENDED",
        "AP_REQ_REJECT_PATH_INFO",
        "AP_SQ_(MAIN_STATE|RUN_MODE|MS_(CREATE_PRE_CONFIG|EXITING)|RM_CONFIG_TEST)",
        "CONN_STATE_SUSPENDED",
        "DECLINED",
        "GLOBAL_ONLY",
        "HTTP_.*",
        "MODULE_MAGIC_.*",
        "M_GET",
        "NOT_IN_HTACCESS",
        "OK",
        "ENABLE_MMAP_OFF",
        "NOT_IN_HTACCESS",
        "OPT_EXECCGI",
        "OR_AUTHCFG",
        "OR_FILEINFO",
        "RAW_ARGS",
        "REMOTE_HOST",
        "REQUEST_CHUNKED_(DECHUNK|ERROR)",
        "RSRC_CONF",
        "SERVER_(DEAD|STARTING|READY|BUSY_.*|CLOSING|GRACEFUL|IDLE_KILL)",
        "SATISFY_ANY",
        "SUSPENDED",
        "TAKE1",
        "ap_bucket_type_error",
        "ap_coredumpdir_configured",
        "ap_server_conf",
        "ap_unixd_config",
        "apr_bucket_type_eos",
        "apr_hook_debug_current",
    ];

    pub fn prepare() {
        super::link_flags();
        println!("cargo:rerun-if-env-changed=APXS");
        println!("cargo:rerun-if-env-changed=APR_CONFIG");
        for name in ["wrapper.h", "shim.h", "shim.c"] {
            println!("cargo:rerun-if-changed=include/{name}");
        }
        let flags = compiler_flags();
        bindings(&flags);
        shim(&flags);
    }

    /// Ends the build with a message that a person can act upon.
    fn fail(message: &str) -> ! {
        eprintln!("\nrwsgi cannot be built: {message}\n");
        exit(1);
    }

    /// Runs a configuration tool, the one that `variable` names or else `default`.
    fn ask(variable: &str, default: &str, arguments: &[&str], package: &str) -> String {
        let tool = env::var(variable).unwrap_or_else(|_| default.to_owned());
        let answer = match Command::new(&tool).args(arguments).output() {
            Ok(answer) => answer,
            Err(error) => fail(&format!(
                "`{tool}` cannot be run ({error}). Install it (Debian: apt install {package}), or \
                 set {variable} to its path."
            )),
        };
        let text = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        if !answer.status.success() || text.is_empty() {
            fail(&format!(
                "`{tool} {}` gave no answer: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&answer.stderr).trim()
            ));
        }
        text
    }

    /// `-I` and `-D` flags of httpd's and APR's headers.
    fn compiler_flags() -> Vec<String> {
        let httpd = ask("APXS", "apxs", &["-q", "INCLUDEDIR"], "apache2-dev");
        if !PathBuf::from(&httpd).join("httpd.h").exists() {
            fail(&format!(
                "there is no httpd.h in {httpd}, which apxs names. Install httpd's headers \
                 (Debian: apt install apache2-dev)."
            ));
        }
        let apr = ask(
            "APR_CONFIG",
            "apr-1-config",
            &["--includes", "--cppflags"],
            "libapr1-dev libaprutil1-dev",
        );
        let mut flags = vec![format!("-I{httpd}"), "-Iinclude".to_owned()];
        flags.extend(apr.split_whitespace().map(str::to_owned));
        flags
    }

    fn bindings(flags: &[String]) {
        let builder = bindgen::Builder::default()
            .header("include/wrapper.h")
            .clang_args(flags)
            .use_core()
            .derive_debug(false)
            .layout_tests(true)
            .prepend_enum_name(false)
            .generate_comments(false)
            // Enumerations are constants: httpd may know more values than the headers named here.
            .default_enum_style(bindgen::EnumVariation::Consts)
            // `OK` and `DECLINED` are of one type, as the hooks return it.
            .default_macro_constant_type(bindgen::MacroTypeVariation::Signed);
        let builder = FUNCTIONS
            .iter()
            .fold(builder, |builder, name| builder.allowlist_function(name));
        let builder = TYPES
            .iter()
            .fold(builder, |builder, name| builder.allowlist_type(name));
        let builder = CONSTANTS
            .iter()
            .fold(builder, |builder, name| builder.allowlist_var(name));

        // bindgen panics when it finds no libclang; the message must name the remedy.
        let report = panic::take_hook();
        panic::set_hook(Box::new(|_| ()));
        let generated = panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate()));
        panic::set_hook(report);
        let bindings = match generated {
            Ok(Ok(bindings)) => bindings,
            Ok(Err(error)) => fail(&format!(
                "httpd's headers cannot be read: {error}. Are apache2-dev, libapr1-dev and \
                 libaprutil1-dev of one release installed, and libclang-dev with its own headers?"
            )),
            Err(_) => fail(
                "libclang cannot be loaded. Install it (Debian: apt install libclang-dev), or set \
                 LIBCLANG_PATH to the directory of libclang.so.",
            ),
        };
        let text = bindings.to_string();
        check_version(&text);
        write("httpd_bindings.rs", &text);
        write("httpd_stand_ins.rs", &stand_ins(&text));
    }

    fn write(name: &str, text: &str) {
        let path = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join(name);
        if let Err(error) = std::fs::write(&path, text) {
            fail(&format!("{} cannot be written: {error}", path.display()));
        }
    }

    /// Definitions of httpd's and APR's symbols for unit tests, which run without httpd: a call
    /// ends the test run.
    fn stand_ins(bindings: &str) -> String {
        let name = |line: &str, keyword: &str, end: char| {
            let rest = line.trim_start().strip_prefix(keyword)?;
            Some(rest.split(end).next().unwrap_or(rest).to_owned())
        };
        let mut text = String::new();
        let mut foreign = false;
        for line in bindings.lines() {
            if line.starts_with("unsafe extern \"C\"") || line.starts_with("extern \"C\"") {
                foreign = true;
            } else if line.starts_with('}') {
                foreign = false;
            } else if let Some(name) = name(line, "pub fn ", '(').filter(|_| foreign) {
                // The shim is linked into tests as well.
                if !name.starts_with("rwsgi_") {
                    text += &format!(
                        "#[unsafe(no_mangle)]\nextern \"C\" fn {name}() {{ no_httpd(\"{name}\") }}\n"
                    );
                }
            } else if let Some(name) = name(line, "pub static mut ", ':')
                .or_else(|| name(line, "pub static ", ':'))
                .filter(|_| foreign)
            {
                text += &format!("#[unsafe(no_mangle)]\nstatic {name}: u8 = 0;\n");
            }
        }
        text
    }

    /// Refuses headers of an httpd that is too old.
    fn check_version(bindings: &str) {
        let number = |name: &str| {
            let start = bindings.find(&format!("pub const {name}:"))?;
            let value = bindings[start..].split(['=', ';']).nth(1)?;
            value.trim().parse::<u32>().ok()
        };
        let found = (
            number("MODULE_MAGIC_NUMBER_MAJOR").unwrap_or(0),
            number("MODULE_MAGIC_NUMBER_MINOR").unwrap_or(0),
        );
        if found.0 != MMN_MAJOR || found.1 < MMN_MINOR {
            fail(&format!(
                "httpd's module API is {}.{}; needed is {MMN_MAJOR}.{MMN_MINOR} or a later minor \
                 number (httpd 2.4.49 or newer of the 2.4 line).",
                found.0, found.1
            ));
        }
    }

    fn shim(flags: &[String]) {
        let mut build = cc::Build::new();
        build
            .file("include/shim.c")
            .warnings(true)
            .extra_warnings(true);
        for flag in flags {
            build.flag(flag);
        }
        // httpd's own headers have unused parameters in inline functions.
        build.flag_if_supported("-Wno-unused-parameter");
        if let Err(error) = build.try_compile("rwsgi_shim") {
            fail(&format!(
                "include/shim.c cannot be compiled: {error}. Is a C compiler installed \
                 (Debian: apt install gcc libc6-dev)?"
            ));
        }
    }
}

#[cfg(feature = "python")]
mod python {
    /// The interpreter is chosen by `PYO3_PYTHON`, as for pyo3 itself.
    pub fn prepare() {
        super::link_flags();
        pyo3_build_config::use_pyo3_cfgs();
        // What Python takes itself for when httpd starts it and no home is configured.
        let config = pyo3_build_config::get();
        println!(
            "cargo:rustc-env=RWSGI_PYTHON_MINOR={}",
            config.version().minor
        );
        let executable = config.executable();
        println!(
            "cargo:rustc-env=RWSGI_PYTHON_EXECUTABLE={}",
            executable.unwrap_or("python3")
        );
    }
}
