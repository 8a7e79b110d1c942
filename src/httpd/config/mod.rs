//! Configuration: one table of directives, typed values, merging, `%{...}` expansion.
//!
//! A configuration is plain data in httpd's pools: a merged directory configuration may be made
//! for a single request, so nothing in it is ever dropped. Every value is an `Option`; `None` means
//! that the directive was not given and the level above decides.

pub mod alias;
pub mod asgi;
pub mod directives;
pub mod expand;
pub mod handler_script;
pub mod interpreters;
pub mod mapping;
pub mod notes;
pub mod proxies;
pub mod remarks;
pub mod removed;
pub mod script_options;
pub mod scripts;
pub mod server;
pub mod settings;
pub mod table;
pub mod telemetry;
pub mod values;

pub use alias::Alias;
pub use handler_script::HandlerScript;
pub use server::{Globals, ServerConfig};
pub use settings::Settings;

use crate::exchange::{AsgiSettings, Interface};
use crate::httpd::apache::{PoolStr, Request};

/// What is configured for one request: the handler script or the alias that matched, then the
/// directory, then the server.
#[derive(Clone, Copy)]
pub struct Effective<'r> {
    /// The alias that mapped the request, if one did.
    pub alias: Option<&'r Alias>,
    /// The handler script that answers it, if one does. The options of the alias do not count then.
    pub handler: Option<&'r HandlerScript>,
    directory: &'r Settings,
    /// The virtual host's configuration.
    pub server: &'r ServerConfig,
}

impl<'r> Effective<'r> {
    /// The configuration of `request`; `None` if this module has none, which httpd never lets
    /// happen for a request that it has accepted.
    #[inline]
    pub fn of(request: Request<'r>) -> Option<Self> {
        // SAFETY: `settings::create` and `merge` put `Settings` there; `hooks::translate` puts an
        // alias of the configuration into the request's slot. Both outlive the request.
        let (directory, alias) = unsafe {
            (
                request.directory_config::<Settings>().as_ref(),
                request.slot::<Alias>().as_ref(),
            )
        };
        Some(Effective {
            alias,
            handler: None,
            directory: directory.unwrap_or(&Settings::UNSET),
            server: ServerConfig::of(request.server())?,
        })
    }

    /// The same, with the script that is registered for the handler `name`, if there is one.
    #[inline]
    pub fn with_handler_script(mut self, name: &[u8]) -> Option<Self> {
        let find = |settings: &'r Settings| {
            let scripts = settings.handler_scripts.as_ref()?;
            handler_script::find(scripts, name)
        };
        self.handler = Some(find(self.directory).or_else(|| find(&self.server.settings))?);
        self.alias = None;
        Some(self)
    }

    /// A setting: the directory's, else the server's.
    #[inline(always)]
    pub fn get<T>(&self, field: impl Fn(&'r Settings) -> Option<T>) -> Option<T> {
        field(self.directory).or_else(|| field(&self.server.settings))
    }

    /// The process group, not expanded.
    #[inline]
    pub fn process_group(&self) -> Option<&'r PoolStr> {
        self.alias
            .and_then(|alias| alias.options.process_group.as_ref())
            .or_else(|| self.handler?.options.process_group.as_ref())
            .or_else(|| self.get(|s| s.process_group.as_ref()))
    }

    /// The application group, not expanded.
    #[inline]
    pub fn application_group(&self) -> Option<&'r PoolStr> {
        self.alias
            .and_then(|alias| alias.options.application_group.as_ref())
            .or_else(|| self.handler?.options.application_group.as_ref())
            .or_else(|| self.get(|s| s.application_group.as_ref()))
    }

    /// Whether the application sees the `Authorization` header, where that is configured.
    #[inline]
    pub fn pass_authorization(&self) -> Option<bool> {
        self.alias
            .and_then(|alias| alias.options.pass_authorization)
            .or_else(|| self.handler?.options.pass_authorization)
            .or_else(|| self.get(|s| s.pass_authorization))
    }

    /// What the script is taken for. Handler scripts, and files that `SetHandler` maps, are WSGI.
    #[inline(always)]
    pub fn interface(&self) -> Interface {
        self.alias
            .and_then(|alias| alias.options.interface)
            .unwrap_or_default()
    }

    /// What is configured for ASGI applications.
    pub fn asgi(&self) -> AsgiSettings {
        asgi::effective([self.directory, &self.server.settings])
    }

    /// Values that hold for the whole server.
    #[inline(always)]
    pub fn globals(&self) -> &'r Globals {
        self.server.globals()
    }
}
