//! `WSGITrustedProxyHeaders` and `WSGITrustedProxies`.

use super::Effective;
use super::directives::Target;
use crate::exchange::subnet::Subnet;
use crate::exchange::trusted_proxies::{Header, Rules};
use crate::httpd::apache::Array;
use crate::httpd::apache::command::Words;
use crate::messages::POINTLESS_DIRECTIVE;

/// `WSGITrustedProxyHeaders`: repeated within one section, it adds to the list.
pub fn trusted_proxy_headers(target: &mut Target<'_>, mut words: Words<'_>) -> Result<(), String> {
    let pool = target.command.pool();
    let headers = &mut target.settings()?.trusted_headers;
    let mut list = *headers.get_or_insert_with(|| Array::new(pool));
    while let Some(word) = words.next_word() {
        match Header::named(word.bytes()) {
            Some(header) => list.push(header),
            // `.htaccess` is read for every request.
            None if target.command.is_in_htaccess() => {}
            None => target.warn(
                "WSGITrustedProxyHeaders",
                POINTLESS_DIRECTIVE,
                &format!(
                    "WSGITrustedProxyHeaders: '{}' is no header by which proxies describe a \
                     request; it has no effect, and is not taken out of requests either",
                    word.text()
                ),
            )?,
        }
    }
    Ok(())
}

/// `WSGITrustedProxies`: repeated within one section, it adds to the list.
pub fn trusted_proxies(target: &mut Target<'_>, mut words: Words<'_>) -> Result<(), String> {
    let pool = target.command.pool();
    let proxies = &mut target.settings()?.trusted_proxies;
    let mut list = *proxies.get_or_insert_with(|| Array::new(pool));
    while let Some(word) = words.next_word() {
        match Subnet::parse(word.bytes()) {
            Some(subnet) => list.push(subnet),
            None => {
                return Err(format!(
                    "Unable to parse trusted proxy IP address/subnet of \"{}\": WSGITrustedProxies \
                     takes addresses (192.0.2.1, 2001:db8::1) and subnets (10.0.0.0/8, \
                     2001:db8::/32), no names",
                    word.text()
                ));
            }
        }
    }
    Ok(())
}

/// What holds for a request; `None` where no header is trusted.
#[inline]
pub fn rules<'r>(config: &Effective<'r>) -> Option<Rules<'r>> {
    let headers = config.get(|s| s.trusted_headers.as_ref())?.items();
    let proxies = config.get(|s| s.trusted_proxies.as_ref());
    (!headers.is_empty()).then_some(Rules {
        headers,
        proxies: proxies.map(Array::items),
    })
}
