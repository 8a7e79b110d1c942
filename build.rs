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
    pub fn prepare() {
        super::link_flags();
    }
}

#[cfg(feature = "python")]
mod python {
    /// The interpreter is chosen by `PYO3_PYTHON`, as for pyo3 itself.
    pub fn prepare() {
        super::link_flags();
        pyo3_build_config::use_pyo3_cfgs();
    }
}
